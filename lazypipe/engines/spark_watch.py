"""Executors of a Spark cluster that are lost, those that come, and those that do not: told while tasks run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pyspark import SparkContext

from lazypipe.errors import EngineError
from lazypipe.progress import WorkerSaid

LOOK_SECONDS = 2.0
WAIT_SECONDS = 5.0  # for an executor, before that is told
NONE_SECONDS = 180.0  # without any executor while tasks wait
IDLE = "killed by driver"  # Spark's reason for one that had nothing to do under dynamic allocation


class Watch:
    """Asks the driver's own records, which Spark keeps with or without a page."""

    def __init__(self, context: SparkContext, say: Callable[[WorkerSaid], None]):
        self.context, self._say = context, say
        self._known = {one.id(): bool(one.isActive()) for one in self._executors()}
        self._looked = self._seen = time.monotonic()
        self._group = ""  # of the job that waits
        self._told = False  # that it does

    def _executors(self) -> list[Any]:
        found = self.context._jsc.sc().statusStore().executorList(False)
        everyone = [found.apply(i) for i in range(found.size())]
        return [one for one in everyone if one.id() != "driver"]

    def __call__(self, group: str, n_done: int) -> None:
        """Tell what changed. Raises EngineError where the tasks have had no executor for long."""
        now = time.monotonic()
        if group != self._group:  # executors may have gone before, as nobody had work for them
            self._group, self._seen = group, now
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for one in self._executors():
            self._look_at(one)
        seconds = now - self._seen
        if any(self._known.values()):
            self._seen, self._told = now, False
        elif seconds > NONE_SECONDS:
            raise EngineError(
                f"spark: no executor is left at {self.context.master}, and none came for {seconds:.0f} s. Look at the "
                f"logs of its workers, and start some, or free their cores and memory (see the master's page)."
            )
        elif seconds > WAIT_SECONDS and not self._told:
            self._told = True
            self._say(waits(self.context, "an executor", seconds, NONE_SECONDS))

    def _look_at(self, executor: Any) -> None:
        name, active = executor.id(), bool(executor.isActive())
        if self._known.get(name, not active) != active:
            if active:
                self._tell(executor, logging.INFO, "joined")
            elif name in self._known:
                why = executor.removeReason().get() if executor.removeReason().isDefined() else ""
                told = f": {' '.join(why.split())[:200]}" if why else ""
                if IDLE in why:
                    self._tell(executor, logging.INFO, f"let go{told}")
                else:
                    self._tell(executor, logging.WARNING, f"lost{told}")
        self._known[name] = active

    def _tell(self, executor: Any, level: int, text: str) -> None:
        host = executor.hostPort().rpartition(":")[0]  # empty until its blocks are known
        self._say(WorkerSaid(f"executor {executor.id()}{f' of {host}' if host else ''}", level, text))


def waits(context: SparkContext, what: str, seconds: float, most: float) -> WorkerSaid:
    """The line for tasks that wait for ``what`` from the master, and have for some seconds."""
    text = (
        f"the tasks have waited {seconds:.0f} s for {what}, and will for {most:.0f} s. Start a worker, or free its "
        f"cores and memory (see the master's page)."
    )
    return WorkerSaid(context.master, logging.WARNING, text)
