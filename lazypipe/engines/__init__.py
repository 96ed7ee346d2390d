"""Engines: where the work runs. Each has two verbs, ``fold`` and ``map``, and one short file.

A new engine is one file here and one line in ``ENGINES``; ``tests/engines`` then holds it to serial.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

from lazypipe.checks import named, whole
from lazypipe.engines import resident
from lazypipe.engines.base import MIN_MEMORY, Engine, checked_budget
from lazypipe.extras import require_packages
from lazypipe.progress import Progress

ENGINES = {
    "serial": "lazypipe.engines.serial:SerialEngine",
    "dask": "lazypipe.engines.dask:DaskEngine",
    "spark": "lazypipe.engines.spark:SparkEngine",
}


def open_engine(
    kind: str = "dask",
    *,
    address: str | None = None,
    memory: str | float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Start or reach an engine; use it as a context manager.

    Parameters
    ----------
    kind : "dask" (default), "spark" or "serial".
    address : of a cluster that runs already: ``tcp://host:8786`` (Dask), ``spark://host:7077`` or
        ``yarn`` (Spark). None starts one on this machine: threads of this process for Dask,
        ``local[*]`` for Spark.
    memory : budget for the job's arrays, in each worker process and on the driver, beside what the
        interpreter and its libraries take. None: on a cluster the workers' own limit (80% of Dask's
        ``--memory-limit``; ``spark.executor.pyspark.memory``) less the libraries' share; where there is none, 2GiB.
    workers : tasks at once on this machine, or cores to take of a Spark master in all; None takes every core.
        The serial engine has one task at a time, and a Dask cluster at an address takes all its workers, whatever
        is given.
    progress : gets the events of the run.

    Raises
    ------
    ConfigError : an unknown kind, a budget that is no size or less than 16 MiB, a number of workers below 1, or an
        extra that is not installed.
    MemoryPlanError : the workers of a cluster have no room for ``memory`` below their limit.
    EngineError : nobody answers at ``address``, or no worker is there. RefusedError, which is one, where another try
        does not help: ``address`` is none, Java is missing, workers have other versions or lack lazypipe.
    """
    module, name = named("engine", kind, ENGINES).split(":")
    nbytes = None if memory is None else checked_budget(memory)
    if workers is not None:
        workers = whole(workers, "workers")
    if kind == "spark":
        require_packages("the engine spark needs", "spark", "pyspark")
    resident.return_large_arrays()
    return getattr(import_module(module), name)(
        address=address, memory=nbytes, workers=workers, progress=progress or Progress()
    )


def engine_or_own(engine: Engine | None) -> AbstractContextManager[Engine]:
    """The engine given, which stays open, or one of this process while the block lasts."""
    return open_engine() if engine is None else nullcontext(engine)


__all__ = ["ENGINES", "MIN_MEMORY", "Engine", "engine_or_own", "open_engine"]
