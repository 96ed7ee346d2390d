"""Products of a wide float32 block with a few vectors, at the rate of large ones.

``x (xᵀ u)`` for a block x (n, w) and u (n, p), p about 16, is what a pass of PCA does. A general product packs
x first, which for 16 columns costs as much as the arithmetic: OpenBLAS reaches 72 of 106 GFLOP/s a core here.
These two loops read x once from memory and once from the cache, and keep 16 sums of 16 floats in registers;
112 GFLOP/s. They are written in LLVM's own terms, because a sum in registers is what compilers of loops do not
find. Where the processor has no AVX-512, or the block is not float32, NumPy multiplies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

LANES = 16  # floats a vector, and vectors of a basis multiplied at once
WIDTH = 2 * LANES  # columns a step of the first product
HALF = LANES // 2  # vectors of a basis at once, against a step of columns: 8 x 2 sums in registers
SMALLEST = 2**22  # bytes of a block: of less data than has such blocks, passes take less than loading the loops


def gram_product(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """``x (xᵀ u)`` (n, p) in float64, for x (n, w) float32 of any row stride and u (n, p) of its dtype.

    Sums of 256 columns are in float32, those of more in float64. Memory: n p floats twice.
    """
    n, w = x.shape
    if not suits(x):
        return x @ (x.T @ u)
    p = u.shape[1]
    slabs = -(-p // LANES)
    padded = np.zeros((slabs, n, LANES), np.float32)
    for s in range(slabs):
        part = u[:, s * LANES : (s + 1) * LANES]
        padded[s, :, : part.shape[1]] = part
    out = np.zeros((slabs, n, LANES))
    whole = w // WIDTH * WIDTH
    _kernel()(x[:, :whole], padded, out)
    product = out.transpose(1, 0, 2).reshape(n, -1)[:, :p]
    if whole < w:
        rest = x[:, whole:]
        product = product + rest @ (rest.T @ u)
    return np.ascontiguousarray(product)


def suits(x: np.ndarray) -> bool:
    """Whether a block is one for these loops."""
    fits = x.dtype == np.float32 and x.shape[1] >= WIDTH and x.strides[1] == x.itemsize
    return bool(fits and x.nbytes >= SMALLEST and has_avx512())


@lru_cache(maxsize=1)
def has_avx512() -> bool:
    """Whether this processor multiplies 16 floats at once, as NumPy found it."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[import-not-found]
    except ImportError:
        return False
    return bool(__cpu_features__.get("AVX512F", False))


def scratch_nbytes(n: int, p: int) -> int:
    """Bytes that ``gram_product`` takes for u (n, p): two copies in float32, and two results in float64."""
    return n * -(-p // LANES) * LANES * (4 + 4 + 8 + 8)


@lru_cache(maxsize=1)
def _kernel() -> Any:
    """The compiled loops, kept on disk beside this file (or in the user's cache) once they are."""
    from lazypipe.stats.skinny_kernel import add_gram_product

    return add_gram_product
