"""Ridge regression of all strengths in closed form.

With rows centred about their mean, ``X`` (n, D), and targets about theirs, ``y`` (n,), the weights that minimise
``mean ½(y - X w)² + ‖w‖² / (2 C n)`` solve ``(XᵀX + I / C) w = Xᵀy``; with fewer rows than columns
``w = Xᵀa, (XXᵀ + I / C) a = y``, a smaller system. Its matrix, ``V Λ Vᵀ``, is decomposed once.
(Hoerl and Kennard, "Ridge regression", Technometrics 12, 1970; Saunders, Gammerman and Vovk, ICML 1998.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.rows import Prefix, block_rows

STRIPE_COLUMNS = 512  # at once, of fewer rows than columns


class Solved(NamedTuple):
    """The weights for each ridge, their objectives, and how far these are from the optima."""

    mean: np.ndarray  # (D,) of the rows
    coef: np.ndarray  # (n_ridges, D)
    objectives: list[float]
    excesses: list[float]  # of the objectives over their optima
    passes: int


class System:
    """``(matrix + ridge I) a = right``, for any ridge, from one eigendecomposition."""

    def __init__(self, matrix: np.ndarray, right: np.ndarray):
        self.matrix, self.right = matrix, right
        values, self.vectors = np.linalg.eigh(matrix)
        self.values = np.maximum(values, 0)
        self._right = self.vectors.T @ right

    def solve(self, ridge: float) -> np.ndarray:
        return self.vectors @ (self._right / (self.values + ridge))

    def residual(self, a: np.ndarray, ridge: float) -> np.ndarray:
        """Of the equations as they stand, in the basis of the eigenvectors."""
        return self.vectors.T @ (self.right - self.matrix @ a - ridge * a)


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit all strengths, as scikit-learn's ``Ridge(alpha=1 / C)``; ``targets`` (size,) float64, ``n_classes`` 0.

    Products and sums are in float64: from products in float32 the weights are off by 1e-4 where the condition
    number of X is 100, by 6e-3 where it is 1,000. ``gap`` is what the residual of the equations, as summed, adds to
    the objective. Passes: one; two, by stripes of columns, of fewer rows than columns. Memory: 5 float64 matrices
    of min(size, D) rows and columns.
    """
    centre = targets.mean(dtype=np.float64)
    solve = _by_rows if prefix.size < prefix.n_features else _by_columns
    found = solve(prefix, targets - centre, [1 / strength for strength in strengths])
    coef, intercept = found.coef, centre - found.coef @ found.mean
    outcomes = [
        Outcome(strength, objective, excess / (objective or 1), found.passes, excess <= options.tol * objective)
        for strength, objective, excess in zip(strengths, found.objectives, found.excesses, strict=True)
    ]
    return Fitted(outcomes, lambda rows: rows @ coef.T + intercept, lambda i: (coef[i : i + 1], intercept[i : i + 1]))


def _by_columns(prefix: Prefix, y: np.ndarray, ridges: Sequence[float]) -> Solved:
    """From the products of the columns."""
    n, d = prefix.size, prefix.n_features
    total, products, by_y = np.zeros(d), np.zeros((d, d)), np.zeros(d)
    for rows, values in prefix.blocks():
        x = values.astype(np.float64)
        total += x.sum(axis=0)
        by_y += y[rows] @ x
        products += x.T @ x
    mean = total / n
    by_y -= y.sum() * mean  # 0, but for rounding
    for i, row in enumerate(products):  # by rows: an outer product would be a matrix more
        row -= n * mean[i] * mean
    system, square = System(products, by_y), y @ y
    coef, objectives, excesses = np.empty((len(ridges), d)), [], []
    for i, ridge in enumerate(ridges):
        w = coef[i] = system.solve(ridge)
        squares = max(0.0, square - 2 * (w @ by_y) + w @ products @ w)
        objectives.append(float(squares + ridge * (w @ w)) / (2 * n))
        excesses.append(float((system.residual(w, ridge) ** 2 / (system.values + ridge)).sum()) / (2 * n))
    return Solved(mean, coef, objectives, excesses, 1)


def _by_rows(prefix: Prefix, y: np.ndarray, ridges: Sequence[float]) -> Solved:
    """From the products of the rows."""
    n, d = prefix.size, prefix.n_features
    mean, products = np.empty(d), np.zeros((n, n))
    for columns, values in prefix.stripes(STRIPE_COLUMNS):
        mean[columns] = values.mean(axis=0, dtype=np.float64)
        x = values - mean[columns]
        products += x @ x.T
    system = System(products, y)
    solutions, objectives, excesses = np.empty((len(ridges), n)), [], []
    for i, ridge in enumerate(ridges):
        a = solutions[i] = system.solve(ridge)
        of_a = products @ a
        objectives.append(float((y - of_a) @ (y - of_a) + ridge * (a @ of_a)) / (2 * n))
        share = system.values / (system.values + ridge)
        excesses.append(float((system.residual(a, ridge) ** 2 * share).sum()) / (2 * n))
    coef = np.empty((len(ridges), d))
    for columns, values in prefix.stripes(STRIPE_COLUMNS):
        coef[:, columns] = solutions @ (values - mean[columns])
    return Solved(mean, coef, objectives, excesses, 2)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Bytes at most: the matrix and its decomposition, a block or a stripe in float64, and the weights."""
    matrices = 40 * min(size, n_features) ** 2
    if size < n_features:
        x = 20 * size * min(n_features, STRIPE_COLUMNS)
    else:
        x = 8 * n_features * min(size, block_rows(n_features))
    decided = 8 * n_features * block_rows(n_features)
    return matrices + max(x, decided) + 24 * n_strengths * n_features + 40 * (size + n_features)
