"""Coordinates in which the Hessians of a prefix are near to diagonal: those of its principal directions.

The Hessian of a mean loss is about h times the covariance of the rows, and the penalty adds 1/(C n) to all of it: in
the eigenbasis of the covariance both are diagonal, for every C at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from lazypipe.errors import DataError
from lazypipe.models.sweep.lbfgs import Precondition
from lazypipe.models.sweep.rows import Prefix
from lazypipe.stats.base import product_with_itself

CURVATURE = 0.05  # h: of the losses along a logit, about the mean of p (1 - p) over rows that are learnt
WIDEST = 2048  # directions of an eigenbasis at most: eigh takes 2 s
TURNED = 4  # up to so many times more rows than columns, the rows are turned and not the weights
BASIS_ROWS = 32  # rows a column that the eigenbasis is found from: it is to be near, not exact
STRIPE_NBYTES = 2**24
SKETCH_NBYTES = 2**27
LEAST_BLOCKS = 16  # of a prefix, however few rows would do: rows may lie in order of their class
LEAST_VARIANCE = 1e-13  # of the largest: directions below it hold rounding alone


class Space(Protocol):
    """Weights as (n_directions, columns) float64 about the mean of the rows, and what passes make of them."""

    n_directions: int

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Every so many-th block of rows (n, ·) float32."""

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rows are multiplied with (·, columns) float32, and what is added to each product (columns,)."""

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The gradient in the weights, from residualsᵀ rows (columns, ·) and the residuals' sums (columns,)."""

    def turned(self, every: int) -> Iterator[np.ndarray] | None:
        """Every so many-th block in the coordinates of the weights, about the mean; None where those are too many."""

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        """About the inverse Hessian, on flat (n_directions + 1) x n_outputs arrays, the intercepts last."""

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same as ``to_rows`` in float64, for rows of the prefix as it gives them (D, columns)."""


def space_of(prefix: Prefix) -> Space:
    """The coordinates for a prefix: by its shape, and by whether its rows are held."""
    n, width = prefix.size, prefix.n_features
    if _turned(n, width, prefix.hold):
        return FewRows(prefix) if n <= width else Turned(prefix)
    return Streamed(prefix) if width <= WIDEST else Sketched(prefix)


def stride(n: int, step: int, wanted: int) -> int:
    """So that every so many-th block of ``step`` rows gives about as many rows as wanted, from all over the prefix."""
    return max(1, min(n // wanted, -(-n // step) // LEAST_BLOCKS))


def _eigh(products: np.ndarray, prefix: Prefix) -> tuple[np.ndarray, np.ndarray]:
    if not np.isfinite(products).all():
        raise DataError(
            f"{prefix.examples.matrix.uri}: entries so large that their squares overflow. Divide them by a constant "
            f"(divide_by=, --divide-by)."
        )
    values, vectors = np.linalg.eigh(products)
    return values, vectors


def _turned(n: int, width: int, hold: bool) -> bool:
    return n <= min(width, WIDEST) or (hold and width <= WIDEST and n <= TURNED * width)


def _diagonal(variances: np.ndarray, n: int, strength: float, n_outputs: int) -> Precondition:
    """1 / (h variance + 1 / (C n)) along each direction, 1 / h along the intercepts."""
    least = CURVATURE * variances[-1] * 1e-12
    scale = np.append(1 / (CURVATURE * np.maximum(variances, 0) + 1 / (strength * n) + least), 1 / CURVATURE)
    spread = np.repeat(scale, n_outputs)
    return lambda gradient: spread * gradient


class Turned:
    """The rows themselves in the coordinates of their principal directions."""

    def __init__(self, prefix: Prefix):
        rows = prefix.all()
        self.mean = rows.mean(axis=0, dtype=np.float64)
        shifted = rows - self.mean.astype(np.float32)
        gram = product_with_itself(shifted).astype(np.float64) / len(rows)
        self.variances, self.directions = _eigh(gram, prefix)
        self._keep(shifted @ self.directions.astype(np.float32), prefix.step)

    def _keep(self, rows: np.ndarray, step: int) -> None:
        self._rows, self._step = np.ascontiguousarray(rows), step
        self.n_directions = rows.shape[1]

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        n = len(self._rows)
        for start in range(0, n, self._step * every):
            rows = slice(start, min(start + self._step, n))
            yield rows, self._rows[rows]

    def turned(self, every: int) -> Iterator[np.ndarray]:
        return (values for _, values in self.blocks(every))

    def to_rows(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return weights.astype(np.float32), np.zeros(weights.shape[1])

    def from_rows(self, products: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return products.T

    def preconditioner(self, strength: float, n_outputs: int) -> Precondition:
        return _diagonal(self.variances, len(self._rows), strength, n_outputs)

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        planes = self.directions @ weights
        return planes, -self.mean @ planes


class FewRows(Turned):
    """No more rows than columns: as many directions as rows, found from their products with each other.

    The rows are read twice, by stripes of columns and at the end to turn weights back; a row is n_rows numbers between.
    """

    def __init__(self, prefix: Prefix):
        self._prefix = prefix
        n = prefix.size
        products, self.mean = np.zeros((n, n)), np.zeros(prefix.n_features)
        for columns, values in prefix.stripes(stripe_columns(n)):
            centred = values.astype(np.float64)
            self.mean[columns] = centred.mean(axis=0)
            centred -= self.mean[columns]
            products += centred @ centred.T
        squares, basis = _eigh(products, prefix)
        kept = squares > max(squares[-1], 0) * LEAST_VARIANCE
        if not kept.any():  # rows that are all alike
            kept[-1] = True
        deviations = np.sqrt(np.maximum(squares[kept], 0))
        self.variances = squares[kept] / n
        self._back = basis[:, kept] / np.where(deviations > 0, deviations, np.inf)
        self._keep((basis[:, kept] * deviations).astype(np.float32), prefix.step)

    def planes(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = self._back @ weights  # of each row in each plane
        planes = -np.outer(self.mean, shares.sum(axis=0))
        for rows, values in self._prefix.blocks():
            planes += values.T.astype(np.float64) @ shares[rows]
        return planes, -self.mean @ planes


def stripe_columns(n_rows: int) -> int:
    """Columns a stripe of so many rows."""
    return max(64, STRIPE_NBYTES // (12 * n_rows))


class Streamed:
    """Rows as they are, centred by arithmetic; weights turned in every pass."""

    def __init__(self, prefix: Prefix):
        self._prefix = prefix
        every = stride(prefix.size, prefix.step, BASIS_ROWS * prefix.n_features)
        gram, sums, n = np.zeros((prefix.n_features,) * 2), np.zeros(prefix.n_features), 0
        for _, values in prefix.blocks(every):
            gram += product_with_itself(values)
            sums += values.sum(axis=0, dtype=np.float64)
            n += len(values)
        self.mean = sums / n
        gram /= n
        gram -= np.outer(self.mean, self.mean)
        self.variances, directions = _eigh(gram, prefix)
        self.directions = directions.astype(np.float32)
        self.n_directions = prefix.n_features

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        return self._prefix.blocks(every)

    def turned(self, every: int) -> Iterator[np.ndarray]:
        mean = self.mean.astype(np.float32)
        return ((values - mean) @ self.directions for _, values in self.blocks(every))

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
        wanted = _sketch_rows(prefix.size, width)
        every = stride(prefix.size, prefix.step, 8 * wanted)
        some = np.empty((wanted, width), np.float32)
        sums, squares, n, found = np.zeros(width), 0.0, 0, 0
        apart = max(1, -(-prefix.size // every) // wanted)
        for _, values in prefix.blocks(every):
            sums += values.sum(axis=0, dtype=np.float64)
            squares += float(np.vdot(values, values))
            chosen = values[::apart][: wanted - found]
            some[found : found + len(chosen)] = chosen
            n, found = n + len(values), found + len(chosen)
        self.mean = sums / n
        some = some[:found] - self.mean.astype(np.float32)
        values, basis = _eigh((some @ some.T).astype(np.float64) / found, prefix)
        kept = values > max(values[-1], 0) * 1e-6
        self._variances = values[kept]
        self._directions = (some.T @ (basis[:, kept] / np.sqrt(found * values[kept])).astype(np.float32)).copy()
        total = squares / n - self.mean @ self.mean
        self._rest = max(total - self._variances.sum(), 0.0) / max(1, width - kept.sum())
        self.n_directions = width

    def blocks(self, every: int) -> Iterator[tuple[slice, np.ndarray]]:
        return self._prefix.blocks(every)

    def turned(self, every: int) -> None:
        return None

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


def nbytes(size: int, n_features: int, hold: bool, n_columns: int) -> int:
    """Memory of a space and of the planes (n_features, n_columns) that it gives, beside the rows a prefix holds."""
    planes = 32 * n_features * n_columns
    if _turned(size, n_features, hold):
        if size <= n_features:
            stripe = 12 * size * min(n_features, stripe_columns(size))
            return planes + stripe + 8 * n_features + 40 * size**2
        return planes + 8 * size * n_features + 40 * n_features**2
    if n_features <= WIDEST:
        return planes + 44 * n_features**2
    wanted = _sketch_rows(size, n_features)
    return planes + 12 * wanted * n_features + 32 * wanted**2


def _sketch_rows(size: int, n_features: int) -> int:
    return max(16, min(WIDEST, size, SKETCH_NBYTES // (4 * n_features)))
