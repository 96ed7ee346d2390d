"""How far a linear model is from its target: residual and total squares, one pass over row blocks.

Summed from the residuals themselves, in float64: ``1 - R²`` keeps its digits where the difference of
two large sums of squares would lose them. The squares about the mean merge as in ``moments``
(T. F. Chan, G. H. Golub, R. J. LeVeque, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block
from lazypipe.operations import Operations
from lazypipe.stats.base import Axis, require_finite

SLAB = 256  # rows cast to float64 at a time


class Squares(NamedTuple):
    """State and answer: ``residual`` = Σ (y - prediction)², ``total`` = Σ (y - mean)², float64."""

    n_rows: int
    residual: float
    mean: float
    total: float

    @property
    def r2(self) -> float:
        """1 - residual / total; NaN for a target without variance."""
        return 1 - self.residual / self.total if self.total > 0 else float("nan")


@dataclass(frozen=True)
class ResidualSquares:
    """Residual and total squares of ``y ≈ x @ coef + intercept`` on rows that hold x and y.

    ``coef`` (n_columns - 1,); ``target`` is the column of y, the last one unless it is given.
    """

    coef: np.ndarray
    intercept: float
    target: int = -1
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = Squares

    def measure(self, block: Block) -> Squares:
        values = block.values
        target = self.target % values.shape[1]
        weights = np.insert(np.asarray(self.coef, np.float64), target, 0.0)
        y = values[:, target].astype(np.float64)
        residual = y - self.intercept
        for start in range(0, len(values), SLAB):
            part = slice(start, start + SLAB)
            residual[part] -= values[part].astype(np.float64) @ weights
        mean = float(y.mean())
        y -= mean
        found = Squares(len(y), float(residual @ residual), mean, float(y @ y))
        require_finite(np.array([found.residual, found.total]), block)
        return found

    def merge(self, left: Squares, right: Squares) -> Squares:
        n = left.n_rows + right.n_rows
        delta = right.mean - left.mean
        return Squares(
            n,
            left.residual + right.residual,
            left.mean + delta * (right.n_rows / n),
            left.total + right.total + delta**2 * (left.n_rows * right.n_rows / n),
        )

    def finish(self, total: Squares) -> Squares:
        return total

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 1024  # four numbers, and the objects that they are in

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return 8 * (2 * min(SLAB, n_rows) * n_columns + 3 * n_rows + 2 * n_columns)

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return Operations(memory=8.0 * n_rows * n_columns)  # each entry cast, and read once more
