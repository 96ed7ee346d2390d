"""Tasks of Spark that stand still: told, as Spark itself waits for a frozen process for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from pyspark import SparkContext

from lazypipe.engines.spark_jobs import stages_of
from lazypipe.progress import EpochDone, Event, Progress, StepsDone, WorkerSaid

STILL_SECONDS = 30.0  # without the end of a task, where others ended
FIRST_SECONDS = 300.0  # where none has: nobody knows how long they take
TIMES = 5.0  # the longest such pause before: a shorter one is no news
SHOWN = 3  # tasks that a line names

Say = Callable[[WorkerSaid], None]


class Stillness:
    """Tells who is at work on what where no task has ended for long: frozen, waiting for a disk, or slow.

    While its block lasts it hears of networks in training, too, which are at work for as long as they like.
    """

    def __init__(self, context: SparkContext, progress: Progress, show: Callable[[int], str], say: Say | None = None):
        self.context, self.progress, self._show = context, progress, show  # ``show`` names a task by its place
        self._say = say or progress.emit
        self._ended = time.monotonic()
        self._n_done, self._longest = 0, 0.0
        self._again = 0.0  # seconds without an end before it is told once more

    def __enter__(self) -> Stillness:
        self.progress.listeners.append(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # others may take the list over meanwhile
            self.progress.listeners.remove(self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, StepsDone | EpochDone):
            self._ended = time.monotonic()

    def __call__(self, group: str, n_done: int) -> None:
        now = time.monotonic()
        pause = now - self._ended
        if n_done > self._n_done:
            self._n_done, self._ended = n_done, now
            self._longest, self._again = max(self._longest, pause), 0.0
        elif pause > max(STILL_SECONDS, TIMES * self._longest, self._again) and (n_done or pause > FIRST_SECONDS):
            self._again = 2 * pause
            self._tell(self._running(group), pause)

    def _running(self, group: str) -> list[tuple[float, int, str]]:
        """Tasks at work: seconds, place and worker, the longest first."""
        store, jvm = self.context._jsc.sc().statusStore(), self.context._jvm
        unsorted, which = jvm.scala.Option.empty(), [jvm.org.apache.spark.status.api.v1.TaskStatus.RUNNING]
        found = []
        for stage in stages_of(self.context, group):
            if stage.numActiveTasks:
                attempt = stage.stageId, stage.currentAttemptId
                tasks = store.taskList(*attempt, 0, stage.numTasks, unsorted, True, which)
                for task in (tasks.apply(i) for i in range(tasks.size())):
                    seconds = time.time() - task.launchTime().getTime() / 1000
                    found.append((seconds, task.index(), f"executor {task.executorId()} of {task.host()}"))
        return sorted(found, reverse=True)

    def _tell(self, running: list[tuple[float, int, str]], pause: float) -> None:
        if not running:  # they wait for an executor, which others tell
            return
        (seconds, index, worker), *others = running
        also = [f"{where} on {self._show(one)} for {age:.0f} s" for age, one, where in others[: SHOWN - 1]]
        also += [f"{len(running) - SHOWN} more"] if len(running) > SHOWN else []
        before = f", before {self._longest:.0f} s at most" if self._n_done else ""
        self._say(
            WorkerSaid(
                worker,
                logging.WARNING,
                f"at work on {self._show(index)} for {seconds:.0f} s{''.join(f'; {one}' for one in also)}; no task has "
                f"ended for {pause:.0f} s{before}. It is slow, or its process stands still: look at it there, or end "
                f"the run.",
            )
        )
