"""What every solver returns: Ritz pairs of the centred second moment on one side, with residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Apply = Callable[[np.ndarray], np.ndarray]  # basis (n, p) -> C @ basis (n, p), one pass over the data
OnPass = Callable[[float, np.ndarray], None]  # largest relative residual, values so far


class Ritz(NamedTuple):
    """``C u_i = values_i u_i + residuals_i`` for orthonormal columns u of ``vectors``."""

    values: np.ndarray  # (k,) descending
    vectors: np.ndarray  # (n, k)
    residuals: np.ndarray  # (n, k)
    others: np.ndarray  # (m, 2): Ritz values below those wanted, and the norms of their residuals

    def relative(self) -> np.ndarray:
        """‖C u - λ u‖ / λ of each pair (k,)."""
        return relative_norms(self.residuals, self.values)


def relative_norms(residuals: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lengths (k,) of the columns of ``residuals`` (n, k), over ``values`` (k,)."""
    return np.linalg.norm(residuals, axis=0) / np.maximum(values, np.finfo(float).tiny)


def descending(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of a small symmetric matrix, largest first."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1]


def orthonormal_to(basis: np.ndarray, block: np.ndarray) -> np.ndarray:
    """An orthonormal basis of ``block`` after taking off its part within ``basis`` (twice is enough)."""
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
        block = np.linalg.qr(block)[0]
    return block
