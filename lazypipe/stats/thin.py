"""Products of blocks of rows with few planes, and back: what a pass of a linear model does.

``x planes`` (n, p) and ``uᵀ x`` (p, w) for a block x (n, w) float32 and p up to some tens. A general product packs x
first, which for 10 planes costs more than the arithmetic. These loops read x as it lies and keep their sums in
registers. Where the processor has no AVX-512, or a block is too small for them, NumPy multiplies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from lazypipe.stats.skinny import HALF, LANES, WIDTH, has_avx512

FEW = 96  # planes; for more a general product is as fast
LEAST_ROWS = 16


class Thin:
    """``planes`` (w, p) float32, ready for products with many blocks."""

    def __init__(self, planes: np.ndarray):
        self.n_planes = planes.shape[1]
        self._suits = len(planes) >= WIDTH and self.n_planes <= FEW and has_avx512()
        padded = -(-self.n_planes // LANES) * LANES if self._suits else self.n_planes
        self._planes = np.zeros((len(planes), padded), np.float32)
        self._planes[:, : self.n_planes] = planes
        self._product = np.empty((0, 0), np.float32)
        self._sums = np.empty((-(-self.n_planes // HALF) * HALF, len(planes)), np.float32)

    def times(self, rows: np.ndarray) -> np.ndarray:
        """``rows planes`` (n, p or some more), until the next call; what is in columns from p on means nothing."""
        n = len(rows)
        if len(self._product) < n:
            self._product = np.empty((n, self._planes.shape[1]), np.float32)
        product = self._product[:n]
        if self._suits_rows(rows):
            _kernel().rows_times(rows, self._planes, product)
        else:
            np.matmul(rows, self._planes, out=product)
        return product

    def back(self, product: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``productᵀ rows`` (p, w), until the next call, for a product (n, ·) that ``times`` gave the memory of."""
        if self._suits_rows(rows):
            _kernel().columns_times(product, rows, self._sums)
            return self._sums[: self.n_planes]
        return product[:, : self.n_planes].T @ rows

    def _suits_rows(self, rows: np.ndarray) -> bool:
        return self._suits and len(rows) >= LEAST_ROWS and rows.strides[1] == rows.itemsize


@lru_cache(maxsize=1)
def _kernel() -> Any:
    """The compiled loops, kept on disk beside this file (or in the user's cache) once they are."""
    from lazypipe.stats import thin_kernel

    return thin_kernel
