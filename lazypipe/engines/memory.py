"""Budgets that workers have no room for; tasks that got no memory: which one, where, and what the plan had allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from lazypipe.engines.base import MIN_MEMORY
from lazypipe.errors import EngineError, LazypipeError, MemoryPlanError
from lazypipe.plan import FoldPlan
from lazypipe.sizes import MIB, show_bytes


class OutOfMemory(EngineError):
    """A task was refused memory on ``worker``: what the system said. The engine tells the rest."""

    def __init__(self, worker: str, what: str):
        super().__init__(worker, what)
        self.worker, self.what = worker, what


@contextmanager
def memory_named(worker: str) -> Iterator[None]:
    """Raise OutOfMemory, which names the worker, where the block raises MemoryError."""
    try:
        yield
    except LazypipeError:
        raise
    except MemoryError as error:
        raise OutOfMemory(worker, " ".join(str(error).split())[:200] or "no memory left") from error


def show_task(plan: FoldPlan, index: int | None, n_tasks: int) -> str:
    """``"pass 3", task 17 of 40 (rows 34,000 to 36,000)``; without an index, the merging of states."""
    if index is None:
        return f'"{plan.title}", merging states'
    task = f'"{plan.title}", task {index + 1:,} of {n_tasks:,}'
    runs = plan.runs
    if len(runs) != n_tasks or any(run.stop != after.start for run, after in pairwise(runs)):
        return task  # that is no run of lines
    run = runs[index]
    return f"{task} ({plan.axis} {run.start:,} to {run.stop:,})"


def show_allowed(plan: FoldPlan, base: int) -> str:
    """What the plan has counted on, in one process."""
    return (
        f"the plan allows {show_bytes(plan.task_nbytes)} a task and {show_bytes(plan.worker_nbytes)} in all, beside "
        f"the {show_bytes(base)} of the libraries"
    )


def budget_within(kind: str, memory: int | None, room: int, base: int, limit: str, remedy: str) -> int:
    """``memory``, or all the ``room`` that a worker has under its ``limit`` beside what its libraries take (``base``).

    Raises MemoryPlanError where that is too little; ``remedy`` tells how to raise the limit.
    """
    if room < MIN_MEMORY:
        raise MemoryPlanError(
            f"{kind}: the libraries' {show_bytes(base)} leave no room to work in below the workers' limit of {limit}. "
            f"{remedy[0].upper()}{remedy[1:]}."
        )
    if memory is not None and memory > room:
        fits = (room - room % MIN_MEMORY) // MIB  # a little less: what the libraries take differs between runs
        raise MemoryPlanError(
            f"{kind}: a budget of {show_bytes(memory)} and the libraries' {show_bytes(base)} exceed the workers' limit "
            f"of {limit}. Lower the budget to {fits}MiB, or {remedy}."
        )
    return room if memory is None else memory


def refused_memory(
    kind: str, error: OutOfMemory, plan: FoldPlan, index: int | None, n_tasks: int, base: int
) -> EngineError:
    """The line for a task that raised MemoryError."""
    return EngineError(
        f"{kind}: {error.worker} had no memory for {show_task(plan, index, n_tasks)}: {error.what.rstrip('.')}; "
        f"{show_allowed(plan, base)}. Lower the budget (memory=), or give the process more."
    )
