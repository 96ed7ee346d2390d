"""The stack on PostgreSQL and on SQLite, and PostgreSQL that dies under it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from service.stacks import stack_in

from flows.stack import postgres
from flows.stack.config import StackConfig
from flows.stack.processes import records
from lazypipe.errors import ConfigError

no_postgres = postgres.impossible(StackConfig(folder="/tmp/lazypipe-test"))
needs_postgres = pytest.mark.skipif(bool(no_postgres), reason=f"PostgreSQL cannot run here: {no_postgres}")


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """A matrix on which an iteration takes many passes."""
    path = tmp_path_factory.mktemp("tall") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(1_000, 3_000)).astype(np.float32))
    return path


def passes(stack):
    """The metrics of the runs so far."""
    return [metric for run in stack.experiment("restarted") for metric in run["data"].get("metrics", [])]


def test_without_postgresql_the_data_are_in_sqlite_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(postgres, "PLACES", ())
    config = StackConfig(folder=str(tmp_path))
    assert postgres.chosen(config) == ("sqlite", "it is not installed")
    with pytest.raises(ConfigError, match="--database postgres: it is not installed"):
        postgres.chosen(config.model_copy(update={"database": "postgres"}))


def test_sqlite_on_request_answers_and_is_found_again(project):
    with stack_in(project, "--database", "sqlite") as stack:
        started = stack.verb("start prefect")
        assert started.returncode == 0, started.stderr
        assert "Warning" not in started.stderr
        assert (stack.home / "prefect.db").exists()
        assert "postgres" not in stack.verb("status").stdout
        assert stack.verb("down").returncode == 0
        config = StackConfig(folder=str(stack.folder))
        assert postgres.chosen(config).kind == "sqlite"
        with pytest.raises(ConfigError, match="holds data in sqlite"):
            postgres.chosen(config.model_copy(update={"database": "postgres"}))


@needs_postgres
def test_a_folder_whose_socket_would_have_too_long_a_name_goes_to_sqlite_and_says_so():
    database = postgres.chosen(StackConfig(folder="/tmp/" + "long/" * 30))
    assert database.kind == "sqlite"
    assert "too long for the path of a socket" in database.why


@needs_postgres
def test_postgresql_listens_on_no_port_and_only_its_owner_enters_its_socket(stack):
    assert (stack.folder / "postgres" / "socket").stat().st_mode & 0o777 == 0o700
    server = psutil.Process(records(stack.folder)["postgres"].pid)
    assert [connection for one in [server, *server.children()] for connection in one.net_connections("inet")] == []


@needs_postgres
def test_postgresql_killed_under_a_flow_run_costs_neither_the_run_nor_the_servers(stack, tall, tmp_path):
    def config(name):
        return {
            "source": str(tall),
            "n_components": 3,
            "solver": "deflation",
            "tol": 1e-5,
            "out": str(tmp_path / name),
            "engine": {"kind": "serial"},
            "tracking": {"experiment": "restarted"},
        }

    run = stack.submit("pca/pca", {"config": config("disturbed")})
    stack.wait_for(lambda: passes(stack), 400, "the first passes to be seen in MLflow")
    database = records(stack.folder)["postgres"]
    os.kill(database.pid, signal.SIGKILL)
    stack.wait_for(lambda: database.process() is None, 10, "PostgreSQL to end")
    assert stack.verb("status").returncode == 1
    begin = time.monotonic()
    healed = stack.verb("up")
    assert healed.returncode == 0, healed.stderr + stack.logs()
    assert [line.split()[0] for line in healed.stderr.splitlines() if " answers after " in line] == ["postgres"]
    print(f"\nPostgreSQL killed: all answer again {time.monotonic() - begin:.1f} s after `up` was called")

    ended = stack.finished(run["id"], 600)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"] + stack.logs()
    quiet = tmp_path / "quiet"
    options = [word for name, value in config("quiet").items() if name != "engine" for word in words(name, value)]
    command = (sys.executable, "-m", "jobs", "pca", *options, "--engine.kind", "serial")
    subprocess.run(command, check=True, cwd=tmp_path, env=stack.env, capture_output=True, timeout=300)
    disturbed = tmp_path / "disturbed"
    assert (disturbed / "components.npy").read_bytes() == (quiet / "components.npy").read_bytes()
    figures = [json.loads((folder / "result.json").read_text()) for folder in (disturbed, quiet)]
    assert figures[0]["explained_variance"] == figures[1]["explained_variance"]
    tracked = stack.experiment("restarted")
    assert [one["info"]["status"] for one in tracked] == ["FINISHED", "FINISHED"]
    assert stack.verb("status").returncode == 0


def words(name, value):
    """A field of a config as options."""
    if isinstance(value, dict):
        return [word for inner, one in value.items() for word in words(f"{name}.{inner}", one)]
    return [f"--{name.replace('_', '-')}", str(value)]
