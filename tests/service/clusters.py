"""Clusters as their users start them, with conf/dask.yaml; parts of them are stopped, killed and cut off by tests."""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from processes import Processes, free_port, free_ports, wait_until

import lazypipe as lp
from lazypipe.blocks import Run
from lazypipe.plan import FoldPlan
from lazypipe.progress import Progress, TaskDone, WorkerSaid
from lazypipe.stats import Moments

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
N_ROWS, STEP = 3_200, 100  # 32 runs, eight tasks of Spark
needs_java = pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java 17 or 21"
)


@dataclass(frozen=True)
class SlowMoments(Moments):
    """Mean and variance, that take their time; ``grab`` bytes are asked for at the block that begins at ``at``."""

    seconds: float = 0.1
    grab: int = 0
    at: int = -1

    def measure(self, block):
        time.sleep(self.seconds)
        if block.rows.start == self.at:
            np.ones(self.grab // 8).sum()
        return super().measure(block)


def say(task):
    """A task that logs."""
    logging.getLogger("lazypipe.io").info("read %s", task)
    logging.getLogger("lazypipe.io").debug("not told")
    logging.getLogger("distributed.worker").info("not told")
    logging.getLogger("distributed.worker").warning("slow %s", task)
    return task


def die(task):
    """The third task ends its process."""
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def plan_of(n_rows=N_ROWS, step=STEP, title="pass 1"):
    runs = tuple(Run(i, start, start + step, step) for i, start in enumerate(range(0, n_rows, step)))
    return FoldPlan(title, "rows", step, runs, 0, 2**13, len(runs), 2**20, 0, 1, 0, shared=False)


def environment(**more):
    """Of a server: the configuration that the project recommends, and what tests ship."""
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    known = {"DASK_CONFIG": str(ROOT / "conf" / "dask.yaml"), "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **known, **more}


class DaskCluster(Processes):
    """A scheduler, and workers by name."""

    def __init__(self, folder, host="127.0.0.1", prefix=(), **env):
        super().__init__(folder)
        self.port = free_port()
        self.address = f"tcp://{host}:{self.port}"
        self.env = environment(**env)
        command = (BIN / "dask", "scheduler", "--host", host, "--port", self.port, "--no-dashboard")
        self.scheduler = self.start(*prefix, *command)

    def worker(self, name, *options, prefix=(), **env):
        command = (BIN / "dask", "worker", self.address, "--nthreads", 1, "--name", name, "--no-dashboard", *options)
        return self.start(*prefix, *command, env={**self.env, **env})

    def engine(self, n_workers, *listeners, memory="64MiB"):
        """Once so many workers are there."""
        progress = Progress(listeners)

        def engine():
            try:
                found = lp.open_engine("dask", address=self.address, memory=memory, progress=progress)
            except lp.EngineError as error:
                assert "no scheduler" in str(error) or "no workers" in str(error), error
                return None
            if len(found.client.scheduler_info(n_workers=-1)["workers"]) == n_workers:
                return found
            return found.close()

        return wait_until(engine, 120, f"{n_workers} workers", pause=0.3)

    def left(self, engine):
        """Tasks that the scheduler still knows, less those of the client that asks."""
        return engine.client.run_on_scheduler(_n_tasks)


def _n_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


class Heard:
    """What an engine tells; ``then`` is done at the n-th task."""

    def __init__(self, n=None, then=None):
        self.said, self.n_done, self.n, self.then = [], 0, n, then
        self.at = None  # when that was

    def __call__(self, event):
        if isinstance(event, WorkerSaid):
            self.said.append(event)
        elif isinstance(event, TaskDone):
            self.n_done += 1
            if self.n_done == self.n:
                self.at = time.monotonic()
                self.then()

    def texts(self, worker=None):
        return [event.text for event in self.said if worker in (None, event.worker)]


def rows_in(folder):
    """A matrix, and its moments by the serial engine."""
    path = folder / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(3, 1, (N_ROWS, 64)))
    matrix = lp.open_matrix(str(path))
    with lp.open_engine("serial") as engine:
        return matrix, engine.fold(SlowMoments(seconds=0.0), matrix, plan_of())


def assert_same_bits(found, wanted):
    assert found.weight == N_ROWS  # no row left out, none counted twice
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(found.variance, wanted.variance)


def keep(path, found):
    """The moments that a driver found, in a file, for ``kept``."""
    np.savez(path, weight=found.weight, mean=found.mean, variance=found.variance)


def kept(path):
    """The moments in such a file."""
    with np.load(path) as found:
        return SimpleNamespace(**found)


def tell(name, **what):
    """A line of a driver, for ``told``."""
    print(name, json.dumps(what), flush=True)


def told(driver, name, seconds=300):
    """What a driver tells by a name, once it does."""

    def line():
        ended = driver.poll() is not None  # asked first: what it told at its end is in the log then
        text = driver.log.read_text()
        found = next((one for one in text.splitlines() if one.startswith(f"{name} {{")), "")
        assert found or not ended, text
        return found

    return json.loads(wait_until(line, seconds, name).partition(" ")[2])


def result_of(folder):
    return json.loads((Path(folder) / "result.json").read_text())


class SparkCluster(Processes):
    """A standalone master and its workers, of one core each, with what an activated environment gives Spark."""

    def __init__(self, folder, n_workers=2):
        super().__init__(folder)
        self.env = environment(SPARK_LOCAL_IP="127.0.0.1", PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
        port, self.page = free_ports(2)
        self.address = f"spark://127.0.0.1:{port}"
        try:
            self._serve("Master", "--host", "127.0.0.1", "--port", port, "--webui-port", self.page)
            wait_until(self.state, 120, "the master")
            for i in range(n_workers):
                self.start_worker(i)
            self.wait_for_workers(n_workers)
        except BaseException:
            self.__exit__()
            raise

    def _serve(self, kind, *options, env=None):
        return self.start(BIN / "spark-class", f"org.apache.spark.deploy.{kind.lower()}.{kind}", *options, env=env)

    def start_worker(self, number, host="127.0.0.1"):
        """A worker on an address of this machine, in a folder of its own."""
        folder = self.folder / f"worker{number}"
        folder.mkdir()
        options = ("--host", host, "-c", 1, "-m", "1g", "-d", folder)
        return self._serve("Worker", *options, self.address, env=self.env | {"SPARK_LOCAL_IP": host})

    def wait_for_workers(self, n):
        wait_until(lambda: len((self.state() or {}).get("workers", ())) == n, 120, f"{n} workers")

    def state(self):
        """What the master says of itself."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/json/", timeout=5) as page:
                return json.load(page)
        except (OSError, ValueError):
            return None

    def executors(self):
        """Processes of executors of this cluster."""
        return executors_in(self.folder)


def executors_in(folder):
    """Processes of executors of the workers that work in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "--executor-id" in (process.info["cmdline"] or []) and process.cwd().startswith(f"{folder}/"):
                found.append(process)
    return found


def python_worker_of(executors):
    """The pid of a Python worker, one that a daemon of Python has forked below these processes."""
    children = [child for one in executors for child in one.children(recursive=True) if child.status() != "zombie"]
    daemons = [child.pid for child in children if "pyspark.daemon" in " ".join(child.cmdline())]
    return next(child.pid for child in children if child.ppid() in daemons)
