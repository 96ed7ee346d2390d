"""A flow run that is cancelled stops: no task is left on the cluster, and nothing half-written."""

import time

import numpy as np
import pytest
from service.clusters import SparkCluster, needs_java

from flows.stack.answering import dask_identity


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
    """The run once it has ended, and the seconds that took."""
    begun = time.monotonic()
    stack.cancel(run)
    return stack.finished(run["id"]), time.monotonic() - begun


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
    stack.at_pass(run, 3)
    workers = set(dask_identity(stack.dask_address)["workers"])
    ended, seconds = cancel(stack, run)
    print(f"cancelled and ended after {seconds:.1f} s")
    assert ended["state"]["type"] == "CANCELLED"
    stack.wait_for(lambda: dask_tasks(stack.dask_address) == [], 60, "the scheduler to forget its tasks")
    assert set(dask_identity(stack.dask_address)["workers"]) == workers
    assert not left_of(tmp_path) and not (tmp_path / "out" / "result").exists()
    [tracked] = stack.tracked("pca", run)
    assert tracked["info"]["status"] == "KILLED"


@needs_java
def test_a_cancelled_run_leaves_no_spark_application(stack, endless, tmp_path):
    with SparkCluster(tmp_path, n_workers=1) as cluster:
        endless["config"]["engine"] = {"kind": "spark", "address": cluster.address, "memory": "64MiB"}
        run = stack.submit("pca/pca", endless)
        stack.at_pass(run, 2)
        assert len(cluster.state()["activeapps"]) == 1
        ended, seconds = cancel(stack, run)
        print(f"cancelled and ended after {seconds:.1f} s")
        assert ended["state"]["type"] == "CANCELLED"
        stack.wait_for(lambda: cluster.state()["activeapps"] == [], 90, "the application to end")
        assert not left_of(tmp_path) and not (tmp_path / "out" / "result").exists()
