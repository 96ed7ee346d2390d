"""Weight, mean and variance of every column, merged as Chan, Golub and LeVeque do.

T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979: with ``d = mean_b - mean_a`` and ``n = n_a + n_b``,
``mean = mean_a + d n_b / n`` and ``m2 = m2_a + m2_b + d² n_a n_b / n``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from lazypipe.blocks import Block, is_sparse
from lazypipe.operations import Operations
from lazypipe.stats.base import Axis, require_alleles, require_finite, rows_with_nan

NanPolicy = Literal["raise", "omit", "mean"]


class MomentsState(NamedTuple):
    """What some rows tell of the columns."""

    weight: float  # of the rows
    present: np.ndarray  # () or (n_columns,): weight of the entries that are there
    mean: np.ndarray  # (n_columns,) float64
    m2: np.ndarray  # (n_columns,) float64, weighted sum of squared deviations from the mean
    omitted: np.ndarray  # int64, rows left out


class ColumnMoments(NamedTuple):
    """What all rows tell of the columns; ``weight``, ``present`` and ``omitted`` as in the state."""

    weight: float
    present: np.ndarray
    mean: np.ndarray  # (n_columns,)
    variance: np.ndarray  # (n_columns,), of the column with its gaps filled by the mean
    omitted: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Mean and variance (dividing by ``weight - ddof``) of every column, in one pass over row blocks.

    A row of weight 2 counts as two rows. ``nan`` says what a NaN is: an error ("raise"), a reason to
    leave its row out ("omit"), or a gap that the mean of its column fills ("mean").
    """

    ddof: int = 1
    weights: np.ndarray | None = None  # (n_rows,)
    nan: NanPolicy = "raise"
    alleles: bool = False  # whether entries have to be allele counts
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = MomentsState

    def measure(self, block: Block) -> MomentsState:
        if self.alleles:
            require_alleles(block)
        values = block.values
        weights = None if self.weights is None else self.weights[block.rows.slice]
        omitted = np.zeros(0, np.int64)
        if self.nan == "omit":
            bad = rows_with_nan(values)
            if bad.any():
                omitted = block.rows.start + np.flatnonzero(bad)
                values = values[~bad]
                weights = None if weights is None else weights[~bad]
        weight = float(values.shape[0] if weights is None else weights.sum())
        sums = self._sparse if is_sparse(values) else self._dense
        count, mean, m2 = sums(values, weights, weight, block)
        return MomentsState(weight, count, mean, m2, omitted)

    def _dense(self, values: np.ndarray, weights: np.ndarray | None, weight: float, block: Block) -> Any:
        gaps = np.isnan(values) if self.nan == "mean" else None
        count: Any = np.float64(weight)
        if gaps is not None:
            values[gaps] = 0
            count = (~gaps).sum(axis=0, dtype=np.float64) if weights is None else weights @ ~gaps
        if weights is None:
            total = values.sum(axis=0, dtype=np.float64)
        else:
            total = np.einsum("i,ij->j", weights, values, dtype=np.float64)
        require_finite(total, block, nan_allowed=self.nan != "raise")
        mean = total / np.where(count > 0, count, 1)
        centre = mean.astype(values.dtype)
        np.subtract(values, centre, out=values)
        if gaps is not None:
            values[gaps] = 0
        rest = mean - centre  # what rounding the mean to the data's dtype left out
        if weights is None:
            m2 = np.einsum("ij,ij->j", values, values, dtype=np.float64)
        else:
            m2 = np.einsum("i,ij,ij->j", weights, values, values, dtype=np.float64)
        return count, mean, m2 - count * rest**2

    def _sparse(self, values: Any, weights: np.ndarray | None, weight: float, block: Block) -> Any:
        n_columns = values.shape[1]
        entries = values.data.astype(np.float64)
        each = np.ones(len(entries)) if weights is None else np.repeat(weights, np.diff(values.indptr))
        count: Any = np.float64(weight)
        if self.nan == "mean":
            gaps = np.isnan(entries)
            count = weight - np.bincount(values.indices[gaps], each[gaps], n_columns)
            entries[gaps] = 0
        total = np.bincount(values.indices, each * entries, n_columns)
        require_finite(total, block, nan_allowed=self.nan != "raise")
        mean = total / np.where(count > 0, count, 1)
        squares = np.bincount(values.indices, each * entries**2, n_columns)
        return count, mean, np.maximum(squares - count * mean**2, 0)

    def merge(self, left: MomentsState, right: MomentsState) -> MomentsState:
        count = left.present + right.present
        share = right.present / np.where(count > 0, count, 1)
        delta = right.mean - left.mean
        mean = left.mean + delta * share
        m2 = left.m2 + right.m2 + delta**2 * (left.present * share)
        omitted = np.concatenate([left.omitted, right.omitted])
        return MomentsState(left.weight + right.weight, count, mean, m2, omitted)

    def finish(self, total: MomentsState) -> ColumnMoments:
        degrees = (total.weight - self.ddof) or 1  # the models refuse what has too few rows
        variance = np.maximum(total.m2, 0) / degrees
        return ColumnMoments(total.weight, total.present, total.mean, variance, total.omitted)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return (24 if self.nan == "mean" else 16) * n_columns

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        # einsum and sum cast through small buffers; NaN are found by a mask, and rows omitted by a copy.
        masks = 0 if self.nan == "raise" else n_rows * n_columns * (1 + (itemsize if self.nan == "omit" else 1))
        return 8 * 8 * n_columns + 2**20 + masks

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return Operations(memory=8.0 * n_rows * n_columns)  # each entry cast and summed twice
