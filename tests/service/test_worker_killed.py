"""A Prefect worker that is killed: its run ends once, right; one whose process went with it is marked crashed."""

import os
import signal
import subprocess
from contextlib import contextmanager, suppress

import numpy as np
import psutil
import pytest
from prefect_server import PREFECT
from service.stacks import processes_of

from flows import _vanished
from jobs.pca import PCAConfig
from jobs.pca import run as run_here

MARK = "LAZYPIPE_TEST_POOL"  # of every process of a pool
ENDLESS = {"tol": 1e-15, "max_passes": 1_000_000, "engine": {"kind": "serial"}}


@pytest.fixture
def slow(tmp_path):
    """Some hundred passes of PCA, on processes of Dask, which take long enough to kill somebody meanwhile."""
    rows = np.random.default_rng(0).normal(size=(400, 60)) * np.linspace(2, 1, 60)
    np.save(tmp_path / "rows.npy", rows)
    return {
        "source": str(tmp_path / "rows.npy"),
        "n_components": 2,
        "solver": "deflation",
        "tol": 1e-8,
        "max_passes": 100_000,
        "out": str(tmp_path / "result"),
    }


@contextmanager
def pool(stack, name):
    """A work pool of its own, and a deployment of pca on it; yields what starts a worker of it."""
    stack.post("/work_pools/", name=name, type="process").raise_for_status()
    stack.copy_of("pca/pca", name=name, work_pool_name=name)
    started = []

    def start(**environment):
        with open(stack.folder / f"{name}-{len(started)}.log", "w") as log:
            started.append(
                subprocess.Popen(
                    [*PREFECT, "worker", "start", "--pool", name, "--type", "process"],
                    cwd=stack.project,
                    env=stack.env | environment | {MARK: name},
                    stdout=subprocess.PIPE,  # which breaks with whoever reads it
                    stderr=log,
                )
            )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == name:
                    process.kill()
        stack.api.delete(f"/work_pools/{name}")


def test_a_run_whose_worker_is_killed_ends_once_and_right(stack, slow, tmp_path):
    with pool(stack, "doomed") as start:
        worker = start()
        engine = {"kind": "dask", "address": stack.dask_address, "memory": "64MiB"}
        run = stack.submit("pca/doomed", {"config": slow | {"engine": engine}})
        stack.at_pass(run, 1)
        worker.kill()
        worker.wait()
        worker.stdout.close()
        assert processes_of(run), "it was over before its worker was killed"
        start()  # which leaves the run alone, as it goes on
        ended = stack.finished(run["id"], 400)
        assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
        assert ended["run_count"] == 1
        tasks = stack.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}).json()
        assert sorted(task["name"].partition("-")[0] for task in tasks) == ["check", "compute", "report"]
        stack.wait_for(lambda: not processes_of(run), 60, "its process to end")
    alone = {"out": str(tmp_path / "alone"), "engine": {"kind": "serial", "memory": "64MiB"}}
    run_here(PCAConfig.model_validate(slow | alone | {"tracking": {"enabled": False}}))
    arrays = sorted(path.name for path in (tmp_path / "alone").glob("*.npy"))
    assert "components.npy" in arrays
    for name in arrays:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "result" / name).read_bytes(), name
    assert [one["info"]["status"] for one in stack.tracked("pca", run)] == ["FINISHED"]


def test_a_run_that_is_cancelled_after_its_worker_was_killed_ends_itself(stack, slow):
    with pool(stack, "orphaned") as start:
        worker = start()
        run = stack.submit("pca/orphaned", {"config": slow | ENDLESS})
        stack.at_pass(run, 1)
        worker.kill()
        worker.wait()
        stack.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING"})
        stack.wait_for(lambda: not processes_of(run), 120, "its process to end")
        assert stack.finished(run["id"], 60)["state"]["type"] in ("CANCELLED", "CRASHED")


def test_a_run_whose_process_vanished_with_its_worker_is_marked_crashed(stack, slow, monkeypatch):
    monkeypatch.setattr(_vanished, "NAME", "runs that vanished, soon")
    monkeypatch.setattr(_vanished, "MISSING", 1.4)
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    _vanished.make_automation(f"http://127.0.0.1:{stack.port}/api")
    try:
        _vanish(stack, slow)
    finally:  # it would take others, whose heartbeats are slower, for gone
        asked = {"name": {"any_": ["runs that vanished, soon"]}}
        for one in stack.post("/automations/filter", automations=asked).json():
            stack.api.delete(f"/automations/{one['id']}")


def _vanish(stack, slow):
    with pool(stack, "gone") as start:
        worker = start(PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30")
        run = stack.submit("pca/gone", {"config": slow | ENDLESS})
        stack.at_pass(run, 1)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        for process in processes_of(run):
            os.kill(process.pid, signal.SIGKILL)
        ended = stack.finished(run["id"], 300)
        assert ended["state"]["type"] == "CRASHED" and "has not been heard of" in ended["state"]["message"]
