"""One real Prefect server, work pool and worker a session, with the deployments of prefect.yaml."""

import subprocess
import sys

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect_server import PREFECT, PrefectServer, link_project
from processes import free_port, process, ready


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """A Prefect server, in a folder with the project's files, and nothing else."""
    project = tmp_path_factory.mktemp("project")
    link_project(project)
    server = PrefectServer(free_port(), project, tmp_path_factory.mktemp("prefect"))
    command = (*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", server.port)
    with server.api, process(*command, cwd=project, env=server.env) as started:
        ready(started, server.answers, 300)
        yield server
        for queue in (APILogWorker, EventsWorker):  # of this process, while somebody takes what is in them
            queue.drain_all(timeout=60)


@pytest.fixture(scope="session")
def server(alone):
    """As a person would start the rest: pool and deployments, then a worker."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"],
        cwd=alone.project,
        env=alone.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with process(*PREFECT, "worker", "start", "--pool", "lazypipe", cwd=alone.project, env=alone.env):
        yield alone


@pytest.fixture
def here(alone, monkeypatch):
    """That server, for flows that are called in this process: their runs by ``last()``."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    for name in ("LAZYPIPE_ALERT_WEBHOOK", "LAZYPIPE_ALERT_COMMAND", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{alone.port}/api"
    with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: alone.home}):
        yield alone


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A tracking store, whose tables take seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def parameters(tiny, store, tmp_path):
    """Parameters of a PCA run of the tiny matrix, whose result goes to the test's folder."""
    return {
        "config": {
            "source": str(tiny[0]),
            "n_components": 3,
            "out": str(tmp_path / "result"),
            "engine": {"kind": "serial"},
            "tracking": {"uri": store},
        }
    }
