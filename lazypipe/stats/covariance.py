"""The covariance of the columns: one pass over row blocks.

Each block is shifted by a provisional mean and multiplied in the data's own dtype; products are
summed in float64; what the provisional mean missed is taken off at the end:
``C = (Σ y yᵀ - n m mᵀ) / (n - ddof)`` with ``y = x - shift`` and ``m`` the mean of ``y``.
(The shifted-data algorithm; Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block
from lazypipe.stats.base import Axis, accumulate, product_with_itself, require_finite


class ProductSum(NamedTuple):
    n: int
    total: np.ndarray  # (n_columns,) sum of shifted rows
    product: np.ndarray  # (n_columns, n_columns) sum of their outer products


class CovarianceMatrix(NamedTuple):
    n_rows: int
    mean: np.ndarray  # (n_columns,) float64
    covariance: np.ndarray  # (n_columns, n_columns) float64, symmetric to the bit


@dataclass(frozen=True)
class Covariance:
    """Mean and covariance, dividing by ``n - ddof``.

    ``shift`` (n_columns,), in the dtype of the blocks, is any vector near the mean: the mean of the
    first rows serves.
    """

    shift: np.ndarray
    ddof: int = 1
    axis: ClassVar[Axis] = "rows"

    def measure(self, block: Block) -> ProductSum:
        values = block.values
        np.subtract(values, self.shift, out=values)
        n_rows = len(values)
        total = np.ones(n_rows, values.dtype) @ values
        product = product_with_itself(values)
        require_finite(product.diagonal(), block)
        return ProductSum(n_rows, total, product)

    def merge(self, left: ProductSum, right: ProductSum) -> ProductSum:
        return ProductSum(
            left.n + right.n,
            accumulate(left.total, right.total),
            accumulate(left.product, right.product),
        )

    def finish(self, total: ProductSum) -> CovarianceMatrix:
        mean = total.total.astype(np.float64) / total.n
        covariance = total.product.astype(np.float64, copy=False)
        for i, row in enumerate(covariance):  # by rows: an outer product would be a second matrix
            row -= total.n * (mean[i] * mean)
        covariance /= total.n - self.ddof
        return CovarianceMatrix(total.n, self.shift.astype(np.float64) + mean, covariance)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_columns * (n_columns + 1)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return (itemsize + 8) * n_columns * n_columns + itemsize * (2 * n_columns + n_rows)
