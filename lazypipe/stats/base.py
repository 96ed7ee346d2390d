"""The three verbs of a statistic, and the check that its sums are finite."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from lazypipe.blocks import Block, Reads, Span, is_sparse
from lazypipe.errors import DataError

Axis = Literal["rows", "columns"]
AnyArrays = TypeVar("AnyArrays", bound=tuple[np.ndarray, ...])


class Statistic(Protocol):
    """One statistic of a matrix, summed over blocks of rows or of columns.

    It may also say what its arithmetic is, so that a plan can tell how long it takes: ``operations(n_rows,
    n_columns, itemsize)`` gives the ``lazypipe.operations.Operations`` of ``measure`` for a block of that shape.
    """

    @property
    def axis(self) -> Axis:
        """Whether blocks are of whole rows or of whole columns."""

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


class Windowed(Statistic, Protocol):
    """A statistic of windows of rows. Its blocks have halos, and its state, which is large, is one a run."""

    @property
    def reads(self) -> Reads:
        """How it wants its blocks."""

    def wants(self, rows: Span) -> bool:
        """Whether any window belongs to those rows: else they need not be read."""

    def empty(self) -> Any:
        """The state of no window."""

    def add(self, total: Any, block: Block) -> Any:
        """``total`` and the windows of a block, in the memory of ``total``."""


def accumulate(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left + right`` in float64, in the memory of ``left`` where that is float64 already."""
    if left.dtype != np.float64:
        left = left.astype(np.float64)
    left += right
    return left


def add_each(left: AnyArrays, right: AnyArrays) -> AnyArrays:
    """``left + right``, array by array, in the memory of ``left``."""
    for mine, other in zip(left, right, strict=True):
        np.add(mine, other, out=mine)
    return left


def mirror(square: np.ndarray) -> None:
    """Make a square matrix symmetric to the bit, in its own memory, from its upper triangle."""
    step = 512
    for a in range(0, len(square), step):
        for b in range(a, len(square), step):
            part = square[a : a + step, b : b + step]
            if a == b:
                part[:] = np.triu(part) + np.triu(part, 1).T
            else:
                square[b : b + step, a : a + step] = part.T


ALLELES = (-1e-3, 2 + 1e-3)  # allele counts, and the rounding of imputed ones
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


def require_finite(sums: np.ndarray, block: Block, nan_allowed: bool = False) -> None:
    """Raise DataError if the sums over ``block`` are not finite, naming the first value at fault.

    A NaN or an infinity in a block makes the sums that it enters NaN or infinite, so looking at the
    sums costs nothing; the block itself is searched only once they tell of trouble. ``nan_allowed`` where
    NaN may be in the block and is in no sum: an infinity is then at fault.
    """
    if not np.isfinite(sums).all():
        _refuse(block, np.isinf if nan_allowed else lambda entries: ~np.isfinite(entries))


def require_no_infinity(sums: np.ndarray, block: Block) -> None:
    """The same for sums (n_rows, ...) of each row, but rows that hold NaN may have NaN for a sum."""
    wrong = ~np.isfinite(sums).reshape(len(sums), -1).all(axis=1)
    if wrong.any() and (np.isinf(_entries(block)).any() or (wrong & ~rows_with_nan(block.values)).any()):
        _refuse(block, np.isinf)


def require_alleles(block: Block) -> None:
    """Raise DataError, naming the first, where entries are no allele counts; NaN is no entry."""
    entries, (low, high) = _entries(block), ALLELES
    # The extremes make no mask of the block's size; fmin and fmax pass over NaN.
    if not entries.size or (np.fmin.reduce(entries, axis=None) >= low and np.fmax.reduce(entries, axis=None) <= high):
        return
    found = _first(block, lambda entries: (entries < low) | (entries > high))
    if found is not None:  # None: nothing but NaN
        raise DataError(
            f"{block.uri}: {found.value:g} at {found.place} counts no alleles (0, 1, 2). Recode it (a missing one "
            f"as NaN, with nan='mean'), or use scale=True (--scale unit)."
        )


def rows_with_nan(values: Any) -> np.ndarray:
    """Which rows (n_rows,) of a dense or CSR block hold a NaN."""
    if not is_sparse(values):
        return np.isnan(values).any(axis=1)
    bad = np.zeros(values.shape[0], bool)
    bad[np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))[np.isnan(values.data)]] = True
    return bad


class Found(NamedTuple):
    """The first entry of a block that is not as it should be."""

    place: str
    value: float
    n_found: int  # of all that were looked for, in the block


def _entries(block: Block) -> np.ndarray:
    return block.values.data if is_sparse(block.values) else block.values


def _first(block: Block, is_wrong: Callable[[np.ndarray], np.ndarray]) -> Found | None:
    """The first entry of a dense or CSR block that is wrong."""
    values = block.values
    at = np.argwhere(is_wrong(_entries(block)))  # of a CSR block, among its stored entries
    if len(at) == 0:
        return None
    if is_sparse(values):
        entry = at[0, 0]
        i, j = np.searchsorted(values.indptr, entry, side="right") - 1, values.indices[entry]
        value = values.data[entry]
    else:
        i, j = at[0]
        value = values[i, j]
    return Found(f"row {block.rows.start + i:,}, column {block.columns.start + j:,}", float(value), len(at))


def _refuse(block: Block, is_wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raise DataError for sums that are not finite: for the first entry at fault, or an overflow."""
    found = _first(block, is_wrong)
    if found is None:
        raise DataError(
            f"{block.uri}: values so large that their products overflow {block.values.dtype} near row "
            f"{block.rows.start:,}, column {block.columns.start:,}. Divide the data by a constant first."
        )
    missing = np.isnan(found.value)
    raise DataError(
        f"{block.uri}: {'NaN' if missing else 'infinity'} at {found.place} (first of {found.n_found:,} in its block). "
        + (
            "Leave such rows out or fill them: PCA and covariance do with nan='omit' or 'mean' (--nan)."
            if missing
            else "Remove it."
        )
    )
