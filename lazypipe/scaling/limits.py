"""Where more workers stop to help, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple

from lazypipe.scaling.prediction import Pass, Prediction, Seconds, depth_of
from lazypipe.scaling.words import show_seconds
from lazypipe.sizes import show_bytes

WORTH = 1.3  # times as fast: less, and twice the workers are not worth it
AHEAD = 3  # doublings that are looked at: a plan may be cut another way for more workers
MOST_WORKERS = 2**20


class Stop(NamedTuple):
    """The number of workers beyond which another doubling gains ``gain`` times, and the reason."""

    workers: int
    gain: float
    reason: str


def where_it_stops(predicted: Callable[[int], Prediction]) -> Stop | None:
    """The least power of two of workers that is not worth doubling once or more; None where a million are."""
    predicted = cache(predicted)
    workers = 1
    while workers < MOST_WORKERS:
        now = predicted(workers)
        gains = [now.seconds.total / predicted(workers * 2**n).seconds.total for n in range(1, AHEAD + 1)]
        if all(gain < WORTH**n for n, gain in enumerate(gains, 1)):
            return Stop(workers, gains[0], _reason(now, predicted(2 * workers)))
        workers *= 2
    return None


@dataclass(frozen=True)
class _Excess:
    """Seconds of a part of a pass that twice the workers do not halve."""

    part: str
    seconds: float
    after: Pass


def _reason(now: Prediction, doubled: Prediction) -> str:
    excesses = [
        _Excess(part.name, _of(after, part.name) - _of(before, part.name) / 2, after)
        for before, after in zip(now.passes, doubled.passes, strict=True)
        for part in fields(Seconds)
    ]
    return _told(max(excesses, key=lambda one: one.seconds), 2 * now.workers)


def _of(one: Pass, part: str) -> float:
    return one.fold.work.times * float(getattr(one.seconds, part))


def _told(excess: _Excess, workers: int) -> str:
    """Why that part does not shrink."""
    one, fold = excess.after, excess.after.fold
    n_runs, title = len(fold.runs), f'"{fold.title}"'
    if excess.part == "driver":
        return f"the driver takes {show_seconds(one.seconds.driver)} after each {title}, alone"
    if excess.part == "broadcasting":
        return f"{show_bytes(fold.work.sent_nbytes)} are sent to every worker before each {title}"
    if excess.part == "scheduling":
        return f"the scheduler takes {show_seconds(one.seconds.scheduling)} to hand out the {n_runs:,} tasks of {title}"
    if excess.part == "reducing":
        return (
            f"states of {show_bytes(fold.state_nbytes)} merge {depth_of(n_runs)} levels deep after the last task of "
            f"{title}"
        )
    if excess.part in ("reading", "writing") and one.storage_is_full:
        return f"the storage that all workers share is as busy as it can be in {title}"
    if n_runs > 1 and fold.runs[0].start == fold.runs[-1].start:
        return f"each of the {n_runs:,} tasks of {title} reads all of the data"
    return f"{title} has {n_runs:,} tasks for {workers:,} workers"
