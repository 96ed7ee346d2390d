"""Executors of a Spark cluster that are lost, and those that come: told while tasks run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pyspark import SparkContext

from lazypipe.errors import EngineError
from lazypipe.progress import WorkerSaid

LOOK_SECONDS = 2.0
NONE_SECONDS = 180.0  # without any executor while tasks wait


class Watch:
    """Asks the driver's own records, which Spark keeps with or without a page."""

    def __init__(self, context: SparkContext, say: Callable[[WorkerSaid], None]):
        self.context, self._say = context, say
        self._known = {one.id(): bool(one.isActive()) for one in self._executors()}
        self._looked = self._seen = time.monotonic()

    def _executors(self) -> list[Any]:
        found = self.context._jsc.sc().statusStore().executorList(False)
        everyone = [found.apply(i) for i in range(found.size())]
        return [one for one in everyone if one.id() != "driver"]

    def look(self) -> None:
        """Tell what changed. Raises EngineError where no executor has been there for long."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        executors = self._executors()
        for one in executors:
            name, active = one.id(), bool(one.isActive())
            if self._known.get(name, not active) == active:
                continue
            if active:
                self._tell(one, logging.INFO, "joined")
            elif name in self._known:
                why = one.removeReason().get() if one.removeReason().isDefined() else ""
                self._tell(one, logging.WARNING, f"lost: {' '.join(why.split())[:200]}" if why else "lost")
            self._known[name] = active
        if any(self._known.values()):
            self._seen = now
        elif now - self._seen > NONE_SECONDS:
            raise EngineError(
                f"spark: no executor is left at {self.context.master}, since {now - self._seen:.0f} s. Look at the "
                f"logs of its workers, and start some."
            )

    def _tell(self, executor: Any, level: int, text: str) -> None:
        host = executor.hostPort().rpartition(":")[0]
        self._say(WorkerSaid(f"executor {executor.id()} of {host}", level, text))
