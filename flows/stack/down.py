"""``down``: end what the stack started, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from flows.stack import folder as folders
from flows.stack import postgres, processes
from flows.stack.config import StackConfig
from flows.stack.processes import Record

# Who needs others ends before them: a flow run that is ended tells Prefect and MLflow so. Those of a row, together.
ORDER = (("worker",), ("dask-worker", "spark-worker"), ("dask-scheduler", "spark-master", "mlflow", "prefect"))


def down(place: Path) -> list[str]:
    """End all that runs, those that need others first; the names of what was ended."""
    if not place.is_dir():
        return []
    with folders.held(place):
        ended = end(place, list(processes.records(place).values()))
        # Of an `up` that was killed before it wrote them down, or flow runs of a worker that was killed.
        left = processes.marked(place)
        processes.end(left, signal.SIGTERM)
        database = postgres.left_running(StackConfig(folder=str(place)))
        processes.end(database, postgres.STOP)
    return [*ended, *(f"process {process.pid}" for process in [*left, *database])]


def end(place: Path, records: Sequence[Record]) -> list[str]:
    """End these processes with their families, as far as they are still those that were started; forget them."""
    ended = []
    for row in range(len(ORDER) + 1):
        chosen = [record for record in records if rank(record.name) == row]
        families: list[psutil.Process] = []
        requests: dict[int, int] = {}
        for record in chosen:
            family = processes.family(record)
            families += family
            # PostgreSQL ends its own processes, in order.
            asked = family[:1] if record.stop == postgres.STOP else family
            requests |= {process.pid: record.stop for process in asked}
            ended += [record.name] if family else []
        processes.end(families, requests)
        for record in chosen:
            processes.forget(place, record.name)
    return ended


def rank(name: str) -> int:
    """The row of ``ORDER`` that a server is in."""
    return next((i for i, row in enumerate(ORDER) if name.startswith(row)), len(ORDER))
