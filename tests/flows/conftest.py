"""One real Prefect server, work pool and worker a session, with the deployments of prefect.yaml."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFECT = (sys.executable, "-m", "prefect")


class Server:
    """A running server: its REST interface, and its command line in the ``project`` folder."""

    def __init__(self, project: Path, home: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.project = project
        self.home = home
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api", timeout=30, trust_env=False)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PYTHONPATH": str(ROOT),
            "PWD": str(project),
        }
        self.processes: list[subprocess.Popen] = []

    def end(self) -> None:
        """All that was started here, the last first."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.api.close()

    def last(self, flow: str) -> dict:
        """The run of a flow that began last; those that are only scheduled have not."""
        ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
        asked = {"flows": {"name": {"any_": [flow]}}, "flow_runs": ended}
        return self.post("/flow_runs/filter", **asked, sort="START_TIME_DESC", limit=1).raise_for_status().json()[0]

    def artifacts(self, run: dict) -> dict[str, dict]:
        """Of a run, by key; the latest of each."""
        asked = {"flow_run_id": {"any_": [run["id"]]}}
        found = self.post("/artifacts/filter", artifacts=asked, sort="CREATED_DESC").raise_for_status().json()
        return {artifact["key"]: artifact for artifact in reversed(found)}

    def log(self, run: dict, *words: str) -> list[dict]:
        """The lines of a run's log, once ``words`` are all in it: they come a little later than the run ends."""

        def lines():
            asked = {"flow_run_id": {"any_": [run["id"]]}}
            found = self.post("/logs/filter", logs=asked, sort="TIMESTAMP_ASC", limit=200).raise_for_status().json()
            said = "\n".join(line["message"] for line in found)
            return found if all(word in said for word in words) else None

        return self.wait_for(lines, 20, f"{words} in the log")

    def start(self, *arguments: str) -> None:
        with open(self.home / f"{arguments[0]}.log", "w") as log:
            self.processes.append(
                subprocess.Popen([*PREFECT, *arguments], cwd=self.project, env=self.env, stdout=log, stderr=log)
            )

    def call(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*PREFECT, *arguments],
            check=False,
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def post(self, path: str, **body) -> httpx.Response:
        """POST as Prefect's own client does: 503 is SQLite asking to come again while it is locked."""
        for _ in range(10):
            answer = self.api.post(path, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        return answer

    def deployment(self, name: str) -> dict:
        """A deployment by ``flow/name``."""
        return self.api.get(f"/deployments/name/{name}").raise_for_status().json()

    def runs(self, deployment: dict, *states: str) -> list[dict]:
        """The runs of a deployment, the earliest first."""
        found = self.post(
            "/flow_runs/filter",
            deployments={"id": {"any_": [deployment["id"]]}},
            flow_runs={"state": {"type": {"any_": list(states)}}} if states else None,
            sort="EXPECTED_START_TIME_ASC",
        )
        return found.raise_for_status().json()

    def finished(self, run_id: str, seconds: float = 90) -> dict:
        """The run once it has ended."""
        return self.wait_for(lambda: self._ended(run_id), seconds, f"run {run_id} to end")

    @staticmethod
    def wait_for(condition, seconds: float, what: str):
        """What ``condition()`` returns once that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"waited {seconds:g} s for {what}")

    def _ended(self, run_id: str) -> dict | None:
        run = self.api.get(f"/flow_runs/{run_id}").json()
        return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A matrix of 60 x 8, and its file."""
    rows = (np.random.default_rng(0).normal(size=(60, 8)) * np.arange(8, 0, -1)).astype(np.float32)
    path = tmp_path_factory.mktemp("tiny") / "rows.npy"
    np.save(path, rows)
    return path, rows


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """A Prefect server, in a folder with the project's files, and nothing else."""
    project = tmp_path_factory.mktemp("project")
    for name in ("flows", "jobs", "lazypipe", "conf", "prefect.yaml"):
        (project / name).symlink_to(ROOT / name)
    server = Server(project, tmp_path_factory.mktemp("prefect"))
    try:
        server.start("server", "start", "--host", "127.0.0.1", "--port", str(server.port))
        server.wait_for(lambda: server.api.get("/health").json(), 240, "the server")
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def server(alone):
    """As a person would start the rest: pool and deployments, then a worker."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"],
        cwd=alone.project,
        env=alone.env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    alone.start("worker", "start", "--pool", "lazypipe")
    return alone


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
