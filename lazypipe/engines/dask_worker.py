"""What a Dask worker calls: tasks, in a process of their own or in the driver's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import get_worker

from lazypipe.blocks import Run
from lazypipe.engines.base import Result, Task
from lazypipe.engines.listening_dask import SpokenBy, TellThroughScheduler
from lazypipe.engines.memory import memory_named
from lazypipe.engines.saying import forwarded
from lazypipe.engines.tasks import disk_named, fold_run, merge_group, settle_worker
from lazypipe.io.matrix import Matrix
from lazypipe.stats.base import Statistic


@contextmanager
def working(tell: TellThroughScheduler | None) -> Iterator[None]:
    """Around a task of a worker whose logs ``tell`` takes; without it, of a thread of the driver's process."""
    if tell is None:
        with memory_named("this process"):
            yield
        return
    settle_worker()
    worker = get_worker()
    name = str(worker.name)  # that it was given, else its address
    with forwarded(SpokenBy(worker, tell), name), memory_named(f"the worker {name}"), disk_named(name):
        yield


def do_run(run: Run, statistic: Statistic, matrix: Matrix, mapped: bool, tell: TellThroughScheduler | None) -> Any:
    with working(tell):
        return fold_run(statistic, matrix, run, mapped)


def do_merge(statistic: Statistic, group: list[Any], tell: TellThroughScheduler | None) -> Any:
    with working(tell):
        return merge_group(statistic, group)


def do_call(task: Task, function: Callable[[Task], Result], tell: TellThroughScheduler | None) -> Result:
    with working(tell):
        return function(task)
