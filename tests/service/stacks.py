"""A stack of real servers, started and ended through its command line, and what tests ask of it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from flows.stack.processes import marked

ROOT = Path(__file__).resolve().parents[2]
PREFECT = (sys.executable, "-m", "prefect")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
QUICK = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3", "PREFECT_WORKER_QUERY_SECONDS": "2"}
SMALL = ("--patience", "600", "--mlflow-processes", "1", "--dask.memory", "1GiB", "--spark-workers.memory", "1GiB")


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Stack:
    """A stack in a folder of its own: its verbs, Prefect's and MLflow's interfaces, Prefect's command line."""

    def __init__(self, folder: Path, project: Path, *options: str):
        self.folder = folder
        self.project = project
        names = ("prefect", "mlflow", "dask", "dask-page", "spark", "spark-page")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        chosen = [word for name, port in self.ports.items() for word in (f"--ports.{name}", str(port))]
        self.options = ("--folder", str(folder), "--project", str(project), *chosen, *SMALL, *options)
        self.port = self.ports["prefect"]
        self.home = folder / "prefect"
        self.mlflow_uri = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.dask_address = f"tcp://127.0.0.1:{self.ports['dask']}"
        self.spark_address = f"spark://127.0.0.1:{self.ports['spark']}"
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api", timeout=30, trust_env=False)
        self.base_env = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
        } | {"PYTHONPATH": str(ROOT), "PWD": str(project), **QUICK}
        self.env = self.base_env | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def verb(self, verb: str, *options: str, seconds: float = 700) -> subprocess.CompletedProcess:
        """``python -m flows.stack VERB`` with this stack's options."""
        command = (sys.executable, "-m", "flows.stack", *verb.split(), *self.options, *options)
        return subprocess.run(
            command, check=False, cwd=ROOT, env=self.base_env, capture_output=True, text=True, timeout=seconds
        )

    def popen(self, verb: str, *options: str) -> subprocess.Popen:
        """The same, in the background."""
        command = (sys.executable, "-m", "flows.stack", *verb.split(), *self.options, *options)
        return subprocess.Popen(
            command, cwd=ROOT, env=self.base_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess:
        """Prefect's command line, in the project."""
        return subprocess.run(
            [*PREFECT, *arguments],
            check=False,
            cwd=self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
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

    def submit(self, name: str, parameters: dict) -> dict:
        """A new run of a deployment."""
        answer = self.post(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        return answer.raise_for_status().json()

    def runs(self, deployment: dict, *states: str) -> list[dict]:
        """The runs of a deployment, the earliest first."""
        found = self.post(
            "/flow_runs/filter",
            deployments={"id": {"any_": [deployment["id"]]}},
            flow_runs={"state": {"type": {"any_": list(states)}}} if states else None,
            sort="EXPECTED_START_TIME_ASC",
        )
        return found.raise_for_status().json()

    def finished(self, run_id: str, seconds: float = 240) -> dict:
        """The run once it has ended."""
        return self.wait_for(lambda: self._ended(run_id), seconds, f"run {run_id} to end")

    def said(self, run_id: str) -> str:
        """The log of a flow run."""
        lines = self.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC").json()
        return "\n".join(line["message"] for line in lines)

    def experiment(self, name: str) -> list[dict]:
        """The MLflow runs of an experiment."""
        with httpx.Client(base_url=f"{self.mlflow_uri}/api/2.0/mlflow", timeout=30, trust_env=False) as client:
            found = client.get("/experiments/get-by-name", params={"experiment_name": name})
            if found.status_code == httpx.codes.NOT_FOUND:
                return []
            ids = [found.raise_for_status().json()["experiment"]["experiment_id"]]
            return client.post("/runs/search", json={"experiment_ids": ids}).raise_for_status().json().get("runs", [])

    @staticmethod
    def wait_for(condition, seconds: float, what: str):
        """What ``condition()`` returns once that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"waited {seconds:g} s for {what}")

    def _ended(self, run_id: str) -> dict | None:
        run = self.api.get(f"/flow_runs/{run_id}").raise_for_status().json()
        return run if run["state"]["type"] in ENDED else None

    def logs(self) -> str:
        """The end of what each server said."""
        found = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found)


def link_project(project: Path, prefect_yaml: str | None = None) -> None:
    """The project's files in a folder, with other deployments where they are given."""
    for name in ("flows", "jobs", "lazypipe", "conf"):
        (project / name).symlink_to(ROOT / name)
    if prefect_yaml is None:
        (project / "prefect.yaml").symlink_to(ROOT / "prefect.yaml")
    else:
        (project / "prefect.yaml").write_text(prefect_yaml)


def deployments(*each: dict) -> str:
    """A ``prefect.yaml`` with these deployments."""
    here = {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}
    pool = {"work_pool": {"name": "lazypipe"}}
    return yaml.safe_dump({"name": "lazypipe", "pull": [here], "deployments": [one | pool for one in each]})


@contextmanager
def stack_in(project: Path, *options: str):
    """A stack that is not started yet; ended afterwards, whatever became of it, with no process left."""
    folder = Path(tempfile.mkdtemp(prefix="lazypipe-stack-"))
    folder.chmod(0o711)  # PostgreSQL's user enters it
    stack = Stack(folder, project, *options)
    try:
        yield stack
    finally:
        ended = stack.verb("down")
        left = [process for process in marked(folder) if process.is_running()]
        for process in left:
            process.kill()
        stack.api.close()
        shutil.rmtree(folder, ignore_errors=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert not left, f"left running: {left}"
