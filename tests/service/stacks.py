"""A stack of real servers, started and ended through its command line, and what tests ask of it."""

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import yaml
from prefect_server import ROOT, PrefectServer
from processes import free_ports

from flows.stack.processes import marked

COPIED = ("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name", "enforce_parameter_schema", "parameters")
SMALL = ("--patience", "600", "--mlflow-processes", "1", "--dask.memory", "1GiB", "--spark-workers.memory", "1GiB")


class Stack(PrefectServer):
    """A stack in a folder of its own: its verbs, and the interfaces of its servers."""

    def __init__(self, folder: Path, project: Path, *options: str):
        names = ("prefect", "mlflow", "dask", "dask-page", "spark", "spark-page")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        super().__init__(self.ports["prefect"], project, folder / "prefect")
        self.folder = folder
        chosen = [word for name, port in self.ports.items() for word in (f"--ports.{name}", str(port))]
        self.options = ("--folder", str(folder), "--project", str(project), *chosen, *SMALL, *options)
        self.mlflow_uri = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.dask_address = f"tcp://127.0.0.1:{self.ports['dask']}"
        self.spark_address = f"spark://127.0.0.1:{self.ports['spark']}"
        self.env["MLFLOW_TRACKING_URI"] = self.mlflow_uri

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

    def experiment(self, name: str) -> list[dict]:
        """The MLflow runs of an experiment."""
        with httpx.Client(base_url=f"{self.mlflow_uri}/api/2.0/mlflow", timeout=30, trust_env=False) as client:
            found = client.get("/experiments/get-by-name", params={"experiment_name": name})
            if found.status_code == httpx.codes.NOT_FOUND:
                return []
            ids = [found.raise_for_status().json()["experiment"]["experiment_id"]]
            return client.post("/runs/search", json={"experiment_ids": ids}).raise_for_status().json().get("runs", [])

    def tracked(self, name: str, flow_run: dict) -> list[dict]:
        """The MLflow runs of a flow run in an experiment."""
        return [run for run in self.experiment(name) if tags_of(run).get("prefect.flow_run_id") == flow_run["id"]]

    def copy_of(self, of: str, **changed) -> dict:
        """A new deployment, like that called ``of`` but for what is changed."""
        model = self.deployment(of)
        body = {key: model[key] for key in COPIED if model.get(key) is not None} | changed
        return self.post("/deployments/", **body).raise_for_status().json()

    def at_pass(self, flow_run: dict, index: int) -> None:
        """Wait until the progress of a run of pca tells of that pass."""

        def there():
            words = self.artifacts(flow_run).get("pca-progress", {"description": ""})["description"].split()
            return words[:1] == ["pass"] and int(words[1].rstrip(",")) >= index

        self.wait_for(there, 300, f"pass {index} of the run")

    def logs(self) -> str:
        """The end of what each server said."""
        found = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found)


def tags_of(run: dict) -> dict[str, str]:
    """The tags of an MLflow run."""
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


def processes_of(flow_run: dict) -> list[psutil.Process]:
    """The processes of a flow run, by their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run["id"]:
                found.append(process)
    return found


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
        try:
            ended = stack.verb("down")
        finally:
            left = [process for process in marked(folder) if process.is_running()]
            for process in left:
                process.kill()
            stack.api.close()
            shutil.rmtree(folder, ignore_errors=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert not left, f"left running: {left}"
