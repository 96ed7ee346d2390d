"""Exact solvers: all eigenpairs wanted, from a matrix small enough to hold."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from lazypipe.models.pca.ritz import Ritz


def leading_pairs(matrix: np.ndarray, k: int) -> Ritz:
    """The k leading pairs of a symmetric matrix (n, n). Memory: two more matrices like it."""
    n = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[n - k, n - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    return Ritz(values, vectors, matrix @ vectors - vectors * values)
