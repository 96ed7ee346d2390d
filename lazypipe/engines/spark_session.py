"""A Spark session: of this process, of spark-submit, or of a master; refused in a line where there can be none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lazypipe.engines.knocking import STREAM_OF_SPARK, knock
from lazypipe.engines.memory import budget_within
from lazypipe.engines.placed import show_gpus
from lazypipe.engines.spark_gpus import gpus_each, is_dynamic
from lazypipe.engines.spark_java import hush, said, start_java
from lazypipe.engines.spark_watch import WAIT_SECONDS, waits
from lazypipe.engines.spark_worker import memory_here
from lazypipe.engines.versions import ASK, own_versions, require_same_versions
from lazypipe.errors import EngineError, RefusedError
from lazypipe.progress import WorkerSaid
from lazypipe.sizes import MIB, show_bytes

EXECUTOR_SECONDS = 60  # a busy machine takes half of them to start Java alone
POLL_SECONDS = 0.1
MIN_JAVA = 17
WORKERS_LIMIT = "spark.executor.pyspark.memory"
MASTER = re.compile(r"spark://|k8s://|yarn$|local(-cluster)?(\[|$)")  # how the address of one begins
LOGGING = Path(__file__).with_name("spark_log4j2.properties")
INSTALL_JAVA = "Install Java 17 or 21 (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) and set JAVA_HOME"
ALONE = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
# Of sessions that are started here. What spark-submit or a session that is there was given stays.
FAULTS = {
    "spark.network.timeout": "60s",  # of silence, and an executor is taken for lost; Spark's default: 120 s
    "spark.network.timeoutInterval": "10s",  # how often that is looked at; 60 s
    "spark.executor.heartbeatInterval": "10s",
    "spark.speculation": "true",  # a task that takes too long is begun elsewhere, too: ours may run twice
    "spark.speculation.quantile": "0.5",  # once half of the others are done
    "spark.speculation.multiplier": "5",  # in a fifth of the time
    "spark.speculation.minTaskRuntime": "10s",
}
# Beside the versions: which Python of a host that is, and the folder that it works in, of an executor alone.
ASK_WHO = f'[*{ASK}, __import__("sys").executable, __import__("os").getcwd()]'
MISSING = re.compile(r"ModuleNotFoundError|ImportError|Cannot run program")
PYTHONS = re.compile(r"different version: (\S+) than that in driver:? (\d[\d.]*\d)")


def open_session(address: str | None, workers: int | None, own: bool) -> SparkSession:
    """The session there is, or a new one (``own``) at ``address``, else of this machine.

    Raises RefusedError where there is one at another address, EngineError where none can be started.
    """
    there = SparkContext._active_spark_context
    if there is not None and address is not None and there.master != address:
        raise RefusedError(
            f"spark: this process has a session at {there.master}, and can have no other at {address}. Leave the "
            f"address out to work there, or stop that session first."
        )
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit has chosen the master
    options = {
        "spark.app.name": "lazypipe",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.maxResultSize": "0",  # the plan bounds what comes back
        "spark.python.worker.reuse": "true",
    }
    if address is not None:
        options["spark.master"] = address
        if workers is not None:
            options["spark.cores.max"] = str(workers)
    elif own and not submitted:
        options |= {"spark.master": f"local[{workers or '*'}]", **ALONE}
    if own and not submitted:
        # Before the user's extraJavaOptions, which stay, and may name another configuration.
        options["spark.driver.defaultJavaOptions"] = f"-Dlog4j2.configurationFile=file:{LOGGING}"
        options |= FAULTS
    try:
        if own and not submitted:
            start_java(options)
        session = SparkSession.builder.config(map=options).getOrCreate()
    except (Py4JError, PySparkException, RuntimeError, OSError) as error:
        raise EngineError(
            f"spark: no session at {address or 'local[*]'}: {first_line(error)}. Check the master's "
            f"address, and that Java runs (java -version)."
        ) from error
    hush(session.sparkContext)
    if not submitted and "PYSPARK_PYTHON" not in os.environ:  # else Spark takes any python3 on the PATH
        session.sparkContext.pythonExec = sys.executable
    return session


def is_local(context: SparkContext) -> bool:
    return bool(context.master.startswith("local"))


def require_executors(context: SparkContext, say: Callable[[WorkerSaid], None]) -> None:
    """A master with no free worker keeps a job waiting for ever: say that soon, and EngineError after a while."""
    if is_local(context):
        return
    if is_dynamic(context):
        context._jsc.sc().requestExecutors(1)  # which come with work only
    begun, told = time.monotonic(), False
    while context._jsc.sc().getExecutorMemoryStatus().size() < 2:  # the driver counts as one
        seconds = time.monotonic() - begun
        if seconds > EXECUTOR_SECONDS:
            gpus = gpus_each(context)
            raise EngineError(
                f"spark: no executor from {context.master} within {EXECUTOR_SECONDS} s. Start a worker"
                f"{f' that has {show_gpus(gpus)}' if gpus else ''}, or free its cores and memory (see the "
                f"master's page)."
            )
        if seconds > WAIT_SECONDS and not told:
            told = True
            say(waits(context, "an executor", seconds, EXECUTOR_SECONDS))
        time.sleep(POLL_SECONDS)


def require_same_workers(context: SparkContext) -> None:
    """Raise RefusedError where Python, numpy or lazypipe of a worker are not the driver's."""
    how = "where they run and name that Python: --conf spark.pyspark.python=/path/to/python"
    n = context.defaultParallelism
    try:  # a function of the standard library, so that it arrives where lazypipe is missing
        answers = context.parallelize([ASK_WHO] * n, n).map(eval).collect()
    except (Py4JJavaError, PySparkException) as error:
        if pythons := PYTHONS.search(str(error)):
            raise RefusedError(
                f"spark: the workers of {context.master} have Python {pythons[1]}, the driver {pythons[2]}. Install "
                f"Python {pythons[2]} with lazypipe {own_versions().lazypipe} {how}."
            ) from error
        raise (RefusedError if MISSING.search(str(error)) else EngineError)(
            f"spark: the workers of {context.master} cannot import lazypipe ({said(error)}). Install "
            f"lazypipe {own_versions().lazypipe} {how}."
        ) from error
    require_same_versions("spark", by_worker(answers, context.master), how)


def by_worker(answers: list[list[Any]], master: str) -> dict[str, list[Any]]:
    """Versions by the Python that has them: a host may have several, which find other packages in other folders."""
    found: dict[str, list[Any]] = {}
    for *versions, executable, folder in answers:
        host = f"{versions[-1]} of {master}"
        if found.setdefault(f"{executable} on {host}", versions) != versions:
            found[f"{executable} in {folder} on {host}"] = versions
    return found


def require_java() -> None:
    """Raise RefusedError where there is no Java, or one too old for Spark."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    if java is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "there is no java on the PATH"
        raise RefusedError(f"spark: {where}. {INSTALL_JAVA}, or use the engine dask.")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', answer)  # Java 8 calls itself 1.8
    if version is None or int(version[1]) < MIN_JAVA:
        found = version[1] if version else first_line(answer)
        raise RefusedError(f"spark: Java {found} is too old or broken. {INSTALL_JAVA}.")


def require_master(address: str) -> None:
    """Raise RefusedError for what is no master, EngineError where nobody answers at a ``spark://`` address.

    Spark itself would tell of the one in lines of Java, and try the other for a minute and longer.
    """
    if not MASTER.match(address):
        raise RefusedError(f"spark: {address} is no master. Write it as spark://host:7077, or yarn.")
    if not address.startswith("spark://"):
        return
    does = "listens"
    for pair in address.removeprefix("spark://").split(","):
        host, _, port = pair.rpartition(":")
        try:
            knock(host, int(port), STREAM_OF_SPARK)
            return
        except TimeoutError:
            does = "answers"
        except (OSError, ValueError, OverflowError):
            continue
    raise EngineError(
        f"spark: nobody {does} at {address}. Start a master there, or leave the address out to work on this machine."
    )


def workers_limit(context: SparkContext) -> int | None:
    """Bytes that ``spark.executor.pyspark.memory`` leaves the Python workers of an executor; None: no limit."""
    conf = context._jsc.sc().conf()  # which knows every way that Spark writes sizes
    return int(conf.getSizeAsMb(WORKERS_LIMIT)) * MIB if conf.contains(WORKERS_LIMIT) else None


def checked_limit(context: SparkContext, memory: int | None) -> int | None:
    """``memory``, or what the limit of the Python workers leaves beside their libraries; None where there is neither.

    Raises MemoryPlanError where that is too little. Workers are asked only where a limit is configured.
    """
    whole = workers_limit(context)
    if not whole:  # 0 is none to Spark, too
        return memory
    n = context.defaultParallelism
    found = context.parallelize(range(n), n).map(memory_here).collect()
    limits = [(min(whole, own or whole), base) for own, base in found]
    limit, base = min(limits, key=lambda one: one[0] - one[1])
    told = f"{show_bytes(limit)} ({WORKERS_LIMIT}{'' if limit == whole else ', shared by the cores of an executor'})"
    return budget_within("spark", memory, limit - base, base, told, "raise that limit, or leave it unset")


def first_line(error: object) -> str:
    """The first line of what an error says, 200 characters at most; its kind where it says nothing."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
