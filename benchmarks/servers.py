"""Servers of this machine that a benchmark starts, on loopback and on free ports, and ends."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """Of a child: this one's less any other server, and with the library of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
             "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # fmt: skip
    return kept | quiet | {"PYTHONPATH": str(ROOT)} | more


@contextlib.contextmanager
def serving(command: list[str], log: Path, ready: Callable[[], bool], env: Mapping[str, str]) -> Iterator[int]:
    """The pid of a process group that is up while the block lasts."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=dict(env), start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)}: did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str, holding: str = "") -> bool:
    """Whether ``url`` gives a page, one that holds that text."""
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=2) as page:
            return holding in page.read().decode()
    except OSError:
        return False


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2, memory: str = "3GiB") -> Iterator[str]:
    """The address of a scheduler whose workers, processes of one thread each, are there."""
    port, page = free_port(), free_port()
    address, env = f"tcp://127.0.0.1:{port}", environment()
    here = ["--host", "127.0.0.1"]
    with contextlib.ExitStack() as stack:
        scheduler = [f"{BIN}/dask", "scheduler", *here, "--port", str(port), "--dashboard-address", f"127.0.0.1:{page}"]
        ready = f"http://127.0.0.1:{page}/health"
        stack.enter_context(serving(scheduler, folder / "dask-scheduler.log", lambda: answers(ready), env))
        for i in range(workers):
            log = folder / f"dask-worker-{i}.log"
            worker = [f"{BIN}/dask", "worker", address, *here, "--nthreads", "1", "--memory-limit", memory,
                      "--no-dashboard", "--local-directory", str(folder)]  # fmt: skip
            stack.enter_context(serving(worker, log, lambda log=log: "Registered to" in log.read_text(), env))
        yield address


@contextlib.contextmanager
def spark_cluster(folder: Path, workers: int = 2, memory: str = "3g") -> Iterator[str]:
    """The address of a standalone master whose workers, of one core each, are there."""
    port, page = free_port(), free_port()
    address, env = f"spark://127.0.0.1:{port}", environment(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    place, state = "org.apache.spark.deploy", f"http://127.0.0.1:{page}/json/"
    with contextlib.ExitStack() as stack:
        master = [f"{BIN}/spark-class", f"{place}.master.Master", "--host", "127.0.0.1", "--port", str(port),
                  "--webui-port", str(page)]  # fmt: skip
        stack.enter_context(serving(master, folder / "spark-master.log", lambda: answers(state), env))
        for i in range(workers):
            worker = [f"{BIN}/spark-class", f"{place}.worker.Worker", "--cores", "1", "--memory", memory, "--host",
                      "127.0.0.1", "--webui-port", str(free_port()), "--work-dir", str(folder / f"spark-{i}"),
                      address]  # fmt: skip
            there = f'"aliveworkers" : {i + 1}'
            log = folder / f"spark-worker-{i}.log"
            stack.enter_context(serving(worker, log, lambda there=there: answers(state, there), env))
        yield address


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of whoever uses a Prefect server on SQLite."""
    port = free_port()
    env = environment(PREFECT_HOME=str(folder / "prefect"), PREFECT_API_URL=f"http://127.0.0.1:{port}/api")
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    ready = f"http://127.0.0.1:{port}/api/health"
    with serving(server, folder / "prefect.log", lambda: answers(ready), env):
        yield env


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on SQLite."""
    port = free_port()
    server = [f"{BIN}/mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
              "--backend-store-uri", f"sqlite:///{folder}/served.db",
              "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    with serving(server, folder / "mlflow.log", lambda: answers(f"http://127.0.0.1:{port}/health"), environment()):
        yield f"http://127.0.0.1:{port}"


def has_java() -> bool:
    return shutil.which("java") is not None
