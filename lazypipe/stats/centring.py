"""Centring of columns seen from the rows: taking a vector of length N off both sides of ``Y Yᵀ``.

With rows weighted by w and Y = diag(√w) X, the centred Yc is ``(I - u uᵀ) Y`` for the unit vector
``u = √w / √W``, ``W = Σ w``: equal entries where all weights are. So a basis free of u centres exactly
what it is multiplied with, and no mean is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SLAB_ROWS = 64  # that are copied to float64 at a time


@dataclass(frozen=True)
class Centring:
    """``null`` (n_rows,) is u, ``norm`` is √W.

    ``even`` where all weights are one: then a shift taken off every row of a stripe changes no more than its rounding.
    """

    null: np.ndarray
    norm: float
    even: bool

    @classmethod
    def of(cls, n_rows: int, weights: np.ndarray | None = None) -> Centring:
        """That of ``n_rows`` rows, weighted by ``weights`` (n_rows,) or all alike."""
        root = np.ones(n_rows) if weights is None else np.sqrt(weights)
        norm = float(np.linalg.norm(root))
        return cls(root / norm, norm, weights is None)

    def off(self, product: np.ndarray) -> np.ndarray:
        """``product`` (n_rows, p), in its own memory, without its part along u."""
        product -= np.outer(self.null, self.null @ product)
        return product

    def off_both_sides(self, gram: np.ndarray) -> np.ndarray:
        """``(I - u uᵀ) gram (I - u uᵀ)`` for a symmetric ``gram`` (n_rows, n_rows), in its own memory."""
        along = gram @ self.null
        both = self.null @ along
        for i, row in enumerate(gram):  # by rows: an outer product would be a second matrix
            row -= self.null[i] * along + (along[i] - both * self.null[i]) * self.null
        return gram

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The weighted mean (n_columns,) of X from a stripe (n_rows, n_columns) of Y, summed in the stripe's dtype."""
        return (self.null.astype(values.dtype) @ values).astype(np.float64) / self.norm

    def along(self, values: np.ndarray, start: int = 0) -> np.ndarray:
        """``uᵀ Y`` (n_columns,) for rows of Y from ``start`` on, summed in float64, a few rows at a time."""
        total = np.zeros(values.shape[1])
        for at in range(0, len(values), SLAB_ROWS):
            slab = values[at : at + SLAB_ROWS].astype(np.float64)
            total += self.null[start + at : start + at + len(slab)] @ slab
        return total

    def squares(self, values: np.ndarray) -> float:
        """The sum of squares along u of a stripe (n_rows, n_columns)."""
        return float(((self.norm * self.mean(values)) ** 2).sum())
