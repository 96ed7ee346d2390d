"""Commands of the stack that need no server: options, who holds a folder, how long silent servers are waited for."""

import time

import pytest

from flows.stack import status
from flows.stack.__main__ import _config, main
from flows.stack.config import StackConfig
from flows.stack.folder import held, save
from flows.stack.processes import Record
from flows.stack.servers import Server
from lazypipe.errors import ConfigError, DataError


def config(*arguments):
    return _config("up", "Start it.", list(arguments))


def test_every_field_is_an_option(tmp_path, capsys):
    assert config() == StackConfig()
    (tmp_path / "stack.yaml").write_text("dask: {workers: 3}\nspark: true\n")
    found = config("--config", str(tmp_path / "stack.yaml"), "--ports.dask-page", "9000", "--allowed-hosts", "a", "b")
    assert (found.dask.workers, found.spark, found.ports.dask_page, found.allowed_hosts) == (3, True, 9000, ("a", "b"))
    assert config("--allowed-hosts", "a").allowed_hosts == ("a",)
    assert config("--spark").spark and not config("--spark", "false").spark
    with pytest.raises(SystemExit):
        main(["up", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "usage: python -m flows.stack up " in said and "Start every server" in said
    for name in ("--folder", "--ports.dask-page", "--spark-workers.memory", "--flow-runs", "--debug"):
        assert f"{name} " in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--flder", "--flder: unknown option; the nearest is '--folder'. See python -m flows.stack up --help."),
        ("x", "x: unexpected argument. See python -m flows.stack up --help."),
        ("--ports.mlflow=80", "--ports.mlflow: '80': input should be greater than or equal to 1024."),
        ("--database=oracle", "--database: 'oracle' is not one of auto, postgres, sqlite."),
    ],
)
def test_what_is_no_option_is_refused_in_a_line(given, said):
    with pytest.raises(ConfigError) as caught:
        config(given)
    assert str(caught.value) == said


def test_one_command_at_a_time_changes_a_stack(tmp_path):
    with held(tmp_path), pytest.raises(DataError, match=r"another command holds this stack \(process \d+ of .*\)"):
        held(tmp_path).__enter__()
    with held(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: cannot hold a stack \(.*\)\. Pass another --folder\."):
        held(tmp_path / "file").__enter__()


def test_servers_are_asked_all_at_once(tmp_path, monkeypatch):
    """A silent one is waited for 5 s: one after the other a stack of eight would take 40 s."""

    def silent(_):
        time.sleep(1)
        raise OSError("it does not answer")

    servers = [Server(f"dask-worker-{i}", "dask", (), "", silent) for i in range(8)]
    save(StackConfig(folder=str(tmp_path)))
    monkeypatch.setattr(status, "servers", lambda _: servers)
    monkeypatch.setattr(Record, "process", lambda _: True)
    monkeypatch.setattr(status.processes, "family", lambda _: [])
    monkeypatch.setattr(
        status.processes, "records", lambda _: {s.name: Record(s.name, 1, 0.0, "", "") for s in servers}
    )
    begun = time.monotonic()
    found = status.seen(tmp_path)
    assert time.monotonic() - begun < 4
    assert [(one.name, one.state) for one in found] == [(server.name, "silent") for server in servers]
    table = status.table(found)
    assert table[0].split() == ["server", "state", "pid", "memory", "since", "address"]
    assert set(table[1]) == {"-", " "} and table[2].split()[:3] == ["dask-worker-0", "silent", "1"]
