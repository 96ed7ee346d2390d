"""What a Python worker of Spark calls."""

from __future__ import annotations

import logging
import os
import resource
import socket
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyspark import Broadcast

from lazypipe.engines import resident
from lazypipe.engines.listening import Tell
from lazypipe.engines.memory import memory_named
from lazypipe.engines.saying import forwarded
from lazypipe.engines.tasks import disk_named, emptied_base, settle_worker
from lazypipe.errors import LazypipeError
from lazypipe.sizes import show_bytes

NEAR = 0.9  # of the limit of a worker's memory: worth a warning

log = logging.getLogger("lazypipe")


class Shared:
    """A broadcast function, looked up on the worker."""

    def __init__(self, broadcast: Broadcast):
        self.broadcast = broadcast

    def __call__(self, task: Any) -> Any:
        return self.broadcast.value(task)


def attempt(function: Callable[[Any], Any], task: Any, tell: Tell) -> Any:
    """The result, or what is told in a line as a value: Spark would wrap it in pages of Java."""
    settle_worker()
    name = worker_name()
    try:
        with forwarded(tell, name), memory_named(f"the worker {name}"), disk_named(name):
            found = function(task)
            _warn_of_memory()
            return found
    except LazypipeError as error:
        return error


@lru_cache(maxsize=1)
def worker_name() -> str:
    """``executor 3 of host``, where that can be known; a standalone worker names the folder of an executor by it."""
    host = socket.gethostname()
    folder = Path.cwd()
    executor = os.environ.get("SPARK_EXECUTOR_ID") or (folder.name if folder.parent.name.startswith("app-") else "")
    return f"executor {executor} of {host}" if executor else f"{host}, process {os.getpid()}"


def memory_here(_: object) -> tuple[int | None, int]:
    """The limit of this process, None where it has none, and what the interpreter and its libraries take of it."""
    return _limit(), emptied_base(1)


def _limit() -> int | None:
    """Bytes that ``spark.executor.pyspark.memory`` leaves this process; executors share it out among their cores."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _warn_of_memory() -> None:
    """Where the highest memory of this process came near its limit."""
    limit, peak = _limit(), resident.peak_nbytes()
    if limit is not None and peak > NEAR * limit:
        log.warning("memory was %s of the limit of %s", show_bytes(peak), show_bytes(limit))
