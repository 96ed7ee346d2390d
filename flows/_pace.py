"""How far a job is, from its events: the share that is done, and a line that says it."""

from __future__ import annotations

import time
from collections.abc import Callable

from lazypipe.console import clock
from lazypipe.progress import EpochDone, Event, PassDone, StageStarted, StepsDone, TaskDone


class Pace:
    """Call it with the events of a job; ``percent`` and ``text`` tell how far it is.

    The share is that of the passes where ``passes`` are expected, of the epochs in training, else of the stage. The
    time left is what all of it takes at the pace so far.
    """

    def __init__(self, passes: int | None = None, now: Callable[[], float] = time.monotonic):
        self.passes = passes
        self._now = now
        self._begun = now()
        self._title, self._tasks, self._residual = "", "", ""
        self._share = self._first = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._title, self._tasks = event.title, ""
            if not self._index():
                self._start_over()
            self._set(0.0)
        elif isinstance(event, TaskDone):
            self._tasks = f"{event.n_done:,} of {event.n_tasks:,} tasks"
            self._set(event.n_done / max(1, event.n_tasks) if event.share is None else event.share)
        elif isinstance(event, PassDone):
            self._residual = f"residual {event.residual:.1e}"
        elif isinstance(event, EpochDone):
            told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in _shown(event))
            self._title, self._tasks = f"{event.stage} epoch {event.epoch:,} of {event.n_epochs:,}".strip(), told
            self._share = event.epoch / max(1, event.n_epochs)
        elif isinstance(event, StepsDone):
            self._tasks = f"step {event.step:,}"

    @property
    def percent(self) -> float:
        """Below 100 as long as the job goes on, as more passes may be needed than were expected."""
        return round(min(99.0, 100 * self._share), 1)

    @property
    def text(self) -> str:
        """Which pass, its residual, the time left."""
        of = f" of about {self.passes}" if self._index() and self.passes else ""
        return ", ".join(part for part in (self._title + of, self._tasks, self._residual, self._left()) if part)

    def done(self) -> str:
        """The last line."""
        return ", ".join(part for part in (f"done in {clock(self._now() - self._begun)}", self._residual) if part)

    def _index(self) -> int:
        """Of a stage called ``pass i``; else 0."""
        word, _, index = self._title.partition(" ")
        return int(index) if word == "pass" and index.isdigit() else 0

    def _set(self, share: float) -> None:
        index = self._index()
        if index and self.passes:
            self._share = (index - 1 + share) / max(index, self.passes)
            self._first = self._first or (index - 1) / self.passes  # a run that goes on from its state
        else:
            self._share = share

    def _start_over(self) -> None:
        self._begun, self._first = self._now(), 0.0

    def _left(self) -> str:
        done = self._share - self._first
        if done <= 0 or self._share >= 1:
            return ""
        return f"about {clock((self._now() - self._begun) / done * (1 - self._share))} left"


def _shown(event: EpochDone) -> list[tuple[str, float]]:
    names = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
    return [(name, event.measures[name]) for name in names if name in event.measures]
