"""A flow run that is cancelled stops: no task is left on the cluster, and nothing half-written."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from service.stacks import free_ports

from flows.stack.answering import dask_identity

BIN = Path(sys.executable).parent


@pytest.fixture
def endless(tmp_path):
    """A PCA by deflation that would take hours, in thousands of short passes."""
    rows = np.random.default_rng(0).normal(size=(400, 60)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    return {
        "config": {
            "source": str(tmp_path / "rows.npy"),
            "n_components": 8,
            "solver": "deflation",
            "tol": 1e-15,
            "max_passes": 1_000_000,
            "out": str(tmp_path / "out" / "result"),
            "state": str(tmp_path / "state"),
        }
    }


def cancel(stack, run):
    """As the button of Prefect's page does; the run once it has ended, and the seconds that took."""
    begun = time.monotonic()
    answer = stack.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"}, force=False)
    assert answer.raise_for_status().json()["status"] == "ACCEPT"
    return stack.finished(run["id"], 300), time.monotonic() - begun


def under_way(stack, run, passes=3):
    """Once its progress tells of that many passes."""

    def found():
        asked = {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["pca-progress"]}}
        progress = stack.post("/artifacts/filter", artifacts=asked).raise_for_status().json()
        words = progress[0]["description"].split() if progress else []
        return words[:1] == ["pass"] and int(words[1].rstrip(",")) >= passes

    stack.wait_for(found, 300, f"pass {passes} of the run")


def dask_tasks(address):
    """What tasks the scheduler knows, each with its state and who waits for it."""
    from distributed import Client

    with Client(address, timeout=60) as client:
        return client.run_on_scheduler(
            lambda dask_scheduler: [(name, task.state) for name, task in dask_scheduler.tasks.items()]
        )


def left_of(folder):
    """What lies beside a result that was never finished."""
    return [path.name for path in folder.rglob("*") if "partial" in path.name] if folder.exists() else []


def test_a_cancelled_run_leaves_no_task_on_the_dask_scheduler(stack, endless, tmp_path):
    endless["config"]["engine"] = {"kind": "dask", "address": stack.dask_address, "memory": "64MiB"}
    run = stack.submit("pca/pca", endless)
    under_way(stack, run)
    workers = set(dask_identity(stack.dask_address)["workers"])
    ended, seconds = cancel(stack, run)
    print(f"cancelled and ended after {seconds:.1f} s")
    assert ended["state"]["type"] == "CANCELLED"
    deadline = time.monotonic() + 60
    while tasks := dask_tasks(stack.dask_address):
        assert time.monotonic() < deadline, tasks
        time.sleep(1)
    assert set(dask_identity(stack.dask_address)["workers"]) == workers
    assert not left_of(tmp_path) and not (tmp_path / "out" / "result").exists()
    [tracked] = [one for one in stack.experiment("pca") if one["info"]["run_id"] in mlflow_run(stack, run)]
    assert tracked["info"]["status"] in ("KILLED", "FAILED")


def mlflow_run(stack, run):
    """Ids of the MLflow runs of a flow run."""
    runs = stack.experiment("pca")
    tags = {one["info"]["run_id"]: {tag["key"]: tag["value"] for tag in one["data"]["tags"]} for one in runs}
    return [name for name, found in tags.items() if found.get("prefect.flow_run_id") == run["id"]]


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17 or 21")
def test_a_cancelled_run_leaves_no_spark_application(stack, endless, tmp_path):
    port, page = free_ports(2)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # where Spark's scripts look for python3
    environment = stack.env | {"SPARK_LOCAL_IP": "127.0.0.1", "PATH": path}
    master = f"spark://127.0.0.1:{port}"
    log = open(tmp_path / "spark.log", "w")  # noqa: SIM115
    started = []

    def start(*words):
        started.append(
            subprocess.Popen([BIN / "spark-class", *words], cwd=tmp_path, env=environment, stdout=log, stderr=log)
        )

    def applications(kind):
        return httpx.get(f"http://127.0.0.1:{page}/json/", timeout=5).raise_for_status().json()[kind]

    try:
        start(
            *("org.apache.spark.deploy.master.Master", "--host", "127.0.0.1"),
            *("--port", str(port), "--webui-port", str(page)),
        )
        stack.wait_for(lambda: applications("status") == "ALIVE", 240, "the Spark master")
        start(*("org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "-c", "1", "-m", "2g"), master)
        stack.wait_for(lambda: len(applications("workers")) == 1, 240, "the Spark worker")
        endless["config"]["engine"] = {"kind": "spark", "address": master, "memory": "64MiB"}
        run = stack.submit("pca/pca", endless)
        under_way(stack, run, 2)
        assert len(applications("activeapps")) == 1
        ended, seconds = cancel(stack, run)
        print(f"cancelled and ended after {seconds:.1f} s")
        assert ended["state"]["type"] == "CANCELLED"
        stack.wait_for(lambda: not applications("activeapps"), 90, "the application to end")
        assert not left_of(tmp_path) and not (tmp_path / "out" / "result").exists()
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(60)
        log.close()
