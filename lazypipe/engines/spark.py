"""Spark: ``local[*]`` by default, or a master. Ships ranges of a file to Python workers, never rows."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import Broadcast, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from threadpoolctl import threadpool_limits

import lazypipe
from lazypipe.blocks import Run
from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Result, Task
from lazypipe.engines.listening import Tell
from lazypipe.engines.listening_tcp import listening_at
from lazypipe.engines.placed import show_gpus
from lazypipe.engines.spark_gpus import Patience, executors_gpus, gpus_each, is_dynamic, placed
from lazypipe.engines.tasks import fold_run, merge_in_order, settle_worker
from lazypipe.errors import EngineError, LazypipeError
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FAN_IN, FoldPlan, Host
from lazypipe.progress import Progress, Shares, StageDone, StageStarted, TaskDone
from lazypipe.sizes import MIB, parse_bytes
from lazypipe.stats.base import Statistic

CONNECT_SECONDS = 5
EXECUTOR_SECONDS = 30
POLL_SECONDS = 0.1
MIN_JAVA = 17
LOGGING = Path(__file__).with_name("spark_log4j2.properties")
INSTALL_JAVA = "Install Java 17 or 21 (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) and set JAVA_HOME"
SMALL_PARTIALS_NBYTES = 32 * MIB


class SparkEngine:
    """A partition folds neighbouring runs and sums them; the driver merges the few partial states."""

    kind = "spark"

    def __init__(self, address: str | None, memory: int | None, workers: int | None, progress: Progress):
        self.progress = progress
        require_java()
        if address is not None:
            require_master(address)
        self._own = SparkContext._active_spark_context is None
        self.session = self._session(address, workers)
        self.context = self.session.sparkContext
        try:
            self._require_executors()
            self._require_lazypipe()
        except BaseException:
            self._stop()
            raise
        configured = self.context.getConf().get("spark.executor.pyspark.memory")
        if memory is None and configured is not None:
            memory = max(16 * MIB, parse_bytes(configured + "iB") - resident.base_nbytes(1))
        self.slots = self.context.defaultParallelism
        self._limit = threadpool_limits(1)  # the driver's arithmetic rounds as it does under every engine
        self.host = Host(memory or DEFAULT_MEMORY, 1, shared=False, base=resident.base_nbytes(1))

    def _session(self, address: str | None, workers: int | None) -> SparkSession:
        builder = SparkSession.builder.appName("lazypipe")
        submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit has chosen the master
        if address is not None:
            builder = builder.master(address)
        elif not submitted and self._own:
            builder = builder.master(f"local[{workers or '*'}]").config("spark.driver.bindAddress", "127.0.0.1")
            builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.ui.enabled", "false")
        if not submitted:
            builder = builder.config("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile=file:{LOGGING}")
        if workers is not None and address is not None:
            builder = builder.config("spark.cores.max", workers)
        builder = (
            builder.config("spark.ui.showConsoleProgress", "false")
            .config("spark.driver.maxResultSize", "0")  # the plan bounds what comes back
            .config("spark.python.worker.reuse", "true")
        )
        try:
            session = builder.getOrCreate()
        except (Py4JError, PySparkException, RuntimeError, OSError) as error:
            raise EngineError(
                f"spark: no session at {address or 'local[*]'}: {first_line(error)}. Check the master's "
                f"address, and that Java runs (java -version)."
            ) from error
        if not submitted and "PYSPARK_PYTHON" not in os.environ:  # else Spark takes any python3 on the PATH
            session.sparkContext.pythonExec = sys.executable
        return session

    @property
    def _local(self) -> bool:
        return bool(self.context.master.startswith("local"))

    def _require_executors(self) -> None:
        """A master with no free worker keeps a job waiting for ever: say so instead."""
        if self._local:
            return
        if is_dynamic(self.context):
            self.context._jsc.sc().requestExecutors(1)  # which come with work only
        deadline = time.monotonic() + EXECUTOR_SECONDS
        while self.context._jsc.sc().getExecutorMemoryStatus().size() < 2:  # the driver counts as one
            if time.monotonic() > deadline:
                gpus = gpus_each(self.context)
                raise EngineError(
                    f"spark: no executor from {self.context.master} within {EXECUTOR_SECONDS} s. Start a worker"
                    f"{f' that has {show_gpus(gpus)}' if gpus else ''}, or free its cores and memory (see the "
                    f"master's page)."
                )
            time.sleep(POLL_SECONDS)

    def _require_lazypipe(self) -> None:
        names = ["lazypipe:__version__"] * self.context.defaultParallelism
        try:  # a function of the standard library, so that it arrives where lazypipe is missing
            versions = set(self.context.parallelize(names, len(names)).map(pkgutil.resolve_name).collect())
        except (Py4JJavaError, PySparkException) as error:
            raise EngineError(
                f"spark: the workers of {self.context.master} cannot import lazypipe ({last_line(error)}). Install "
                f"lazypipe {lazypipe.__version__} where they run and name that Python: "
                f"--conf spark.pyspark.python=/path/to/python."
            ) from error
        if versions != {lazypipe.__version__}:
            raise EngineError(
                f"spark: the workers have lazypipe {', '.join(sorted(versions))}, the driver "
                f"{lazypipe.__version__}. Install the same version in both."
            )

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        most = max(plan.live_states, SMALL_PARTIALS_NBYTES // max(1, plan.state_nbytes))
        most = min(most, max(8, 4 * self.context.defaultParallelism))
        size = 1  # runs a partition: a power of the fan-in, so that its sum is a subtree of the whole
        while -(-len(plan.runs) // size) > most:
            size *= FAN_IN
        parts = [plan.runs[i : i + size] for i in range(0, len(plan.runs), size)]
        shared = self.context.broadcast((statistic, matrix))
        mapped = plan.mapped

        def fold_part(runs: tuple[Run, ...]) -> Any:
            statistic, matrix = shared.value
            return merge_in_order(statistic, (fold_run(statistic, matrix, run, mapped) for run in runs))

        try:
            return statistic.finish(merge_in_order(statistic, self._collect(fold_part, parts, plan)))
        finally:
            shared.destroy()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        shared = self.context.broadcast(function)
        try:
            yield from self._collect(_Shared(shared), tasks, plan)
        finally:
            shared.destroy()

    def _collect(self, function: Callable[[Any], Any], tasks: Sequence[Any], plan: FoldPlan) -> list[Any]:
        """The results in order, a Spark task each, with progress while they are made."""
        group = f"lazypipe-{id(tasks)}-{time.monotonic_ns()}"
        work = self.context.parallelize(tasks, len(tasks)).map(lambda task: _attempt(function, task))
        patience = None
        if plan.gpus and not self._local:
            work = placed(work, plan.gpus)
            patience = Patience(self.context, plan.gpus)

        self.progress.emit(StageStarted(plan.title, len(tasks), plan.bytes_read))
        begun, shares = time.monotonic(), Shares(plan.runs, len(tasks))

        def collect() -> list[Any]:
            self.context.setJobGroup(group, plan.title, interruptOnCancel=True)
            return work.collect()

        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(collect)
            told = 0
            try:
                while not future.done():
                    time.sleep(POLL_SECONDS)
                    done = min(self._n_done(group), len(tasks))
                    if done > told:
                        share = [shares.add(i) for i in range(told, done)][-1]  # as if they ended in order
                        told = done
                        self.progress.emit(TaskDone(done, len(tasks), share))
                    if patience is not None:
                        patience.check(group)
                results = future.result()
            except (Py4JJavaError, PySparkException) as error:
                raise EngineError(
                    f"spark: {plan.title} failed: {last_line(error)}. If a Python worker ran out of memory, lower "
                    f"the budget (memory=) or give executors more."
                ) from error
            except BaseException:
                self.context.cancelJobGroup(group)
                raise
        for result in results:
            if isinstance(result, LazypipeError):
                raise result
        self.progress.emit(StageDone(plan.title, time.monotonic() - begun))
        return results

    @property
    def gpus(self) -> int | None:
        return None if self._local else executors_gpus(self.context)

    def listen(self) -> AbstractContextManager[Tell]:
        conf = self.context.getConf()  # executors reach the driver there
        host = conf.get("spark.driver.host")
        return listening_at(self.progress, host, conf.get("spark.driver.bindAddress") or host)

    def _n_done(self, group: str) -> int:
        tracker = self.context.statusTracker()
        done = 0
        for job_id in tracker.getJobIdsForGroup(group):
            job = tracker.getJobInfo(job_id)
            for stage_id in job.stageIds if job else ():
                stage = tracker.getStageInfo(stage_id)
                done += stage.numCompletedTasks if stage else 0
        return done

    def describe(self) -> str:
        return f"spark: {self.context.defaultParallelism} cores at {self.context.master}"

    def trace(self) -> dict[str, str]:
        page = self.context.uiWebUrl
        return {"application_id": self.context.applicationId} | ({"dashboard": page} if page else {})

    def peak_memory(self) -> int:
        """Of the driver and of the Python workers that answer; the JVM is Spark's own."""
        n = 2 * self.context.defaultParallelism
        return max(*self.context.parallelize(range(n), n).map(resident.peak_nbytes).collect(), resident.peak_nbytes())

    def reset_peak(self) -> None:
        resident.reset_peak()

    def close(self) -> None:
        self._limit.restore_original_limits()
        self._stop()

    def _stop(self) -> None:
        if self._own:
            self.session.stop()

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shared:
    """A broadcast function, looked up on the worker."""

    def __init__(self, broadcast: Broadcast):
        self.broadcast = broadcast

    def __call__(self, task: Any) -> Any:
        return self.broadcast.value(task)


def _attempt(function: Callable[[Any], Any], task: Any) -> Any:
    """The result, or a user's mistake as a value: Spark would wrap it in pages of Java."""
    settle_worker()
    try:
        return function(task)
    except LazypipeError as error:
        return error


def require_java() -> None:
    """Raise EngineError where there is no Java, or one too old for Spark."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if java is None or not os.path.exists(java):
        where = f"JAVA_HOME={home} has no bin/java" if home else "there is no java on the PATH"
        raise EngineError(f"spark: {where}. {INSTALL_JAVA}, or use the engine dask.")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', answer)
    if version is None or int(version[1]) < MIN_JAVA:
        found = version[1] if version else first_line(answer)
        raise EngineError(f"spark: Java {found} is too old or broken. {INSTALL_JAVA}.")


def require_master(address: str) -> None:
    """Raise EngineError where nobody listens at a ``spark://`` address; Spark itself tries for a minute."""
    if not address.startswith("spark://"):
        return
    for pair in address.removeprefix("spark://").split(","):
        host, _, port = pair.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            return
        except (OSError, ValueError, OverflowError):
            continue
    raise EngineError(
        f"spark: nobody listens at {address}. Start a master there, or leave the address out to work on this machine."
    )


def first_line(error: object) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def last_line(error: Exception) -> str:
    """The line of a Spark error that names the Python exception, else its first."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
    return (named[0] if named else lines[0])[:200]
