"""Exact solvers: all eigenpairs wanted, from a matrix small enough to hold."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from lazypipe.models.pca.ritz import Ritz


def leading_pairs(matrix: np.ndarray, k: int) -> Ritz:
    """The k leading pairs of a symmetric matrix (n, n). Memory: two more matrices like it."""
    n = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[max(0, n - k - 1), n - 1])  # one more, for the gap
    values, vectors = values[::-1], vectors[:, ::-1]
    residuals = matrix @ vectors - vectors * values
    others = np.column_stack([values[k:], np.linalg.norm(residuals[:, k:], axis=0)])
    return Ritz(values[:k], vectors[:, :k], residuals[:, :k], others)
