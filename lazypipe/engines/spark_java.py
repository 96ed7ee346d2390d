"""The Java that drives a Spark session: where it dies in the middle, that is told in a line, and another can start."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from lazypipe.errors import EngineError

END_SECONDS = 5.0  # until a process that answers no more has an exit status
GONE = (OSError, EOFError)  # what reading from a Java that has died raises
LOST = (Py4JError, PySparkException, *GONE)  # and calling into it
PY4J = ("java_gateway", "clientserver")  # its modules
# Lines that Java and Spark write at every start, whatever their logging is told.
NO_NEWS = (b"WARNING: Using incubator modules", b"Setting default log level to", b"To adjust logging level use")
STDERR = 2
RAISED = re.compile(r"[\w.]*(Error|Exception)\b: ")  # how a line begins that names an exception
CODED = re.compile(r"\[[A-Z][A-Z0-9_.]+\] *([^\n]+)")  # what Spark says behind the name of a condition


def start_java(options: Mapping[str, str]) -> None:
    """Start the Java of a session with those options, where this process has none.

    What it and Python workers on this machine write to stderr goes to that of this process, but for ``NO_NEWS``.
    """
    if SparkContext._gateway is not None:
        return
    said, into = os.pipe()
    threading.Thread(target=_pass_on, args=(said,), name="lazypipe-java", daemon=True).start()
    try:
        gateway = launch_gateway(SparkConf().setAll(list(options.items())), {"stderr": into})
    finally:
        os.close(into)
    SparkContext._ensure_initialized(gateway=gateway)


def _pass_on(said: int) -> None:
    """Write the lines of the pipe ``said`` to stderr as they come, until its end."""
    rest = b""
    while chunk := os.read(said, 2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        with suppress(OSError):  # nobody reads what this process writes there; Java must be read all the same
            os.write(STDERR, b"".join(line + b"\n" for line in lines if not line.startswith(NO_NEWS)))
    with suppress(OSError):
        os.write(STDERR, rest)
    os.close(said)


@contextmanager
def java_told(context: SparkContext, where: str) -> Iterator[None]:
    """Raise EngineError where the block fails because Java has died; other errors pass as they are."""
    try:
        yield
    except LOST as error:
        if not is_gone():
            raise
        raise EngineError(
            f"spark: Java, which drives the session at {context.master}, died at {where}{_how()}. Most likely it or "
            f"this machine was out of memory: free some, or give Java more (spark.driver.memory in spark-defaults.conf "
            f"of $SPARK_CONF_DIR). Then start again; with a state, the same command goes on from where it was."
        ) from error


def is_gone() -> bool:
    """Whether the Java of this process has died."""
    gateway = SparkContext._gateway
    if gateway is None:
        return False
    process = getattr(gateway, "proc", None)  # None where spark-submit has started Python, not the other way round
    if process is not None and process.poll() is not None:
        return True
    try:
        gateway.jvm.System.nanoTime()
    except (Py4JError, OSError):
        return True
    return False


def said(error: BaseException) -> str:
    """What Spark, or the Python in one of its tasks, says in one line, without its codes.

    Of exceptions that Python raised one after another, that is the last.
    """
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line)]
    coded = CODED.search(text)
    if coded and not (raised and "Traceback (most recent call last)" in text):
        line = coded[1]
    else:
        line = [type(error).__name__, *lines[:1], *raised][-1]
    return line.split(" SQLSTATE")[0].strip().rstrip(".")[:300]


def end(session: SparkSession) -> None:
    """Stop a session, of a Java that lives or of one that has died: the next session then starts another."""
    with suppress(*LOST):
        if not is_gone():
            session.stop()
    if is_gone():
        _forget(session.sparkContext)


def hush(context: SparkContext) -> None:
    """Have no traceback written to stderr by pyspark and py4j: what fails is raised."""
    logging.getLogger().addFilter(_is_news)
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)
    if (server := context._accumulatorServer) is not None:
        tell = type(server).handle_error
        server.handle_error = lambda *whom: None if isinstance(sys.exception(), GONE) else tell(server, *whom)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.name == "root" and record.module in PY4J)


def _how() -> str:
    """How its process ended, where it is a child of this one."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return ""
    try:
        status = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return f" (process {process.pid} does not answer)"
    if status < 0:
        return f" (process {process.pid} was ended by {signal.Signals(-status).name})"
    return f" (process {process.pid} ended with exit status {status})"


def _forget(context: SparkContext) -> None:
    """Leave pyspark as it is before a first session: it would ask the Java that has died for ever."""
    gateway = SparkContext._gateway
    context._jsc = None  # there is nothing to stop
    with suppress(*LOST):
        context.stop()
    SparkSession._instantiatedSession = SparkSession._activeSession = None
    with suppress(*LOST):
        gateway.close()
    SparkContext._gateway = SparkContext._jvm = None
