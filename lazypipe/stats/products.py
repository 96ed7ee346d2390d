"""Products of the centred second moment with a basis, never forming it: one pass each.

On the long side (row blocks) ``Xcᵀ Xc B`` for a basis B (n_columns, p); on the short side (column
stripes) ``Xc Xcᵀ U`` for a basis U (n_rows, p), where ``Xc`` is X with its column means taken off.
Both multiply in the data's dtype and sum in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block, Span
from lazypipe.stats.base import Axis, accumulate, require_finite
from lazypipe.stats.provisional import coarse

TILE_NBYTES = 2 * 2**20
HEAD_ROWS = 16
LARGE_MEAN = 8.0  # in standard deviations: beyond it a mean costs digits in float32 products


def tiles(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Column tiles of a stripe that stay in the cache between the two products that use them."""
    width = max(16, TILE_NBYTES // (len(values) * values.itemsize))
    for start in range(0, values.shape[1], width):
        at = slice(start, min(start + width, values.shape[1]))
        yield at, values[:, at]


def head_shift(values: np.ndarray) -> np.ndarray:
    """About the mean of the first rows of every column (n_columns,)."""
    head = values[:HEAD_ROWS]
    return coarse(head.mean(axis=0), head.std(axis=0)).astype(values.dtype)


def large_head_shift(values: np.ndarray) -> np.ndarray | None:
    """``head_shift`` where a mean is large, else None.

    Columns are centred exactly elsewhere, by a basis whose columns sum to zero; taking this off first
    keeps a mean far from zero from eating the digits of float32 products.
    """
    head = values[:HEAD_ROWS]
    largest = np.abs(head.mean(axis=0))
    return head_shift(values) if (largest > LARGE_MEAN * head.std(axis=0)).any() else None


@dataclass(frozen=True)
class RowProduct:
    """``Xcᵀ Xc B`` (n_columns, p), over row blocks.

    ``mean`` (n_columns,) is the exact mean of the columns, ``centre`` the same in the dtype of the
    blocks, ``basis`` is B; ``n_rows`` counts the rows of the whole matrix.
    """

    mean: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    n_rows: int
    axis: ClassVar[Axis] = "rows"

    def measure(self, block: Block) -> np.ndarray:
        values = block.values
        np.subtract(values, self.centre, out=values)
        product = values.T @ (values @ self.basis.astype(values.dtype, copy=False))
        require_finite(product, block)
        return product

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return accumulate(left, right)

    def finish(self, total: np.ndarray) -> np.ndarray:
        total = total.astype(np.float64, copy=False)
        rest = self.mean - self.centre  # what rounding the mean left in every block
        total -= np.outer(self.n_rows * rest, rest @ self.basis)
        return total

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_columns * self.basis.shape[1]

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        p = self.basis.shape[1]
        return itemsize * (2 * n_columns * p + n_rows * p)


class ColumnProductState(NamedTuple):
    product: np.ndarray  # (n_rows, p)
    squares: float  # sum of squares of the centred entries; 0 where not asked for


@dataclass(frozen=True)
class ColumnProduct:
    """``Xc Xcᵀ U`` (n_rows, p), over column stripes, and on demand the total sum of squares.

    ``basis`` is U, whose columns sum to zero: that is what centres the columns of X.
    """

    basis: np.ndarray
    with_squares: bool = False
    axis: ClassVar[Axis] = "columns"

    def measure(self, block: Block) -> ColumnProductState:
        basis = self.basis.astype(block.values.dtype, copy=False)
        shift = large_head_shift(block.values)
        product = np.zeros(basis.shape)
        squares = 0.0
        for at, values in tiles(block.values):
            if shift is not None:
                np.subtract(values, shift[at], out=values)
            product += values @ (values.T @ basis)
            if self.with_squares:
                squares += centred_squares(values)
        require_finite(product, block)
        return ColumnProductState(product, squares)

    def merge(self, left: ColumnProductState, right: ColumnProductState) -> ColumnProductState:
        return ColumnProductState(accumulate(left.product, right.product), left.squares + right.squares)

    def finish(self, total: ColumnProductState) -> ColumnProductState:
        product = total.product.astype(np.float64, copy=False)
        product -= product.mean(axis=0)
        return ColumnProductState(product, total.squares)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * (n_rows * self.basis.shape[1] + 1)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        p = self.basis.shape[1]
        return (8 + 2 * itemsize) * n_rows * p + itemsize * n_columns * (p + 3 * HEAD_ROWS)


def centred_squares(values: np.ndarray) -> float:
    """Sum of squares of a column stripe that holds every row, less its column means."""
    sums = (np.ones(len(values), values.dtype) @ values).astype(np.float64)
    squares = np.einsum("ij,ij->i", values, values).sum(dtype=np.float64)
    return float(squares - (sums**2).sum() / len(values))


class Stripe(NamedTuple):
    columns: Span
    mean: np.ndarray  # (n_columns,) float64
    product: np.ndarray  # (n_columns, p) Xcᵀ U for this stripe


def stripe_product(block: Block, basis: np.ndarray) -> Stripe:
    """``Xcᵀ U`` and the column means of one stripe; the columns of ``basis`` sum to zero."""
    n_rows, n_columns = block.values.shape
    basis = basis.astype(block.values.dtype, copy=False)
    ones = np.ones(n_rows, basis.dtype)
    shift = head_shift(block.values)
    mean = np.empty(n_columns)
    product = np.empty((n_columns, basis.shape[1]), basis.dtype)
    for at, values in tiles(block.values):
        np.subtract(values, shift[at], out=values)
        mean[at] = (ones @ values).astype(np.float64) / n_rows + shift[at]
        product[at] = values.T @ basis
    require_finite(product, block)
    return Stripe(block.columns, mean, product)
