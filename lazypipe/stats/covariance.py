"""The covariance of the columns: one pass over row blocks.

Each block is shifted by a provisional mean and multiplied in the data's own dtype; products are
summed in float64; what the provisional mean missed is taken off at the end:
``C = (Σ w y yᵀ - W m mᵀ) / (W - ddof)`` with ``y = x - shift``, ``m`` the mean of ``y``, ``W = Σ w``.
(The shifted-data algorithm; Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block, is_sparse
from lazypipe.operations import Operations, products
from lazypipe.stats.base import Axis, accumulate, product_with_itself, require_alleles, require_finite, rows_with_nan


class ProductSum(NamedTuple):
    """Sums over some rows, less the shift."""

    n_rows: int  # that were not omitted
    weight: float
    total: np.ndarray  # (n_columns,) weighted sum of shifted rows
    product: np.ndarray  # (n_columns, n_columns) weighted sum of their outer products


class CovarianceMatrix(NamedTuple):
    """Mean and covariance of all rows."""

    n_rows: int  # that were not omitted
    weight: float
    mean: np.ndarray  # (n_columns,) float64
    covariance: np.ndarray  # (n_columns, n_columns) float64, symmetric to the bit


@dataclass(frozen=True)
class Covariance:
    """Mean and covariance, dividing by ``weight - ddof``.

    ``shift`` (n_columns,), in the dtype of the blocks, is any vector near the mean: the mean of the
    first rows serves; None shifts nothing, as sparse rows require. A row of ``weights`` (n_rows,) 2
    counts as two rows. Without ``centred`` the moment about zero; ``omit_nan`` leaves out rows with NaN.
    """

    shift: np.ndarray | None
    ddof: int = 1
    weights: np.ndarray | None = None
    centred: bool = True
    omit_nan: bool = False
    alleles: bool = False  # whether entries have to be allele counts
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = ProductSum

    def measure(self, block: Block) -> ProductSum:
        if self.alleles:
            require_alleles(block)
        values = block.values
        n_rows = values.shape[0]
        weights = None if self.weights is None else self.weights[block.rows.slice]
        if self.omit_nan:
            bad = rows_with_nan(values)
            if bad.any():
                n_rows -= int(bad.sum())
                weights = np.where(bad, 0.0, 1.0 if weights is None else weights)
                values = _cleared(values, bad, self.shift)
        root = None if weights is None else np.sqrt(weights)
        weight = float(n_rows if weights is None else weights.sum())
        if is_sparse(values):
            total, product = _sparse_products(values, root)
            require_finite(total, block)
        else:
            if self.shift is not None:
                np.subtract(values, self.shift, out=values)
            if root is not None:
                root = root.astype(values.dtype)
                np.multiply(values, root[:, None], out=values)
            total = (np.ones(len(values), values.dtype) if root is None else root) @ values
            product = product_with_itself(values)
            require_finite(product.diagonal(), block)
        return ProductSum(n_rows, weight, total, product)

    def merge(self, left: ProductSum, right: ProductSum) -> ProductSum:
        return ProductSum(
            left.n_rows + right.n_rows,
            left.weight + right.weight,
            accumulate(left.total, right.total),
            accumulate(left.product, right.product),
        )

    def finish(self, total: ProductSum) -> CovarianceMatrix:
        mean = total.total.astype(np.float64) / (total.weight or 1)
        covariance = total.product.astype(np.float64, copy=False)
        if self.centred:
            for i, row in enumerate(covariance):  # by rows: an outer product would be a second matrix
                row -= total.weight * (mean[i] * mean)
        covariance /= (total.weight - self.ddof) or 1  # the models refuse what has too few rows
        mean = mean if self.shift is None else self.shift.astype(np.float64) + mean
        return CovarianceMatrix(total.n_rows, total.weight, mean, covariance)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * n_columns * (n_columns + 1)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        masks = n_rows * n_columns if self.omit_nan else 0
        return (itemsize + 8) * n_columns * n_columns + itemsize * (2 * n_columns + n_rows) + masks

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        shifted = Operations(memory=2.0 * itemsize * n_rows * n_columns)  # and summed
        return products(float(n_rows) * n_columns**2, itemsize).plus(shifted)  # half of a product: it is symmetric


def _cleared(values: Any, rows: np.ndarray, shift: np.ndarray | None) -> Any:
    """``values`` with those rows at the shift, where they add nothing."""
    if is_sparse(values):
        values.data[np.repeat(rows, np.diff(values.indptr))] = 0
    else:
        values[rows] = 0 if shift is None else shift
    return values


def _sparse_products(values: Any, root: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums of rows and of their outer products, of CSR rows times ``root``, in float64."""
    values = values.astype(np.float64)
    if root is None:
        root = np.ones(values.shape[0])
    values.data *= np.repeat(root, np.diff(values.indptr))
    n_columns = values.shape[1]
    by_columns, product = values.tocsc(), np.empty((n_columns, n_columns))
    for start in range(0, n_columns, _slab(n_columns)):  # a sparse product may be dense, and take 12 bytes an entry
        columns = slice(start, start + _slab(n_columns))
        product[:, columns] = (values.T @ by_columns[:, columns]).toarray()
    return values.T @ root, product


def sparse_scratch_nbytes(n_columns: int, rows_nbytes: int) -> int:
    """Bytes that ``measure`` takes of sparse rows, which are ``rows_nbytes`` in float64, its result included."""
    slab = (12 + 8) * n_columns * _slab(n_columns)
    return 8 * n_columns * (n_columns + 2) + slab + 3 * rows_nbytes  # times the weights, by columns, and the weights


def _slab(n_columns: int) -> int:
    """Columns of a product of sparse rows that are made at a time."""
    return -(-n_columns // 16)
