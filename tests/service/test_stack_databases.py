"""The stack on PostgreSQL and on SQLite, and PostgreSQL that dies under it."""

import json
import os
import signal

import numpy as np
import psutil
import pytest
from service.stacks import deployments, link_project, stack_in

from flows.stack import postgres
from flows.stack.config import StackConfig
from flows.stack.processes import records

no_postgres = postgres.impossible(StackConfig(folder="/tmp/lazypipe-test"))
needs_postgres = pytest.mark.skipif(bool(no_postgres), reason=f"PostgreSQL cannot run here: {no_postgres}")


@pytest.fixture
def project(tmp_path):
    """A project with one deployment, of pca on demand."""
    folder = tmp_path / "project"
    folder.mkdir()
    pca = {"name": "pca", "entrypoint": "flows/pca.py:pca", "parameters": {"config": {"source": "data/x.npy"}}}
    link_project(folder, deployments(pca))
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A matrix on which the iteration takes many passes."""
    path = tmp_path_factory.mktemp("wide") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(1_000, 3_000)).astype(np.float32))
    return path


def passes(stack):
    """The metrics of the runs so far."""
    return [metric for run in stack.experiment("restarted") for metric in run["data"].get("metrics", [])]


def test_without_postgresql_the_data_are_in_sqlite_with_a_warning(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(postgres, "PLACES", ())
    with stack_in(project) as stack:
        config = StackConfig(folder=str(stack.folder))
        assert postgres.chosen(config) == ("sqlite", "it is not installed")
        with pytest.raises(postgres.ConfigError, match="--database postgres: it is not installed"):
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
        with pytest.raises(postgres.ConfigError, match="holds data in sqlite"):
            postgres.chosen(config.model_copy(update={"database": "postgres"}))


@needs_postgres
def test_a_folder_whose_socket_would_have_too_long_a_name_goes_to_sqlite_and_says_so():
    database = postgres.chosen(StackConfig(folder="/tmp/" + "long/" * 30))
    assert database.kind == "sqlite"
    assert "too long for the path of a socket" in database.why


@needs_postgres
def test_postgresql_killed_under_a_flow_run_costs_neither_the_run_nor_the_servers(project, wide, tmp_path):
    def config(name):
        return {
            "source": str(wide),
            "n_components": 3,
            "solver": "deflation",
            "tol": 1e-5,
            "out": str(tmp_path / name),
            "engine": {"kind": "serial"},
            "tracking": {"uri": stack.mlflow_uri, "experiment": "restarted"},
        }

    with stack_in(project, "--database", "postgres") as stack:
        started = stack.verb("up")
        assert started.returncode == 0, started.stderr + stack.logs()
        socket = stack.folder / "postgres" / "socket"
        assert socket.stat().st_mode & 0o777 == 0o700
        database = records(stack.folder)["postgres"]
        server = psutil.Process(database.pid)
        assert [c for p in [server, *server.children()] for c in p.net_connections("tcp")] == []

        run = stack.submit("pca/pca", {"config": config("disturbed")})
        stack.wait_for(lambda: passes(stack), 120, "the first passes to be seen in MLflow")
        os.kill(database.pid, signal.SIGKILL)
        stack.wait_for(lambda: database.process() is None, 10, "PostgreSQL to end")
        assert stack.verb("status").returncode == 1
        healed = stack.verb("up")
        assert healed.returncode == 0, healed.stderr + stack.logs()
        assert [line.split()[0] for line in healed.stderr.splitlines() if " answers after " in line] == ["postgres"]

        ended = stack.finished(run["id"], 180)
        assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"] + stack.logs()
        quiet = stack.finished(stack.submit("pca/pca", {"config": config("quiet")})["id"], 180)
        assert quiet["state"]["type"] == "COMPLETED", quiet["state"]["message"]
        assert (tmp_path / "disturbed" / "components.npy").read_bytes() == (
            tmp_path / "quiet" / "components.npy"
        ).read_bytes()
        figures = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("disturbed", "quiet")]
        assert figures[0]["explained_variance"] == figures[1]["explained_variance"]
        tracked = stack.experiment("restarted")
        assert [run["info"]["status"] for run in tracked] == ["FINISHED", "FINISHED"]
        assert stack.verb("status").returncode == 0
