"""Exact solvers: all eigenpairs wanted, from a matrix small enough to hold."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from lazypipe.models.pca.ritz import Ritz


def leading_pairs(matrix: np.ndarray, k: int) -> Ritz:
    """The k leading pairs of a symmetric matrix (n, n). Memory: two more matrices like it."""
    n = len(matrix)
    first = max(0, n - k - 1)  # one more, for the gap
    values, vectors = eigh(matrix, subset_by_index=[first, n - 1])
    if len(values) < n - first:  # of eigenvalues that are equal LAPACK's syevr may find some: syev finds all
        values, vectors = eigh(matrix, driver="ev")
        values, vectors = values[first:], vectors[:, first:]
    values, vectors = values[::-1], vectors[:, ::-1]
    residuals = matrix @ vectors - vectors * values
    others = np.column_stack([values[k:], np.linalg.norm(residuals[:, k:], axis=0)])
    return Ritz(values[:k], vectors[:, :k], residuals[:, :k], others)
