"""Spark: ``local[*]`` by default, or a master. Ships ranges of a file to Python workers, never rows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from threadpoolctl import threadpool_limits

from lazypipe.blocks import Run
from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Result, Task
from lazypipe.engines.listening import Tell, overheard
from lazypipe.engines.listening_tcp import listening_at
from lazypipe.engines.memory import OutOfMemory, refused_memory, show_allowed, show_task
from lazypipe.engines.spark_gpus import Patience, executors_gpus, placed
from lazypipe.engines.spark_java import end, java_told, said
from lazypipe.engines.spark_jobs import Ends, Look, run_job, shared_with
from lazypipe.engines.spark_session import (
    checked_limit,
    is_local,
    open_session,
    require_executors,
    require_java,
    require_master,
    require_same_workers,
)
from lazypipe.engines.spark_still import Stillness
from lazypipe.engines.spark_watch import Watch
from lazypipe.engines.spark_worker import Shared, attempt
from lazypipe.engines.tasks import fold_run, merge_in_order
from lazypipe.errors import EngineError, LazypipeError
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FAN_IN, FoldPlan, Host
from lazypipe.progress import Progress, StageDone, StageStarted, WorkerSaid
from lazypipe.sizes import MIB
from lazypipe.stats.base import Statistic

SMALL_PARTIALS_NBYTES = 32 * MIB
FAILED = re.compile(r"Task (\d+) in stage \S+ failed (\d+) times")
LAST = re.compile(r"most recent failure: Lost task \S+ in stage \S+ \(TID \d+\) \((\S+) executor (\w+)\): ([^\n]*)")


class SparkEngine:
    """A partition folds neighbouring runs and sums them; the driver merges the few partial states."""

    kind = "spark"

    def __init__(self, address: str | None, memory: int | None, workers: int | None, progress: Progress):
        self.progress = progress
        require_java()
        if address is not None:
            require_master(address)
        self._own = SparkContext._active_spark_context is None
        self.session = open_session(address, workers, self._own)
        self.context = self.session.sparkContext
        self._open = ExitStack()
        try:
            with java_told(self.context, "its start"):
                require_executors(self.context, progress.emit)
                require_same_workers(self.context)
                self._tell = self._open.enter_context(self.listen())  # of the workers' logs
                self._watch = None if self._local else Watch(self.context, self._say)
                memory = checked_limit(self.context, memory)
        except BaseException:
            self._stop()
            raise
        base = resident.base_nbytes(1)
        self.host = Host(memory or DEFAULT_MEMORY, 1, shared=False, base=base)
        self.slots = self.context.defaultParallelism
        self._limit = threadpool_limits(1)  # the driver's arithmetic rounds as it does under every engine

    @property
    def _local(self) -> bool:
        return is_local(self.context)

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        most = max(plan.live_states, SMALL_PARTIALS_NBYTES // max(1, plan.state_nbytes))
        most = min(most, max(8, 4 * self.context.defaultParallelism))
        size = 1  # runs a partition: a power of the fan-in, so that its sum is a subtree of the whole
        while -(-len(plan.runs) // size) > most:
            size *= FAN_IN
        parts = [plan.runs[i : i + size] for i in range(0, len(plan.runs), size)]
        mapped = plan.mapped
        with java_told(self.context, f'"{plan.title}"'), shared_with(self.context, (statistic, matrix)) as shared:

            def fold_part(runs: tuple[Run, ...]) -> Any:
                statistic, matrix = shared.value
                return merge_in_order(statistic, (fold_run(statistic, matrix, run, mapped) for run in runs))

            cut = tuple(Run(i, part[0].start, part[-1].stop, part[0].step) for i, part in enumerate(parts))
            states = self._collect(fold_part, parts, replace(plan, runs=cut))
        return statistic.finish(merge_in_order(statistic, states))

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        with java_told(self.context, f'"{plan.title}"'), shared_with(self.context, function) as shared:
            results = self._collect(Shared(shared), tasks, plan)
        yield from results

    def _collect(self, function: Callable[[Any], Any], tasks: Sequence[Any], plan: FoldPlan) -> list[Any]:
        """The results in order, a Spark task each, with progress while they are made."""
        tell = self._tell
        work = self.context.parallelize(tasks, len(tasks)).map(lambda task: attempt(function, task, tell))
        looks: list[Look] = [Ends(self.progress, len(tasks), plan.runs)]
        if plan.gpus and not self._local:
            work = placed(work, plan.gpus)
            looks.append(Patience(self.context, plan.gpus, self._say))
        if self._watch is not None:
            looks.append(self._watch)
        still = Stillness(self.context, self.progress, lambda i: show_task(plan, i, len(tasks)), self._say)

        self.progress.emit(StageStarted(plan.title, len(tasks), plan.bytes_read))
        begun = time.monotonic()
        try:
            with still:
                results = run_job(self.context, plan.title, len(tasks), work.collect, [*looks, still])
        except (Py4JJavaError, PySparkException) as error:
            raise self._failed(error, plan, len(tasks)) from error
        for i, result in enumerate(results):
            if isinstance(result, OutOfMemory):
                raise refused_memory("spark", result, plan, i, len(tasks), self.host.base)
            if isinstance(result, LazypipeError):
                raise result
        self.progress.emit(StageDone(plan.title, time.monotonic() - begun))
        return results

    def _failed(self, error: Exception, plan: FoldPlan, n_tasks: int) -> EngineError:
        """What Spark tells of a task that failed as often as it may, in a line."""
        failed, last = FAILED.search(str(error)), LAST.search(str(error))
        if failed is None:
            return EngineError(f'spark: "{plan.title}" failed: {said(error)}.')
        where = f", last at executor {last[2]} of {last[1]}" if last else ""
        why = said(error)
        if last and ("exited" in last[3] or "ExecutorLost" in last[3]):
            why = f"its process died, most likely out of memory ({' '.join(last[3].split())[:160].rstrip('.')})"
        return EngineError(
            f"spark: {show_task(plan, int(failed[1]), n_tasks)} failed {failed[2]} times{where}: {why}; "
            f"{show_allowed(plan, self.host.base)}. If memory was short, lower the budget (memory=) or give executors "
            f"more (spark.executor.memoryOverhead, spark.executor.pyspark.memory)."
        )

    @property
    def gpus(self) -> int | None:
        return None if self._local else executors_gpus(self.context)

    def listen(self) -> AbstractContextManager[Tell]:
        conf = self.context.getConf()  # executors reach the driver there
        host = conf.get("spark.driver.host")
        return listening_at(self.progress, host, conf.get("spark.driver.bindAddress") or host)

    def _say(self, event: WorkerSaid) -> None:
        overheard(self._tell.key, event)

    def describe(self) -> str:
        return f"spark: {self.context.defaultParallelism} cores at {self.context.master}"

    def trace(self) -> dict[str, str]:
        page = self.context.uiWebUrl
        return {"application_id": self.context.applicationId} | ({"dashboard": page} if page else {})

    def peak_memory(self) -> int:
        """Of the driver and of the Python workers that answer; the JVM is Spark's own."""
        with java_told(self.context, "its end"):
            n = 2 * self.context.defaultParallelism
            found = self.context.parallelize(range(n), n).map(resident.peak_nbytes).collect()
        return max(*found, resident.peak_nbytes())

    def reset_peak(self) -> None:
        resident.reset_peak()

    def close(self) -> None:
        self._limit.restore_original_limits()
        self._stop()

    def _stop(self) -> None:
        self._open.close()
        if self._own:
            end(self.session)

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
