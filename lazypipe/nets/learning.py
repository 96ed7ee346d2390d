"""What is trained, how, and what a training leaves: the words that the training loop and its callers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lazypipe.nets.parameters import Parameters
from lazypipe.nets.schedules import Schedule

History = list[dict[str, Any]]


class Learner(Protocol):
    """A network, and how it learns from rows. Random numbers are those of ``random``, a generator on the device."""

    random: torch.Generator
    measures: tuple[str, ...]  # what learn gives, the loss first
    judgements: tuple[str, ...]  # what judge gives

    @property
    def parameters(self) -> Parameters: ...

    def learn(self, rows: Tensor, targets: Tensor | None, n_batch: int, first: bool) -> Tensor:
        """Write (first) or add these rows' share of the gradient of a batch of ``n_batch``.

        The sums over the rows of the measures, (len(measures),) on the device, without waiting for it.
        """

    def judge(self, rows: Tensor, targets: Tensor | None) -> Tensor:
        """The sums over the rows of the judgements; nothing is learnt."""

    def tensors(self) -> dict[str, Tensor]:
        """What it keeps from step to step beside the parameters; to be checkpointed, and filled again in place."""

    def release(self) -> None:
        """Let go of memory kept between steps."""


@runtime_checkable
class Differentiable(Protocol):
    """A learner that the curvature term can be taken of."""

    def function(self) -> Callable[[Tensor, Tensor], Tensor]:
        """(vector, rows) to outputs, in operations that can be differentiated twice."""


@dataclass(frozen=True)
class Course:
    """How to train: everything but the network, the optimizer and the data."""

    epochs: int
    rate: float
    schedule: Schedule
    l2: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None  # epochs without a better judgement, after which training stops
    judged_by: str | None = None  # a judgement, to choose the best epoch by; None: none is chosen
    higher_is_better: bool = False
    curvature: float = 0.0  # β of the curvature term
    curvature_exact: bool = False
    checkpoint_steps: int | None = None  # beside those at the end of every epoch


@dataclass
class Trained:
    """What a training left: parameters (P,) of the last step and of the best epoch, and the history."""

    last: Tensor
    best: Tensor | None
    best_epoch: int | None  # from 1
    history: History
    n_steps: int
    stopped_early: bool
    notes: list[str] = field(default_factory=list)
