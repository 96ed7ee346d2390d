"""How the learning rate goes down during training: factors of it by the share of the steps that are done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazypipe.checks import from_0, named

INVERSE_FALL = 9.0  # so that "inverse" ends at a tenth


def _constant(progress: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return min(1.0, 2.0 * (1.0 - progress))


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _step(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _inverse(progress: float) -> float:
    return 1.0 / (1.0 + INVERSE_FALL * progress)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,  # constant for the first half, then to 0
    "cosine": _cosine,  # to 0; Loshchilov & Hutter 2017, SGDR, without restarts
    "step": _step,  # a tenth from half on, a hundredth from three quarters on
    "inverse": _inverse,  # 1 / (1 + 9 progress): the 1 / t of Robbins & Monro 1951, to a tenth
}


@dataclass(frozen=True)
class Schedule:
    """The factor, 0 to 1, of the learning rate at a ``progress`` from 0 (no step done) to 1 (all done).

    ``warmup`` is the share of all steps over which the factor rises in a straight line from 0 to 1 (Goyal et al. 2017);
    the schedule is then of the steps that remain. Progress beyond 0 to 1 counts as its nearest end.
    Raises ConfigError for an unknown name, or a warmup that is not from 0 to below 1.
    """

    name: str = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        named("schedule", self.name, SCHEDULES)
        from_0(self.warmup, "warmup", below=1.0)

    def __call__(self, progress: float) -> float:
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return progress / self.warmup
        return SCHEDULES[self.name]((progress - self.warmup) / (1.0 - self.warmup))
