"""Real clusters, started as their users start them, on ports of this machine."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import free_port, free_ports, listens, process, ready

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def dask_scheduler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    port = free_port()
    command = (BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", "127.0.0.1:0")
    with process(*command, cwd=folder) as scheduler:
        ready(scheduler, lambda: listens(port))
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture
def dask_worker(dask_scheduler, tmp_path):
    """Start a worker: call with options, get a context manager that yields its process once the scheduler has it."""

    @contextlib.contextmanager
    def start(*options, python=BIN / "python"):
        command = (python, "-m", "dask", "worker", dask_scheduler, "--dashboard-address", "127.0.0.1:0", *options)
        with process(*command, cwd=tmp_path) as worker:
            ready(worker, lambda: "Registered to:" in worker.log.read_text())
            yield worker

    return start


def spark_environment() -> dict[str, str]:
    """What an activated virtual environment gives Spark's scripts: they look for python3 on the PATH."""
    return {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def spark_master(tmp_path_factory):
    """A standalone master with one worker of one core, which says that it has a GPU called 3."""
    folder = tmp_path_factory.mktemp("spark")
    script, options = folder / "gpus.sh", folder / "worker.conf"
    script.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["3"]}'\n""")
    script.chmod(0o755)
    gpu = "spark.worker.resource.gpu"
    options.write_text(f"{gpu}.amount 1\n{gpu}.discoveryScript {script}\n")
    port, page = free_ports(2)
    spark_class = BIN / "spark-class"
    env = spark_environment()
    master = f"spark://127.0.0.1:{port}"
    name = "org.apache.spark.deploy"
    serve = (spark_class, f"{name}.master.Master", "--host", "127.0.0.1", "--port", port, "--webui-port", page)
    size = ("-c", "1", "-m", "1g", "-d", folder, "--properties-file", options)
    work = (spark_class, f"{name}.worker.Worker", *size, master)
    with process(*serve, cwd=folder, env=env) as served:
        ready(served, lambda: listens(port))
        with process(*work, cwd=folder, env=env):
            yield master


@pytest.fixture
def spark_env():
    return spark_environment()


@pytest.fixture
def matrix_file(tmp_path):
    x = np.random.default_rng(0).normal(2, 1, (150, 8_000)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"
