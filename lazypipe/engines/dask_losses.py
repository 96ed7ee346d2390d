"""What was lost with every worker that held it, and is sent again: as often as Dask tries a task again.

A statistic is sent to the workers once. Where all of them died that had it, Dask forgets the tasks that need it
instead of telling which of them is to blame: that is found out here.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from lazypipe.engines.dask_cluster import CONNECT_SECONDS
from lazypipe.engines.dask_watch import shown
from lazypipe.engines.memory import show_allowed, show_task
from lazypipe.errors import EngineError
from lazypipe.plan import FoldPlan

if TYPE_CHECKING:
    from lazypipe.engines.dask import DaskEngine

TRIES = 4
PAUSE_SECONDS = 0.2  # before another try, longer each time
TOLD_SECONDS = 1.0  # what the scheduler says of a worker has come by then
REMEDY = "Lower the budget (memory=), or start workers with a larger --memory-limit."


class NotSent(Exception):
    """A worker died while something was sent to it."""


STRANGE = (ImportError, AttributeError, TypeError)  # what a worker of other versions may answer to our tasks
LOST = (CancelledError, NotSent, *STRANGE)


class Losses:
    """Those of a stage of ``n_tasks`` tasks."""

    def __init__(self, engine: DaskEngine, plan: FoldPlan, n_tasks: int):
        self.engine, self.plan, self.n_tasks = engine, plan, n_tasks
        self._n = 0
        self._suspects: set[int] = set()  # places of tasks that were on each worker that died
        self._last = ""  # of those workers

    def add(self, error: BaseException) -> None:
        """Wait a little before another try. Raises EngineError, or ``error``, where there is no sense in one."""
        watch, client = self.engine.watch, self.engine.client
        if watch is not None and watch.failure is not None:
            raise watch.failure from error
        failed = isinstance(error, STRANGE)
        if watch is not None and watch.is_outdated(now=failed):
            return  # they get no task of the next try
        if failed:
            raise error
        self._n += 1
        self._suspect()
        deadline = time.monotonic() + CONNECT_SECONDS
        while client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        if client.status != "running":
            raise EngineError(
                f"dask: the scheduler at {self.engine.address} has gone, or cannot be reached any more. Start it and "
                f"its workers again; with a state, the same command then goes on from where it was."
            ) from error
        if self._n == TRIES:
            raise self._given_up() from error
        time.sleep(self._n * PAUSE_SECONDS)

    def _suspect(self) -> None:
        watch = self.engine.watch
        deadline = time.monotonic() + TOLD_SECONDS
        while watch is not None and time.monotonic() < deadline:
            if watch.last_lost is not None and watch.last_lost[0] != self._last:
                self._last, keys = watch.last_lost
                found = {place for key, place in self.engine._places.items() if key in keys}
                self._suspects = (self._suspects & found) or found
                return
            time.sleep(0.05)

    def _given_up(self) -> EngineError:
        """Tasks begin in order: of those on a worker the first was at work."""
        watch = self.engine.watch
        if watch is None or not self._suspects:
            return EngineError(
                f"dask: workers died {TRIES} times with all that was sent to them. Look at their logs. {REMEDY}"
            )
        last = shown(self._last, watch.name_of(self._last))
        return EngineError(
            f"dask: workers died {TRIES} times, the last one {last}, at "
            f"{show_task(self.plan, min(self._suspects), self.n_tasks)}, {watch.cause(self._last)}; "
            f"{show_allowed(self.plan, self.engine.host.base)}. {REMEDY}"
        )
