"""Events of a run, and who listens: kernels are silent, engines emit, the driver shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lazypipe.blocks import Run


@dataclass(frozen=True)
class StageStarted:
    """A stage (a pass over the data, a conversion) begins: ``n_tasks`` tasks, ``n_bytes`` to read."""

    title: str
    n_tasks: int
    n_bytes: int = 0


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


@dataclass(frozen=True)
class StepsDone:
    """A network in training, after ``step`` steps: means since the last such event, and how fast it goes.

    ``stage`` is empty where training has one part only.
    """

    stage: str
    step: int
    measures: Mapping[str, float]


@dataclass(frozen=True)
class EpochDone:
    """All rows have been seen once more, ``epoch`` times of ``n_epochs`` so far: means over them."""

    stage: str
    epoch: int
    n_epochs: int
    step: int
    measures: Mapping[str, float]


@dataclass(frozen=True)
class WorkerSaid:
    """A line that a worker of a cluster logged, or what the engine found out about it ("lost", "came back").

    ``level`` is that of ``logging``.
    """

    worker: str
    level: int
    text: str


Event = StageStarted | TaskDone | StageDone | PassDone | StepsDone | EpochDone | WorkerSaid
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
    """Hands each event to every listener, one after another: those of workers come in a thread of their own."""

    def __init__(self, listeners: tuple[Listener, ...] = ()):
        self.listeners = list(listeners)
        self._turn = threading.RLock()

    def emit(self, event: Event) -> None:
        with self._turn:
            for listener in self.listeners:
                listener(event)
