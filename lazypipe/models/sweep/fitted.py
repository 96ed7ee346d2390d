"""What a model hands back of one prefix: the cells of all its strengths, and how they decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lazypipe.models.sweep.rows import Prefix

if TYPE_CHECKING:
    from lazypipe.nets.stack import Stack  # torch with it


@dataclass
class Outcome:
    """One strength, fitted. ``objective``: mean loss + ‖W‖² / (2 C size), the intercept not penalised."""

    strength: float
    objective: float | None = None
    gap: float | None = None  # (objective - optimum) / objective, an estimate; None: unknown
    passes: int = 0
    converged: bool | None = None
    failed: str = ""  # why, where it did
    note: str = ""


@dataclass
class Fitted:
    """All strengths of one prefix.

    ``decide`` turns rows (n, D), prepared as those of the prefix, into what each strength says of them
    (n, n_strengths): positions among the classes of the prefix, int; in a regression predictions, float64.
    ``planes`` gives (coef (outputs, D), intercept (outputs,)) of one strength, of prepared rows; None where the
    model is none.
    """

    outcomes: Sequence[Outcome]
    decide: Callable[[np.ndarray], np.ndarray]
    planes: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Options:
    """What the models other than the exact ones ask for. Steps: ``epochs`` readings, ``least_steps`` at least."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (1024,)
    momentum: float = 0.9  # of deep and dbn
    pretrained: Stack | None = None
    least_steps: int = 1000
    max_passes: int = 1000  # of the exact solver
    tol: float = 5e-7  # of its Newton decrement, relative to the objective

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden units of deep and dbn, which are to be compared: those of the stack, if there is one."""
        return self.hidden if self.pretrained is None else self.pretrained.units[1:]

    @property
    def stack(self) -> str | None:
        """What tells the stack from others."""
        return None if self.pretrained is None else self.pretrained.digest

    def units(self, model: str) -> tuple[int, ...]:
        """Hidden units of a model."""
        return {"mlp": self.hidden, "deep": self.layers, "dbn": self.layers}.get(model, ())


class Model(Protocol):
    """One file a model: a function, and what it needs."""

    def fit(
        self,
        prefix: Prefix,
        targets: np.ndarray,
        n_classes: int,
        strengths: Sequence[float],
        options: Options,
        seed: int,
    ) -> Fitted:
        """Fit all strengths to the rows of ``prefix``.

        ``targets`` (size,): numbers 0 to n_classes - 1, all of which occur, or float64 values where n_classes is 0.
        ``seed`` is of the random numbers that this prefix is given.
        """

    def nbytes(self, size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
        """Memory of a fit at most, the rows that are held and one block not included."""
