"""Commands of the stack that need no server: options, who holds a folder, how long silent servers are waited for."""

import json
import time
from http.server import BaseHTTPRequestHandler
from socket import AF_INET

import psutil
import pytest
import yaml
from prefect_server import ROOT
from web_servers import answering

from flows.stack import postgres, processes, status, web
from flows.stack.__main__ import KINDS, _config, main
from flows.stack.answering import prefect_worker
from flows.stack.config import StackConfig
from flows.stack.folder import held, save
from flows.stack.ports import require_unused
from flows.stack.processes import Record
from flows.stack.servers import NO_LANGUAGE_MODELS, Server, servers
from flows.stack.up import up
from lazypipe.errors import ConfigError, DataError, EngineError


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


def test_the_mlflow_of_the_containers_has_the_settings_of_the_stack():
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert NO_LANGUAGE_MODELS.items() <= services["mlflow"]["environment"].items()


def test_one_command_at_a_time_changes_a_stack(tmp_path):
    with held(tmp_path), pytest.raises(DataError, match=r"another command holds this stack \(process \d+ of .*\)"):
        held(tmp_path).__enter__()
    with held(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: cannot hold a stack \(.*\)\. Pass another --folder\."):
        held(tmp_path / "file").__enter__()


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (8786, "--ports.spark-page: 8786 is also --ports.dask. Give each a port of its own."),
        (8785, "--ports.spark-page + 1: 8786 is also --ports.dask. Give each a port of its own."),
        (65_535, "--ports.spark-page + 1: 65536 is no port. Pass a smaller one."),
    ],
)
def test_a_port_that_cannot_be_is_named_by_its_option(page, said):
    def server(name, **ports):
        return Server(name, "spark", (), "", lambda _: None, ports=ports)

    spark = (
        server("spark-master", **{"ports.spark_page": page}),
        server("spark-worker-1", **{"ports.spark_page + 1": page + 1}),
    )
    with pytest.raises(ConfigError) as caught:
        require_unused([server("dask-scheduler", **{"ports.dask": 8786}), *spark], "127.0.0.1")
    assert str(caught.value) == said


def test_every_kind_of_server_can_be_started_alone_but_postgresql_where_the_data_are_in_sqlite(tmp_path):
    config = StackConfig(folder=str(tmp_path), database="sqlite")
    assert {server.kind for server in servers(config)} == set(KINDS) - {"postgres", "spark"}
    with pytest.raises(
        ConfigError, match=r"^postgres: is not in this stack, whose data are in SQLite\. Pass --database"
    ):
        up(config, ("postgres",))


def test_a_project_that_is_not_there_is_told_before_anything_starts(tmp_path):
    config = StackConfig(folder=str(tmp_path / "stack"), project=str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"^--project: .*missing: no such folder\. Name the one of prefect\.yaml\.$"):
        up(config)
    assert not (tmp_path / "stack").exists()


def test_a_database_that_is_not_made_in_time_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres, "INIT_SECONDS", 0.2)
    monkeypatch.setattr(postgres, "making", lambda config, folder: ("sleep", "60"))
    with pytest.raises(
        EngineError, match=r"sleep: made no database in \S+: it was not done within 0\.2 s\. Pass --dat"
    ):
        postgres.prepare(StackConfig(folder=str(tmp_path)))


def test_a_worker_is_asked_after_with_the_login_of_prefect(monkeypatch):
    """A server with a password lets only its health be asked for without."""
    here = {"name": "mine", "status": "ONLINE", "last_heartbeat_time": "2026-01-31T02:00:00+00:00"}

    class Guarded(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(
                200 if self.headers["Authorization"] and self.path == "/work_pools/a%20b/workers/filter" else 401
            )
            self.end_headers()
            self.wfile.write(json.dumps([here]).encode())

    with answering(Guarded) as address:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:open-sesame")
        prefect_worker(address, "a b", "mine", 0.0)
        monkeypatch.delenv("PREFECT_API_AUTH_STRING")
        with pytest.raises(OSError, match="401"):
            prefect_worker(address, "a b", "mine", 0.0)


def test_a_server_of_this_machine_is_asked_by_any_of_its_addresses_without_a_proxy(monkeypatch):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    addresses = [one.address for all_of in psutil.net_if_addrs().values() for one in all_of if one.family == AF_INET]
    for address in addresses:
        with answering(Answers, address) as url:
            assert web.ask_json(url) is True
    assert "127.0.0.1" in addresses and not web.is_here("10.0.0.256")
    assert [address for address in addresses if web.is_loopback(address)] == ["127.0.0.1"]


def test_records_of_processes_are_read_also_where_they_hold_more(tmp_path):
    (tmp_path / "processes").mkdir()
    told = {"name": "mlflow", "pid": 12, "started": 34.5, "stop": 15, "log": "mlflow.log"}
    (tmp_path / "processes" / "mlflow.json").write_text(json.dumps(told))
    (tmp_path / "processes" / "torn.json").write_text('{"name": "to')
    assert processes.records(tmp_path) == {"mlflow": Record("mlflow", 12, 34.5)}


def test_servers_are_asked_all_at_once(tmp_path, monkeypatch):
    """A silent one is waited for 5 s: one after the other a stack of eight would take 40 s."""

    def silent(_):
        time.sleep(1)
        raise OSError("it does not answer")

    asked = [Server(f"dask-worker-{i}", "dask", (), "", silent) for i in range(8)]
    save(StackConfig(folder=str(tmp_path)))
    monkeypatch.setattr(status, "servers", lambda _: asked)
    monkeypatch.setattr(Record, "process", lambda _: True)
    monkeypatch.setattr(status.processes, "family", lambda _: [])
    monkeypatch.setattr(status.processes, "records", lambda _: {one.name: Record(one.name, 1, 0.0) for one in asked})
    begun = time.monotonic()
    found = status.seen(tmp_path)
    assert time.monotonic() - begun < 4
    assert [(one.name, one.state) for one in found] == [(one.name, "silent") for one in asked]
    table = status.table(found)
    assert table[0].split() == ["server", "state", "pid", "memory", "since", "address"]
    assert set(table[1]) == {"-", " "} and table[2].split()[:3] == ["dask-worker-0", "silent", "1"]
