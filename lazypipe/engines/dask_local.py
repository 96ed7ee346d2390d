"""Dask in this process: threads, with nothing to start first."""

from __future__ import annotations

import logging

import dask
from distributed import LocalCluster

SLOTS = "lazypipe-slots"  # a resource of the one worker: how much of the budget a task takes
BUDGET = 2**20  # of them in all; whole numbers, as twelve twelfths add up to more than 1, and one task would wait


def local_cluster(threads: int) -> LocalCluster:
    """A scheduler and a worker of this process."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is raised, not logged
    logging.getLogger("asyncio").addFilter(_is_news)
    # The plan bounds the memory. Dask's own monitor counts pages of mapped files as used, so it
    # would pause workers that hold little.
    # Nor may a process that stood still (Ctrl-Z, a laptop that slept) take its own worker for lost.
    with dask.config.set({"distributed.scheduler.worker-ttl": None}):
        return LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            dashboard_address="127.0.0.1:0",  # None would still listen, on every interface
            memory_limit=None,
            resources={SLOTS: BUDGET},
            silence_logs=logging.CRITICAL,
        )


def _is_news(record: logging.LogRecord) -> bool:
    """All but the time-outs of a cluster that is being closed on a busy machine, which nobody waits for."""
    error = record.exc_info[1] if record.exc_info else None
    return not (type(error).__name__ == "TimeoutError" and "never retrieved" in record.getMessage())
