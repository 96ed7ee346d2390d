"""``python -m flows.deploy``: faults of prefect.yaml are told by deployment and field, and servers that are away."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import deploy

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
name: test
deployments:
  - name: one
    entrypoint: flows/pca.py:pca
    parameters: {config: {source: rows.npy, n_components: 3, state: states/one}}
    schedules: [{cron: "0 2 * * *", timezone: Etc/UTC}]
    work_pool: {name: lazypipe}
"""
OTHER = """
  - name: two
    entrypoint: flows/covariance.py:covariance
    parameters: {config: {source: rows.npy, state: ./states/one}}
    work_pool: {name: lazypipe}
"""


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """The lines that a file is refused with; none where it is taken."""
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)

    def lines(text):
        (tmp_path / "prefect.yaml").write_text(text)
        code = deploy.main(["--check", "--file", str(tmp_path / "prefect.yaml")])
        said = capsys.readouterr()
        found = [line.removeprefix(f"ConfigError: {tmp_path / 'prefect.yaml'}: ") for line in said.err.splitlines()]
        assert code == (2 if found else 0), said
        return found

    return lines


def test_the_deployments_of_the_project_have_no_fault(capsys):
    assert deploy.main(["--check", "--file", str(ROOT / "prefect.yaml")]) == 0
    assert "deployments, no fault" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0 2 * * *", "0 25 * * *", "one: schedules[0].cron: '0 25 * * *' does not parse"),
        ("Etc/UTC", "Europ/Paris", "one: schedules[0].timezone: no time zone 'Europ/Paris'; the nearest is 'Europe/P"),
        ('cron: "0 2 * * *", ', "", "one: schedules[0]: needs one of cron, interval and rrule, has none"),
        ('cron: "0 2 * * *", timezone: Etc/UTC', "interval: -5", "one: schedules[0].interval: input should be greater"),
        ('cron: "0 2 * * *"', "crom: x", "one: schedules[0].crom: unknown name; the nearest is 'cron'"),
        ("{config: ", "{confg: ", "one: parameters.confg: unknown parameter; the nearest is 'config'"),
        ("n_components", "n_componets", "one: parameters.config.n_componets: unknown name; the nearest is 'n_compon"),
        ("n_components: 3", "n_components: 0", "one: parameters.config.n_components: input should be greater than or"),
        ("n_components: 3", "engine: {kind: sprak}", "one: parameters.config.engine.kind: input should be 'serial'"),
        ("source: rows.npy, ", "", "one: parameters.config.source: is missing"),
        ("flows/pca.py:pca", "flows/pcx.py:pca", "one: entrypoint: flows/pcx.py: no such file in "),
        ("flows/pca.py:pca", "flows/pca.py:pxa", "one: entrypoint: 'flows/pca.py:pxa': "),
        ("flows/pca.py:pca", "flows.pca", "one: entrypoint: 'flows.pca' is not FILE.py:FLOW"),
        ("work_pool: {name: lazypipe}", "tags: [a]", "one: work_pool: is missing"),
        ("work_pool", "concurrency_limit: {limit: 0}\n    work_pool", "one: concurrency_limit.limit: input should be"),
        ("name: test", "nmae: test", "nmae: unknown name; the nearest is 'name'"),
        ("deployments:", "deployment:", "deployments: is no list of deployments"),
        ("[{cron", "[[{cron", "is not YAML at line "),
    ],
)
def test_a_fault_is_told_by_deployment_and_field(check, old, new, said):
    found = check(GOOD.replace(old, new, 1))
    assert any(line.startswith(said) for line in found), found


def test_all_faults_are_told_at_once_and_states_are_not_shared(check):
    assert check(GOOD) == []
    found = check(GOOD.replace("rows.npy", "rows.npy, colour: 1") + OTHER)
    assert len(found) == 1 and "colour" in found[0]  # a config that is refused has no state
    [found] = check(GOOD + OTHER)
    assert found == (
        "two: parameters.config.state: ./states/one is the state folder of one, too. Give each deployment its own."
    )
    found = check(GOOD + OTHER.replace("./states/one", "states/two") + GOOD.partition("deployments:")[2])
    assert found == ["one: name: there are two deployments pca/one. Give one another name."]


@pytest.mark.parametrize("kind", ["nobody", "silent"])
def test_a_server_that_is_away_is_told_within_seconds(kind, tmp_path):
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    (tmp_path / "prefect.yaml").write_text(GOOD)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "silent":
            listener.listen()
        else:
            listener.close()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        begun = time.monotonic()
        command = [sys.executable, "-m", "flows.deploy"]
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    print(f"{time.monotonic() - begun:.1f} s")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"http://127.0.0.1:{port}/api: no Prefect server answers" in done.stderr and "make up" in done.stderr
