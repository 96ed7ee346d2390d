"""``down``: end what the stack started, and nothing else."""

from __future__ import annotations

import signal
from pathlib import Path

from flows.stack import folder as folders
from flows.stack import processes
from flows.stack.processes import Record

ORDER = ("worker", "dask-worker", "spark-worker", "dask-scheduler", "spark-master", "mlflow", "prefect", "postgres")


def down(place: Path) -> list[str]:
    """End all that runs, those that need others first; the names of what was ended."""
    if not place.is_dir():
        return []
    ended = []
    with folders.held(place, "down"):
        known = sorted(processes.records(place).values(), key=lambda record: rank(record.name))
        for record in known:
            if record.process():
                ended.append(record.name)
            end_record(place, record)
        left = processes.marked(place)  # of an `up` that was killed before it wrote them down, or of a killed worker
        processes.end(left, signal.SIGTERM)
        ended += [f"process {process.pid}" for process in left]
    return ended


def rank(name: str) -> int:
    """Where a server is in the order of ending."""
    return next((i for i, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))


def end_record(place: Path, record: Record) -> None:
    """End a process and its family, if it is still the one that was started; then forget it."""
    family = processes.family(record)
    only = [record.pid] if record.name == "postgres" else []
    processes.end(family, record.stop, only)
    processes.forget(place, record.name)
