"""Products of the centred second moment with a basis, never forming it: one pass each.

With Y the prepared rows (weighted, scaled; see ``lazypipe.io.prepared``) and Yc the same with column
means taken off: on the long side (row blocks) ``Ycᵀ Yc B`` for a basis B (n_columns, p); on the short
side ``Yc Ycᵀ U`` for a basis U (n_rows, p), over column stripes, or as ``Ycᵀ U`` over row blocks.
All multiply in the data's dtype and sum in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block, Span
from lazypipe.operations import Operations, thin_products
from lazypipe.stats.base import Axis, accumulate, require_finite
from lazypipe.stats.centring import Centring
from lazypipe.stats.provisional import coarse
from lazypipe.stats.skinny import gram_product, scratch_nbytes, suits

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
    mean = head.sum(axis=0) / np.float32(len(head))
    square = np.einsum("ij,ij->j", head, head) / np.float32(len(head))  # variance + mean²
    return head_shift(values) if (mean**2 > LARGE_MEAN**2 * (square - mean**2)).any() else None


class SummedArray:
    """A statistic whose state is an array that is summed in float64."""

    State: ClassVar[type] = np.ndarray

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return accumulate(left, right)

    def finish(self, total: np.ndarray) -> np.ndarray:
        return total.astype(np.float64, copy=False)


@dataclass(frozen=True)
class RowProduct(SummedArray):
    """``Ycᵀ Yc B`` (n_columns, p), over row blocks.

    ``basis`` is B; ``rest`` (n_columns,) the mean that the rows still have, None for products about
    zero; ``weight`` the sum of the rows' weights.
    """

    basis: np.ndarray
    rest: np.ndarray | None
    weight: float
    axis: ClassVar[Axis] = "rows"

    def measure(self, block: Block) -> np.ndarray:
        values = block.values
        product = values.T @ (values @ self.basis.astype(values.dtype, copy=False))
        require_finite(product, block)
        return product

    def finish(self, total: np.ndarray) -> np.ndarray:
        total = total.astype(np.float64, copy=False)
        if self.rest is not None:
            total -= np.outer(self.weight * self.rest, self.rest @ self.basis)
        return total

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_columns * self.basis.shape[1]

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        p = self.basis.shape[1]
        return itemsize * (2 * n_columns * p + n_rows * p)

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return thin_products(4.0 * n_rows * n_columns * self.basis.shape[1], itemsize)


@dataclass(frozen=True)
class AdjointProduct(SummedArray):
    """``Yᵀ U`` (n_columns, p), over row blocks: ``Ycᵀ U`` where U (n_rows, p) is free of the null vector."""

    basis: np.ndarray
    axis: ClassVar[Axis] = "rows"

    def measure(self, block: Block) -> np.ndarray:
        product = block.values.T @ self.basis[block.rows.slice].astype(block.values.dtype, copy=False)
        require_finite(product, block)
        return product

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_columns * self.basis.shape[1]

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return itemsize * n_columns * self.basis.shape[1]

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return thin_products(2.0 * n_rows * n_columns * self.basis.shape[1], itemsize)


class ColumnProductState(NamedTuple):
    """``Yc Ycᵀ U`` as far as some columns go, and in the end all."""

    product: np.ndarray  # (n_rows, p)
    squares: float  # sum of squares of the centred entries; 0 where not asked for


@dataclass(frozen=True)
class ColumnProduct:
    """``Yc Ycᵀ U`` (n_rows, p), over column stripes, and on demand the total sum of squares.

    ``basis`` is U, free of what ``centring`` takes off; None for products about zero.
    """

    basis: np.ndarray
    centring: Centring | None
    with_squares: bool = False
    axis: ClassVar[Axis] = "columns"
    State: ClassVar[type] = ColumnProductState

    def measure(self, block: Block) -> ColumnProductState:
        basis = self.basis.astype(block.values.dtype, copy=False)
        shift = large_head_shift(block.values) if self.centring and self.centring.even else None
        product = np.zeros(basis.shape)
        squares = 0.0
        at_once = suits(block.values)
        for at, values in tiles(block.values if shift is None else block.own()):
            if shift is not None:
                np.subtract(values, shift[at], out=values)
            if not at_once:
                product += values @ (values.T @ basis)
            if self.with_squares:
                squares += float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))
                squares -= self.centring.squares(values) if self.centring else 0.0
            elif at_once and shift is None:
                break
        if at_once:
            product = gram_product(block.values, basis)
        require_finite(product, block)
        return ColumnProductState(product, squares)

    def merge(self, left: ColumnProductState, right: ColumnProductState) -> ColumnProductState:
        return ColumnProductState(accumulate(left.product, right.product), left.squares + right.squares)

    def finish(self, total: ColumnProductState) -> ColumnProductState:
        product = total.product.astype(np.float64, copy=False)
        return ColumnProductState(self.centring.off(product) if self.centring else product, total.squares)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * (n_rows * self.basis.shape[1] + 1)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        p = self.basis.shape[1]
        by_tiles = (8 + 2 * itemsize) * n_rows * p + itemsize * n_columns * (p + 3 * HEAD_ROWS)
        tile = max(TILE_NBYTES, 16 * n_rows * itemsize)
        return by_tiles + tile + scratch_nbytes(n_rows, p)

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        p = self.basis.shape[1]
        made = Operations(memory=8.0 * 8 * n_rows * p)  # of the product: fresh memory, cleared, filled and copied
        return thin_products(4.0 * n_rows * n_columns * p, itemsize).plus(made)


@dataclass(frozen=True)
class StripeProjection(SummedArray):
    """``Y B`` (n_rows, p) for a basis B (n_columns, p), over column stripes."""

    basis: np.ndarray
    axis: ClassVar[Axis] = "columns"

    def measure(self, block: Block) -> np.ndarray:
        product = block.values @ self.basis[block.columns.slice].astype(block.values.dtype, copy=False)
        require_finite(product, block)
        return product

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_rows * self.basis.shape[1]

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return itemsize * n_rows * self.basis.shape[1]

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return thin_products(2.0 * n_rows * n_columns * self.basis.shape[1], itemsize)


class Stripe(NamedTuple):
    """What a stripe of columns gives to the components."""

    columns: Span
    mean: np.ndarray  # (n_columns,) float64, of the prepared rows, weighted
    product: np.ndarray  # (n_columns, p) Ycᵀ U for this stripe


def stripe_product(block: Block, basis: np.ndarray, centring: Centring | None) -> Stripe:
    """``Ycᵀ U`` and the column means of one stripe (zero about zero); U is free of what is taken off."""
    n_columns = block.values.shape[1]
    basis = basis.astype(block.values.dtype, copy=False)
    shift = head_shift(block.values) if centring and centring.even else None
    mean = np.zeros(n_columns)
    product = np.empty((n_columns, basis.shape[1]), basis.dtype)
    scratch = np.empty(0, basis.dtype)
    for at, values in tiles(block.values):
        if shift is not None:
            if scratch.size < values.size:  # the first tile is the largest, and stays in the cache
                scratch = np.empty(values.size, basis.dtype)
            values = np.subtract(values, shift[at], out=scratch[: values.size].reshape(values.shape))
            mean[at] = shift[at]
        if centring is not None:
            mean[at] += centring.mean(values)
        product[at] = values.T @ basis
    require_finite(product, block)
    return Stripe(block.columns, mean, product)
