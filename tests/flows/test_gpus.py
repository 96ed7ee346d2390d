"""Networks and the resource GPU, seen from flows: who takes a slot, who is told, who is refused. No GPU is used."""

import json
import sys
import time

import httpx
import numpy as np
import pytest
from processes import Processes, ready, wait_until

import lazypipe as lp
from flows.mlp import mlp
from jobs.mlp import MLPConfig


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Dask scheduler with a worker without a GPU: its address, and what starts one that pretends to have one."""
    folder = tmp_path_factory.mktemp("dask")
    dask = (sys.executable, "-m", "dask")
    address = folder / "scheduler.json"
    with Processes(folder) as processes:

        def start(*words):
            return processes.start(*dask, *words, "--dashboard-address", "127.0.0.1:0")

        def worker(*words):
            start("worker", "--scheduler-file", address, "--nthreads", "1", "--no-nanny", *words)

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", address)
        ready(scheduler, address.exists)
        worker()
        yield json.loads(address.read_text())["address"], worker


def workers_of(address, n, seconds=180):
    """Once so many are there."""
    from distributed import Client

    with Client(address, timeout=30) as client:
        client.wait_for_workers(n, timeout=seconds)


@pytest.fixture
def config(tiny, parameters, tmp_path):
    """A small training, with what is changed."""
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    common = {key: value for key, value in parameters["config"].items() if key != "n_components"}
    common |= {
        "labels": str(tmp_path / "labels.npy"),
        "hold_out": 0.25,
        "hidden": [4],
        "epochs": 2,
        "threads": 1,
        "batch_size": "all",
    }

    def made(address, **changed):
        engine = {"kind": "dask", "address": address, "memory": "256MiB"}
        return MLPConfig.model_validate(common | {"engine": engine, "overwrite": True} | changed)

    return made


def test_without_a_gpu_it_says_so_or_is_refused_and_with_one_takes_its_turn(here, cluster, config):
    address, start_worker = cluster
    workers_of(address, 1)
    result = mlp(config(address))
    run = here.last("mlp")
    said = [line for line in here.log(run, "no worker with a GPU: training on the CPU") if line["level"] == 30]
    assert [line["message"] for line in said] == ["no worker with a GPU: training on the CPU"]
    assert "no worker with a GPU: training on the CPU" in result.figures["plan"]["notes"]

    begun = time.monotonic()
    with pytest.raises(lp.EngineError, match="cuda needs a GPU, and no worker offers one.*--resources GPU=1"):
        mlp(config(address, device="cuda"))
    seconds = time.monotonic() - begun
    tasks = here.post("/task_runs/filter", flow_runs={"id": {"any_": [here.last("mlp")["id"]]}}).json()
    assert {task["name"].partition("-")[0] for task in tasks} == {"check"} and seconds < 30

    start_worker("--resources", "GPU=1")
    workers_of(address, 2)
    limits = f"http://127.0.0.1:{here.port}/api/v2/concurrency_limits"
    # A deploy has made it; SQLite may be locked at the first try.
    wait_until(lambda: httpx.delete(f"{limits}/gpu").status_code in (204, 404), 60, "the limit to be gone")
    begun = time.monotonic()
    mlp(config(address))
    print(f"without a slot: {time.monotonic() - begun:.1f} s")
    here.log(here.last("mlp"), "GPU: there is no concurrency limit 'gpu'", "prefect gcl create gpu --limit 1")
    httpx.post(f"{limits}/", json={"name": "gpu", "limit": 1, "active": True}).raise_for_status()
    try:
        begun = time.monotonic()
        mlp(config(address))
        print(f"with a slot of the limit gpu: {time.monotonic() - begun:.1f} s")
        here.log(here.last("mlp"), "GPU: waiting for a slot", "GPU: its turn has come")
        assert httpx.get(f"{limits}/gpu").json()["active_slots"] == 0
    finally:
        httpx.delete(f"{limits}/gpu")
