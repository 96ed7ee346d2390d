"""GPUs of a Spark cluster: profiles of resources that place tasks, and tasks that would wait for one for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

from py4j.protocol import Py4JJavaError
from pyspark import RDD, SparkContext
from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

from lazypipe.engines.placed import show_gpus
from lazypipe.engines.spark_jobs import stages_of
from lazypipe.engines.spark_watch import NONE_SECONDS, WAIT_SECONDS, waits
from lazypipe.errors import EngineError, RefusedError
from lazypipe.progress import WorkerSaid

GPU = "spark.executor.resource.gpu"
CHECK_SECONDS = 3.0
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
        raise RefusedError(f"spark: an executor of {context.master} has {has}, a task needs {show_gpus(gpus)}. {HOW}")
    try:
        return work.withResources(profile.build)
    except Py4JJavaError as error:
        why = error.java_exception.getMessage()
        raise RefusedError(f"spark: {context.master} does not place tasks by their GPUs: {why} {HOW}") from error


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
    """Ends when no task has run for a while: Spark waits for an executor with a GPU without a word.

    Executors without one keep their cores for 60 s, unless told otherwise, before one with a GPU can have them.
    """

    def __init__(self, context: SparkContext, gpus: int, say: Callable[[WorkerSaid], None]):
        self.context, self.gpus, self._say = context, gpus, say
        self._seen = self._looked = time.monotonic()
        self._told = False

    def __call__(self, group: str, n_done: int) -> None:
        """Raise EngineError at the end of it."""
        now = time.monotonic()
        if now - self._looked < min(CHECK_SECONDS, NONE_SECONDS):
            return
        self._looked = now
        stages = stages_of(self.context, group)
        if not stages or any(stage.numActiveTasks for stage in stages):
            self._seen, self._told = now, False
            return
        seconds = now - self._seen
        if seconds > NONE_SECONDS:
            raise EngineError(
                f"spark: for {seconds:.0f} s no executor of {self.context.master} has come that has "
                f"{show_gpus(self.gpus)} free for a task. {HOW}"
            )
        if seconds > WAIT_SECONDS and not self._told:
            self._told = True
            self._say(waits(self.context, f"an executor that has {show_gpus(self.gpus)} free", seconds, NONE_SECONDS))
