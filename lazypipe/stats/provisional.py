"""The provisional shift: the mean of the first rows, near enough to the mean to save digits."""

from __future__ import annotations

import numpy as np

from lazypipe.blocks import Block, Span, compute_dtype
from lazypipe.io.matrix import Matrix
from lazypipe.stats.base import require_finite

SHIFT_NBYTES = 2**23


def provisional_shift(matrix: Matrix, omit_nan: bool = False) -> np.ndarray:
    """About the mean of the first rows (n_columns,), at most 256 or 8 MiB of them, in the compute dtype.

    ``omit_nan`` looks only at those without NaN; zero where none is left.
    """
    n_rows, n_columns = matrix.shape
    dtype = compute_dtype(matrix.dtype)
    rows = Span(0, min(n_rows, 256, max(1, SHIFT_NBYTES // (n_columns * dtype.itemsize))))
    columns = Span(0, n_columns)
    head = np.empty((len(rows), n_columns), dtype)
    with matrix.open() as reader:
        reader.read(rows, columns, head)
    if omit_nan:
        head = head[~np.isnan(head).any(axis=1)]
        if len(head) == 0:
            return np.zeros(n_columns, dtype)
    mean = head.mean(axis=0, dtype=np.float64)
    require_finite(mean, Block(head, rows, columns, matrix.uri))
    return coarse(mean, head.std(axis=0, dtype=np.float64)).astype(dtype)


def coarse(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """``mean`` (n,) to about half a standard deviation, as a multiple of a power of two.

    A shift need not be the mean, only near it. One with few bits leaves few bits in what it is taken
    off: counts and pixels stay integers whose float32 products are exact, where a mean in 2⁻⁸ of 2,000
    integers cost 3e-6 of the variance.
    """
    with np.errstate(divide="ignore"):
        quantum = np.exp2(np.floor(np.log2(deviation)) - 1)
    near = (quantum > 0) & (np.abs(mean) < 2.0**22 * quantum)  # else float32 could not hold the multiple
    return np.where(near, np.rint(mean / np.where(near, quantum, 1)) * quantum, mean)
