"""GPUs of a Spark cluster: profiles of resources that place tasks, and tasks that would wait for one for ever."""

from __future__ import annotations

import time

from py4j.protocol import Py4JJavaError
from pyspark import RDD, SparkContext
from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

from lazypipe.engines.placed import show_gpus
from lazypipe.errors import EngineError

GPU = "spark.executor.resource.gpu"
CHECK_SECONDS = 3.0
NONE_SECONDS = 180.0  # executors without a GPU keep their cores for one with for 60 s, unless told otherwise
HOW = (
    f"Start workers with spark.worker.resource.gpu.amount and .discoveryScript, and the session with "
    f'--conf {GPU}.amount=1 (YARN, Kubernetes: and {GPU}.discoveryScript), or work without: device="cpu".'
)


def placed(work: RDD, gpus: int) -> RDD:
    """``work`` whose tasks get so many GPUs each.

    Spark takes either of two profiles, and never the other: of tasks alone where the executors are there for good,
    which must have GPUs then; or of executors and tasks under dynamic allocation, which starts executors for it.
    """
    context = work.context
    conf = context.getConf()
    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(task_cores(context)).resource("gpu", gpus))
    if is_dynamic(context):
        script, vendor = conf.get(f"{GPU}.discoveryScript", ""), conf.get(f"{GPU}.vendor", "")
        amount = max(gpus, gpus_each(context))
        profile = profile.require(ExecutorResourceRequests().resource("gpu", amount, script, vendor))
    elif gpus_each(context) < gpus:
        has = show_gpus(gpus_each(context)) if gpus_each(context) else "no GPU"
        raise EngineError(f"spark: an executor of {context.master} has {has}, a task needs {show_gpus(gpus)}. {HOW}")
    try:
        return work.withResources(profile.build)
    except Py4JJavaError as error:
        why = error.java_exception.getMessage()
        raise EngineError(f"spark: {context.master} does not place tasks by their GPUs: {why} {HOW}") from error


def is_dynamic(context: SparkContext) -> bool:
    """Whether executors come and go with the work."""
    return bool(context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true")


def gpus_each(context: SparkContext) -> int:
    """Of an executor, as the session was started."""
    return int(context.getConf().get(f"{GPU}.amount", "0"))


def task_cores(context: SparkContext) -> int:
    return int(context.getConf().get("spark.task.cpus", "1"))


def executors_gpus(context: SparkContext) -> int:
    """Of the executors there are now, the driver not among them; of one at least where they come when needed."""
    n_executors = int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1
    return max(n_executors, 1 if is_dynamic(context) else 0) * gpus_each(context)


class Patience:
    """Ends when no task has run for a while: Spark waits for an executor with a GPU without a word."""

    def __init__(self, context: SparkContext, gpus: int):
        self.context, self.gpus = context, gpus
        self._seen = self._checked = time.monotonic()

    def check(self, group: str) -> None:
        """Raise EngineError at the end of it."""
        now = time.monotonic()
        if now - self._checked < min(CHECK_SECONDS, NONE_SECONDS):
            return
        self._checked = now
        tracker = self.context.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
        stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        if not stages or any(stage and stage.numActiveTasks for stage in stages):
            self._seen = now
        elif now - self._seen > NONE_SECONDS:
            raise EngineError(
                f"spark: for {now - self._seen:.0f} s no executor of {self.context.master} has come that has "
                f"{show_gpus(self.gpus)} free for a task. {HOW}"
            )
