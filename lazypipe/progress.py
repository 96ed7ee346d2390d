"""Events of a run, and who listens: kernels are silent, engines emit, the driver shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lazypipe.blocks import Run


@dataclass(frozen=True)
class StageStarted:
    """A stage (a pass over the data, a conversion) begins: ``n_tasks`` tasks, ``n_bytes`` to read."""

    title: str
    n_tasks: int
    n_bytes: int = 0
    passes_left: int | None = None  # passes expected after this one, where that is known


@dataclass(frozen=True)
class TaskDone:
    """One more task of the stage is done; ``share`` (0 to 1) of the work where tasks are known to be unequal."""

    n_done: int
    n_tasks: int
    share: float | None = None


@dataclass(frozen=True)
class StageDone:
    """The stage is over."""

    title: str
    seconds: float


@dataclass(frozen=True)
class PassDone:
    """An iterative method has judged its state after pass ``index`` (from 1)."""

    index: int
    residual: float  # largest relative residual of the wanted components
    explained_variance: tuple[float, ...] = field(default=())


Event = StageStarted | TaskDone | StageDone | PassDone
Listener = Callable[[Event], None]


class Shares:
    """Tells the share of a stage's work that is done: each task is as long as its run; None where tasks have none."""

    def __init__(self, runs: Sequence[Run], n_tasks: int):
        self._lengths = [run.stop - run.start for run in runs] if len(runs) == n_tasks else []
        self._all, self._done = sum(self._lengths), 0

    def add(self, index: int) -> float | None:
        """The share once the task at ``index`` is done, too."""
        if not self._all:
            return None
        self._done += self._lengths[index]
        return self._done / self._all


class Progress:
    """Hands each event to every listener."""

    def __init__(self, listeners: tuple[Listener, ...] = ()):
        self.listeners = list(listeners)

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
