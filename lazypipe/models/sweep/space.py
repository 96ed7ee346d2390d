"""Coordinates in which the Hessians of a prefix are near to diagonal: those of its principal directions.

The Hessian of a mean loss is about h times the covariance of the rows, and the penalty adds 1/(C n) to all of it: in
the eigenbasis of the covariance both are diagonal, for every C at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.linalg import eigh

from lazypipe.models.sweep.rows import Prefix
from lazypipe.stats.base import product_with_itself

CURVATURE = 0.05  # h: of the losses along a logit, about the mean of p (1 - p) over rows that are learnt
WIDEST = 2048  # directions of an eigenbasis at most: eigh takes 2 s
TURNED = 4  # up to so many times more rows than columns, the rows are turned and not the weights
BASIS_ROWS = 32  # rows a column that the eigenbasis is found from: it is to be near, not exact
LEAST_VARIANCE = 1e-13  # of the largest: directions below it hold rounding alone

Precondition = Callable[[np.ndarray], np.ndarray]


class Space(Protocol):
    """Weights as (n_directions, columns) float64 about the mean of the rows, and what passes make of them."""

    n_directions: int

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Every so many-th block of rows (n, ·) float32."""

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rows are multiplied with (·, columns) float32, and what is added to each product (columns,)."""

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The gradient in the weights, from residualsᵀ rows (columns, ·) and the residuals' sums (columns,)."""

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        """About the inverse Hessian, on flat (n_directions + 1) x n_outputs arrays, the intercepts last."""

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same as ``to_rows`` in float64, for rows of the prefix as it gives them (D, columns)."""


def space_of(prefix: Prefix) -> Space:
    n, width = prefix.size, prefix.n_features
    if prefix.hold and min(n, width) <= WIDEST and n <= TURNED * width:
        return Turned(prefix)
    return Streamed(prefix) if width <= WIDEST else Sketched(prefix)


def _diagonal(variances: np.ndarray, n: int, strength: float, n_outputs: int) -> Precondition:
    """1 / (h variance + 1 / (C n)) along each direction, 1 / h along the intercepts."""
    least = CURVATURE * variances[-1] * 1e-12
    scale = np.append(1 / (CURVATURE * np.maximum(variances, 0) + 1 / (strength * n) + least), 1 / CURVATURE)
    spread = np.repeat(scale, n_outputs)
    return lambda gradient: spread * gradient


class Turned:
    """The rows themselves in the coordinates of their principal directions: as many as there are rows or columns."""

    def __init__(self, prefix: Prefix):
        rows = prefix.all()
        n, width = rows.shape
        self._n, self._step = n, prefix.step
        self.mean = rows.mean(axis=0, dtype=np.float64)
        if n <= width:
            centred = rows.astype(np.float64)
            centred -= self.mean
            squares, basis = eigh(centred @ centred.T)
            kept = squares > max(squares[-1], 0) * LEAST_VARIANCE
            deviations = np.sqrt(squares[kept])
            self.directions = (centred.T @ basis[:, kept]) / deviations
            self._rows = (basis[:, kept] * deviations).astype(np.float32)
            self.variances = squares[kept] / n
        else:
            shifted = rows - self.mean.astype(np.float32)
            gram = product_with_itself(shifted).astype(np.float64)
            self.variances, self.directions = eigh(gram / n)
            self._rows = shifted @ self.directions.astype(np.float32)
        if not len(self.variances):  # rows that are all alike
            self.variances, self.directions = np.zeros(1), np.zeros((width, 1))
            self._rows = np.zeros((n, 1), np.float32)
        self.n_directions = len(self.variances)

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, self._n, self._step * every):
            rows = slice(start, min(start + self._step, self._n))
            yield rows, self._rows[rows]

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return weights.astype(np.float32), np.zeros(weights.shape[1])

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return products.T

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        return _diagonal(self.variances, self._n, strength, n_outputs)

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        planes = self.directions @ weights
        return planes, -self.mean @ planes


class Streamed:
    """Rows as they are, centred by arithmetic; weights turned in every pass."""

    def __init__(self, prefix: Prefix):
        self._prefix = prefix
        every = max(1, prefix.size // (BASIS_ROWS * prefix.n_features))
        gram, sums, n = np.zeros((prefix.n_features,) * 2), np.zeros(prefix.n_features), 0
        for _, values in prefix.blocks(every):
            gram += product_with_itself(values)
            sums += values.sum(axis=0, dtype=np.float64)
            n += len(values)
        self.mean = sums / n
        gram /= n
        gram -= np.outer(self.mean, self.mean)
        self.variances, directions = eigh(gram)
        self.directions = directions.astype(np.float32)
        self.n_directions = prefix.n_features

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        return self._prefix.blocks(every)

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        planes = self.directions @ weights.astype(np.float32)
        return planes, -self.mean @ planes

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        centred = products - np.outer(sums, self.mean)
        return self.directions.T @ centred.T.astype(np.float32)

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        return _diagonal(self.variances, self._prefix.size, strength, n_outputs)

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        planes = self.directions.astype(np.float64) @ weights
        return planes, -self.mean @ planes


class Sketched:
    """More columns than an eigenbasis is found for: the directions of some rows, and all others as if alike."""

    def __init__(self, prefix: Prefix):
        self._prefix = prefix
        width = prefix.n_features
        wanted = max(16, min(WIDEST, prefix.size, 2**25 // width))
        every = max(1, prefix.size // (8 * wanted))
        some = np.empty((wanted, width), np.float32)
        sums, squares, n, found = np.zeros(width), 0.0, 0, 0
        stride = max(1, min(prefix.size, every * 8 * wanted) // wanted // every)
        for _, values in prefix.blocks(every):
            sums += values.sum(axis=0, dtype=np.float64)
            squares += float(np.vdot(values, values))
            chosen = values[::stride][: wanted - found]
            some[found : found + len(chosen)] = chosen
            n, found = n + len(values), found + len(chosen)
        self.mean = sums / n
        some = some[:found] - self.mean.astype(np.float32)
        values, basis = eigh((some @ some.T).astype(np.float64) / found)
        kept = values > max(values[-1], 0) * 1e-6
        self._variances = values[kept]
        self._directions = (some.T @ (basis[:, kept] / np.sqrt(found * values[kept])).astype(np.float32)).copy()
        total = squares / n - self.mean @ self.mean
        self._rest = max(total - self._variances.sum(), 0.0) / max(1, width - kept.sum())
        self.n_directions = width

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        return self._prefix.blocks(every)

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return weights.astype(np.float32), -self.mean @ weights

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return (products - np.outer(sums, self.mean)).T

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        penalty = 1 / (strength * self._prefix.size)
        rest = 1 / (CURVATURE * self._rest + penalty)
        scale = 1 / (CURVATURE * self._variances + penalty) - rest

        def apply(gradient: np.ndarray) -> np.ndarray:
            parts = gradient.reshape(-1, n_outputs)
            out = np.empty_like(parts)
            along = (self._directions.T @ parts[:-1].astype(np.float32)) * scale[:, None]
            out[:-1] = rest * parts[:-1] + self._directions @ along.astype(np.float32)
            out[-1] = parts[-1] / CURVATURE
            return out.reshape(-1)

        return apply

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return weights, -self.mean @ weights


def nbytes(size: int, n_features: int, hold: bool) -> int:
    """Memory of a space, beside the rows that the prefix holds."""
    smaller = min(size, n_features)
    if hold and smaller <= WIDEST and size <= TURNED * n_features:
        centred = 8 * size * n_features if size <= n_features else 4 * size * n_features
        return centred + 4 * size * smaller + 8 * n_features * smaller + 32 * smaller**2
    if n_features <= WIDEST:
        return 44 * n_features**2
    wanted = max(16, min(WIDEST, size, 2**25 // n_features))
    return 12 * wanted * n_features + 32 * wanted**2
