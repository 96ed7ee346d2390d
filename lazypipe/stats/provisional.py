"""The provisional shift: the mean of the first rows, near enough to the mean to save digits."""

from __future__ import annotations

import numpy as np

from lazypipe.blocks import Block, Span, compute_dtype
from lazypipe.io.matrix import Matrix
from lazypipe.stats.base import require_finite

SHIFT_NBYTES = 2**23


def provisional_shift(matrix: Matrix, window: int) -> np.ndarray:
    """Mean of the first rows (n_columns,), at most 256 of them or 8 MiB, in the compute dtype."""
    n_rows, n_columns = matrix.shape
    dtype = compute_dtype(matrix.dtype)
    rows = Span(0, min(n_rows, 256, max(1, SHIFT_NBYTES // (n_columns * dtype.itemsize))))
    columns = Span(0, n_columns)
    head = np.empty((len(rows), n_columns), dtype)
    with matrix.open(window) as reader:
        reader.read(rows, columns, head)
    mean = head.mean(axis=0, dtype=np.float64)
    require_finite(mean, Block(head, rows, columns, matrix.uri))
    return mean.astype(dtype)
