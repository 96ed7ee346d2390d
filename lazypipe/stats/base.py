"""The three verbs of a statistic, and the check that its sums are finite."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from scipy.sparse import issparse

from lazypipe.blocks import Block, Span
from lazypipe.errors import DataError

Axis = Literal["rows", "columns"]


class Statistic(Protocol):
    """One statistic of a matrix, summed over blocks of rows or of columns."""

    @property
    def axis(self) -> Axis: ...

    State: ClassVar[type]  # of what ``measure`` gives: an array, or a NamedTuple of arrays and numbers

    def measure(self, block: Block) -> Any:
        """The state of one block; may overwrite ``block.values``."""

    def merge(self, left: Any, right: Any) -> Any:
        """The state of both; may reuse the memory of ``left``, never that of ``right``."""

    def finish(self, total: Any) -> Any:
        """The answer, from the state of the whole matrix; may reuse its memory."""

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Bytes of one state of a matrix of that shape."""

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """Bytes ``measure`` takes beside a block of that shape, its result included."""


def accumulate(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left + right`` in float64, in the memory of ``left`` where that is float64 already."""
    if left.dtype != np.float64:
        left = left.astype(np.float64)
    left += right
    return left


MIN_SLAB = 256  # rows of one float32 product: errors grow with its root, adding it in float64 costs


def product_with_itself(rows: np.ndarray) -> np.ndarray:
    """``rowsᵀ rows``: one product where the rows are few, else a float64 sum of products of slabs."""
    n = max(1, round(len(rows) / max(MIN_SLAB, 2 * rows.shape[1])))
    edges = [i * len(rows) // n for i in range(n + 1)]
    first, *others = (rows[a:b] for a, b in pairwise(edges))
    product = np.matmul(first.T, first)  # NumPy sees the transpose and calls syrk
    for part in others:
        product = accumulate(product, np.matmul(part.T, part))
    return product


def require_no_infinity(sums: np.ndarray, block: Block) -> None:
    """Raise DataError if the sums (n_rows, ...) of the rows of ``block`` are not finite for want of NaN in them."""
    wrong = np.flatnonzero(~np.isfinite(sums).reshape(len(sums), -1).all(axis=1))
    if not len(wrong):
        return
    values = block.values
    for i in wrong:
        row = values[[i]].data if issparse(values) else values[i]
        if not np.isnan(row).any() or np.isinf(row).any():
            part = values[[i]] if issparse(values) else np.where(np.isnan(row), 0, row)[np.newaxis]
            start = int(block.rows.start + i)
            require_finite(sums[i], Block(part, Span(start, start + 1), block.columns, block.uri))


def require_within(limits: tuple[float, float] | None, block: Block) -> None:
    """Raise DataError, naming the first, where entries lie outside of ``limits``; NaN is no entry."""
    if limits is None:
        return
    low, high = limits
    entries = block.values.data if issparse(block.values) else block.values
    # The extremes make no mask of the block's size; fmin and fmax pass over NaN.
    if not entries.size or not (np.fmin.reduce(entries, axis=None) < low or np.fmax.reduce(entries, axis=None) > high):
        return
    values = block.values.tocoo() if issparse(block.values) else block.values
    if issparse(values):
        at = int(np.flatnonzero((values.data < low) | (values.data > high))[0])
        i, j, value = values.row[at], values.col[at], values.data[at]
    else:
        i, j = np.argwhere((values < low) | (values > high))[0]
        value = values[i, j]
    raise DataError(
        f"{block.uri}: {value:g} at row {block.rows.start + i:,}, column {block.columns.start + j:,} counts no "
        f"alleles (0, 1, 2). Recode it (a missing one as NaN, with nan='mean'), or use scale=True (--scale unit)."
    )


def require_finite(sums: np.ndarray, block: Block) -> None:
    """Raise DataError if the sums over ``block`` are not finite, naming the first value at fault.

    A NaN or an infinity in a block makes the sums that it enters NaN or infinite, so looking at the
    sums costs nothing; the block itself is searched only once they tell of trouble.
    """
    if np.isfinite(sums).all():
        return
    values = block.values
    if issparse(values):
        at = np.flatnonzero(~np.isfinite(values.data))
        rows = np.searchsorted(values.indptr, at[:1], side="right") - 1
        found = np.column_stack([np.resize(rows, len(at)), values.indices[at]])
    else:
        found = np.argwhere(~np.isfinite(values))
    if len(found) == 0:
        raise DataError(
            f"{block.uri}: values so large that their products overflow {values.dtype} near row "
            f"{block.rows.start:,}, column {block.columns.start:,}. Divide the data by a constant first."
        )
    i, j = found[0]
    missing = np.isnan(values.data[at[0]] if issparse(values) else values[i, j])
    raise DataError(
        f"{block.uri}: {'NaN' if missing else 'infinity'} at row {block.rows.start + i:,}, column "
        f"{block.columns.start + j:,} (first of {len(found):,} in its block). "
        + (
            "Leave such rows out or fill them: PCA and covariance do with nan='omit' or 'mean' (--nan)."
            if missing
            else "Remove it."
        )
    )
