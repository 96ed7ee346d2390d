"""Mean and variance of every column, merged as Chan, Golub and LeVeque do.

T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979: with ``d = mean_b - mean_a`` and ``n = n_a + n_b``,
``mean = mean_a + d n_b / n`` and ``m2 = m2_a + m2_b + d² n_a n_b / n``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block
from lazypipe.stats.base import Axis, require_finite


class MomentsState(NamedTuple):
    n: int
    mean: np.ndarray  # (n_columns,) float64
    m2: np.ndarray  # (n_columns,) float64, sum of squared deviations from the mean


class ColumnMoments(NamedTuple):
    n_rows: int
    mean: np.ndarray  # (n_columns,)
    variance: np.ndarray  # (n_columns,)


@dataclass(frozen=True)
class Moments:
    """Mean and variance (dividing by ``n - ddof``) of every column, in one pass over row blocks."""

    ddof: int = 1
    axis: ClassVar[Axis] = "rows"

    def measure(self, block: Block) -> MomentsState:
        values = block.values
        n = len(values)
        mean = values.sum(axis=0, dtype=np.float64) / n
        require_finite(mean, block)
        centre = mean.astype(values.dtype)
        np.subtract(values, centre, out=values)
        rest = mean - centre  # what rounding the mean to the data's dtype left out
        m2 = np.einsum("ij,ij->j", values, values, dtype=np.float64) - n * rest**2
        return MomentsState(n, mean, m2)

    def merge(self, left: MomentsState, right: MomentsState) -> MomentsState:
        n = left.n + right.n
        delta = right.mean - left.mean
        mean = left.mean + delta * (right.n / n)
        m2 = left.m2 + right.m2 + delta**2 * (left.n * right.n / n)
        return MomentsState(n, mean, m2)

    def finish(self, total: MomentsState) -> ColumnMoments:
        return ColumnMoments(total.n, total.mean, np.maximum(total.m2, 0) / (total.n - self.ddof))

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 16 * n_columns

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return 6 * 8 * n_columns + 2**20  # einsum and sum cast through small buffers
