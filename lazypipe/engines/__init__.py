"""Engines: where the work runs. Each has two verbs, ``fold`` and ``map``, and one short file.

A new engine is one file here and one line in ``ENGINES``; ``tests/engines`` then holds it to serial.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

from lazypipe.engines import resident
from lazypipe.engines.base import Engine
from lazypipe.errors import ConfigError
from lazypipe.extras import require_packages
from lazypipe.progress import Progress
from lazypipe.sizes import parse_bytes

ENGINES = {
    "serial": "lazypipe.engines.serial:SerialEngine",
    "dask": "lazypipe.engines.dask:DaskEngine",
    "spark": "lazypipe.engines.spark:SparkEngine",
}
MIN_MEMORY = "16MiB"


def open_engine(
    kind: str = "dask",
    *,
    address: str | None = None,
    memory: str | int | None = None,
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
        interpreter and its libraries take. None: 2GiB on this machine; on a cluster the workers'
        own limit less the libraries' share.
    workers : tasks at once on this machine; None takes every core.
    progress : gets the events of the run.

    Raises
    ------
    ConfigError : an unknown kind, or a budget that is no size.
    EngineError : nobody listens at ``address``, Java is missing, or workers lack lazypipe.
    """
    if kind not in ENGINES:
        raise ConfigError(f"engine: {kind!r} is not one of {', '.join(ENGINES)}.")
    nbytes = None if memory is None else parse_bytes(memory)
    if nbytes is not None and nbytes < parse_bytes(MIN_MEMORY):
        raise ConfigError(f"memory: {memory} is too small to work in. Give at least {MIN_MEMORY}.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers: {workers} is not a number of tasks. Give 1 or more, or leave it out.")
    if kind == "spark":
        require_packages("the engine spark needs", "spark", "pyspark")
    resident.return_large_arrays()
    module, name = ENGINES[kind].split(":")
    return getattr(import_module(module), name)(
        address=address, memory=nbytes, workers=workers, progress=progress or Progress()
    )


def engine_or_own(engine: Engine | None) -> AbstractContextManager[Engine]:
    """The engine given, which stays open, or one of this process while the block lasts."""
    return open_engine() if engine is None else nullcontext(engine)


__all__ = ["ENGINES", "Engine", "engine_or_own", "open_engine"]
