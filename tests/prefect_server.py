"""A Prefect server as tests talk to it: its REST interface, its command line, and the folder of a project."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
PREFECT = (sys.executable, "-m", "prefect")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
QUICK = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3", "PREFECT_WORKER_QUERY_SECONDS": "2"}


class PrefectServer:
    """The server at ``port``, started or not; ``env`` leads a process of the project to it, ``base_env`` to none."""

    def __init__(self, port: int, project: Path, home: Path):
        self.port, self.project, self.home = port, project, home
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=120, trust_env=False)
        self.base_env = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
        } | {"PYTHONPATH": str(ROOT), "PWD": str(project), **QUICK}
        self.env = self.base_env | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return self.api.get("/health").is_success
        except httpx.TransportError:
            return False

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

    def submit(self, name: str, parameters: dict, **body) -> dict:
        """A new run of a deployment."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return self.post(path, parameters=parameters, **body).raise_for_status().json()

    def refusal(self, name: str, parameters: dict) -> str:
        """What the server says to parameters of which it makes no run."""
        deployment = self.deployment(name)
        before = [run["id"] for run in self.runs(deployment)]
        answer = self.post(f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)
        assert answer.status_code == httpx.codes.CONFLICT, answer.text
        assert [run["id"] for run in self.runs(deployment)] == before
        return answer.text

    def state(self, run: dict) -> dict:
        """The state that a run is in now."""
        return self.api.get(f"/flow_runs/{run['id']}").raise_for_status().json()["state"]

    def cancel(self, run: dict) -> None:
        """As the button of Prefect's page does."""
        answer = self.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"}, force=False)
        assert answer.raise_for_status().json()["status"] == "ACCEPT", answer.text

    def runs(self, deployment: dict, *states: str) -> list[dict]:
        """The runs of a deployment, the earliest first."""
        found = self.post(
            "/flow_runs/filter",
            deployments={"id": {"any_": [deployment["id"]]}},
            flow_runs={"state": {"type": {"any_": list(states)}}} if states else None,
            sort="EXPECTED_START_TIME_ASC",
        )
        return found.raise_for_status().json()

    def last(self, flow: str) -> dict:
        """The run of a flow that began last; those that are only scheduled have not."""
        ended = {"state": {"type": {"any_": list(ENDED)}}}
        asked = {"flows": {"name": {"any_": [flow]}}, "flow_runs": ended}
        return self.post("/flow_runs/filter", **asked, sort="START_TIME_DESC", limit=1).raise_for_status().json()[0]

    def finished(self, run_id: str, seconds: float = 300) -> dict:
        """The run once it has ended."""

        def ended():
            run = self.api.get(f"/flow_runs/{run_id}").raise_for_status().json()
            return run if run["state"]["type"] in ENDED else None

        return self.wait_for(ended, seconds, f"run {run_id} to end")

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

        return self.wait_for(lines, 60, f"{words} in the log") if words else lines()

    def said(self, run: dict, *words: str) -> str:
        """The same as one text."""
        return "\n".join(line["message"] for line in self.log(run, *words))

    @staticmethod
    def wait_for(condition, seconds: float, what: str):
        """What ``condition()`` returns once that is true; a server that does not answer means that it is not yet."""
        return wait_until(condition, seconds, what, passing=httpx.HTTPError, pause=0.5)


def link_project(project: Path, prefect_yaml: str | None = None) -> None:
    """The project's files in a folder, with other deployments where they are given."""
    for name in ("flows", "jobs", "lazypipe", "conf"):
        (project / name).symlink_to(ROOT / name)
    if prefect_yaml is None:
        (project / "prefect.yaml").symlink_to(ROOT / "prefect.yaml")
    else:
        (project / "prefect.yaml").write_text(prefect_yaml)
