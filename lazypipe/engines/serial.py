"""One task after another, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import threadpool_limits

from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Result, Task
from lazypipe.engines.listening import Tell, listening
from lazypipe.engines.memory import OutOfMemory, memory_named, refused_memory
from lazypipe.engines.tasks import SCRATCH, fold_run, merge_in_order
from lazypipe.errors import ConfigError
from lazypipe.io.kept import release_kept
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FoldPlan, Host
from lazypipe.progress import Progress, Shares, StageDone, StageStarted, TaskDone
from lazypipe.stats.base import Statistic


class SerialEngine:
    """The reference that every other engine must equal, bit for bit."""

    kind = "serial"
    slots = 1
    gpus = None

    def __init__(self, address: str | None, memory: int | None, workers: int | None, progress: Progress):
        if address is not None:
            raise ConfigError(f"engine: serial has no address ({address}). Leave it out, or use dask or spark.")
        self.progress = progress
        base, compiler = resident.base_nbytes(1), resident.has_compiler()
        self.host = Host(memory or DEFAULT_MEMORY, 1, shared=True, base=base, compiler=compiler)
        self._limit = threadpool_limits(1)

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        states = self.map(lambda run: fold_run(statistic, matrix, run, plan.mapped), plan.runs, plan)
        return statistic.finish(merge_in_order(statistic, states))

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        self.progress.emit(StageStarted(plan.title, len(tasks), plan.bytes_read))
        begun, shares = time.monotonic(), Shares(plan.runs, len(tasks))
        for i, task in enumerate(tasks):
            try:
                with memory_named("this process"):
                    result = function(task)
            except OutOfMemory as error:
                raise refused_memory("serial", error, plan, i, len(tasks), self.host.base) from error
            yield result
            self.progress.emit(TaskDone(i + 1, len(tasks), shares.add(i)))
        self.progress.emit(StageDone(plan.title, time.monotonic() - begun))

    def listen(self) -> AbstractContextManager[Tell]:
        return listening(self.progress)

    def describe(self) -> str:
        return "serial: one task at a time in this process"

    def trace(self) -> dict[str, str]:
        return {}

    def peak_memory(self) -> int:
        return resident.peak_nbytes()

    def reset_peak(self) -> None:
        resident.reset_peak()

    def close(self) -> None:
        self._limit.restore_original_limits()
        release_kept()
        SCRATCH.release()

    def __enter__(self) -> SerialEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
