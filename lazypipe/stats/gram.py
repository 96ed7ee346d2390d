"""The Gram matrix of the rows, ``H X Xᵀ H`` with ``H`` the centring of columns: one pass over stripes.

A column stripe holds every row, so centring needs no mean of the data: products of the stripe are
summed in float64 and projected on both sides at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lazypipe.blocks import Block
from lazypipe.operations import Operations, products
from lazypipe.stats.base import Axis, accumulate, product_with_itself, require_finite
from lazypipe.stats.centring import Centring
from lazypipe.stats.products import HEAD_ROWS, head_shift


@dataclass(frozen=True)
class Gram:
    """``H X Xᵀ H`` (n_rows, n_rows) in float64, symmetric; its trace is the total sum of squares.

    ``H`` is what ``centring`` takes off the columns; None leaves them as they are.
    """

    centring: Centring | None
    axis: ClassVar[Axis] = "columns"
    State: ClassVar[type] = np.ndarray

    def measure(self, block: Block) -> np.ndarray:
        if self.centring and self.centring.even:
            values = block.own()
            np.subtract(values, head_shift(values), out=values)
        product = product_with_itself(block.values.T)
        require_finite(product.diagonal(), block)
        return product

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return accumulate(left, right)

    def finish(self, total: np.ndarray) -> np.ndarray:
        gram = total.astype(np.float64, copy=False)
        return self.centring.off_both_sides(gram) if self.centring else gram

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_rows * n_rows

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return (itemsize + 8) * n_rows * n_rows + itemsize * 3 * HEAD_ROWS * n_columns

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        shifted = Operations(memory=1.0 * itemsize * n_rows * n_columns)
        return products(float(n_rows) ** 2 * n_columns, itemsize).plus(shifted)  # half of a product: it is symmetric
