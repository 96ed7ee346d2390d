"""A Spark job on a thread of its own, while the caller's looks after it: who is done, who is lost, who stands still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from pyspark import Broadcast, SparkContext

from lazypipe.blocks import Run
from lazypipe.engines.spark_java import LOST, java_told
from lazypipe.progress import Progress, Shares, TaskDone

POLL_SECONDS = 0.1

Given = TypeVar("Given")
Look = Callable[[str, int], None]  # called with the group of the job, and how many of its tasks are done


def run_job(
    context: SparkContext, title: str, n_tasks: int, collect: Callable[[], Given], looks: Sequence[Look]
) -> Given:
    """What ``collect`` gives, which starts one job of ``n_tasks`` tasks; meanwhile ``looks`` are called, often.

    Where one of them raises, or the caller is interrupted, the job is cancelled. Raises EngineError where Java dies.
    """
    group = f"lazypipe-{time.monotonic_ns()}"

    def work() -> Given:
        context.setJobGroup(group, title, interruptOnCancel=True)
        return collect()

    with java_told(context, f'"{title}"'), ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        try:
            while not future.done():
                time.sleep(POLL_SECONDS)
                n_done = min(sum(stage.numCompletedTasks for stage in stages_of(context, group)), n_tasks)
                for look in looks:
                    look(group, n_done)
            return future.result()
        except BaseException:
            if not future.done():
                with suppress(*LOST):  # a job that is yet to begin, too: the thread would wait for its end
                    context._jsc.sc().cancelJobGroupAndFutureJobs(group)
            raise


def stages_of(context: SparkContext, group: str) -> list[Any]:
    """What Spark knows of the stages of a group's jobs."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
    return [stage for stage in stages if stage]


class Ends:
    """Tells the progress how many tasks are done, as if they ended in order; ``runs``, if each is as long as one."""

    def __init__(self, progress: Progress, n_tasks: int, runs: Sequence[Run] = ()):
        self.progress, self.n_tasks = progress, n_tasks
        self._shares, self._told = Shares(runs, n_tasks), 0

    def __call__(self, group: str, n_done: int) -> None:
        if n_done > self._told:
            share = [self._shares.add(i) for i in range(self._told, n_done)][-1]
            self._told = n_done
            self.progress.emit(TaskDone(n_done, self.n_tasks, share))


@contextmanager
def shared_with(context: SparkContext, what: Any) -> Iterator[Broadcast]:
    """``what``, sent to every worker that needs it, while the block lasts."""
    shared = context.broadcast(what)
    try:
        yield shared
    finally:
        with suppress(*LOST):  # of Java that has died, or a session that was stopped: told already
            shared.destroy()
