"""Least squares on what one pass leaves: the products of [X y], or their triangular factor.

Both are scaled so that the matrix solved has a unit diagonal, which makes its condition number nearly
the smallest that any scaling of the columns gives (A. van der Sluis, Numer. Math. 14, 1969). The normal
equations ``(XᵀX + ridge I) b = Xᵀy`` square the condition number of X, the factor does not (G. H. Golub,
C. F. Van Loan, "Matrix Computations", 4th ed. 2013, section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigvalsh, qr, solve_triangular, svdvals

from lazypipe.stats.covariance import CovarianceMatrix
from lazypipe.stats.tsqr import triangular_factor

MATRICES = 6  # of n_columns² float64 that a solution holds at most, the products themselves included
ALL = 0.1  # relative error past which an answer is none
SHARE = 1e-3  # of the largest coefficient that a column has to have, to be named as part of a combination


class Products(NamedTuple):
    """``gram`` (D + 1, D + 1) of the columns of [X y], y last; centred where there is an intercept."""

    mean: np.ndarray  # (D + 1,)
    gram: np.ndarray
    total_squares: float  # of y about its mean


class Factor(NamedTuple):
    """``upper`` (D + 1, D + 1), upper triangular: ``upperᵀ upper`` is the gram of Products."""

    mean: np.ndarray
    upper: np.ndarray
    total_squares: float


@dataclass(frozen=True)
class Solution:
    """Coefficients (D,), and what their standard errors take. ``loss`` is their relative error, about."""

    coef: np.ndarray
    residual_squares: float
    condition: float  # 2-norm, of X with columns of unit length, without the ridge
    loss: float
    scale: np.ndarray  # (D,): coef = scale * scaled coefficients
    inverse: np.ndarray  # (D, D) upper triangular: inverse inverseᵀ = (scaled XᵀX + penalty)⁻¹
    penalty: np.ndarray  # (D,) the ridge in scaled coordinates

    def variances(self) -> np.ndarray:
        """Diagonal (D,) of ``A⁻¹ XᵀX A⁻¹`` for ``A = XᵀX + ridge I``: variances for residuals of variance 1."""
        variances = np.einsum("ij,ij->i", self.inverse, self.inverse)
        if self.penalty.any():
            half = (self.inverse @ self.inverse.T) * np.sqrt(self.penalty)
            variances -= np.einsum("ij,ij->i", half, half)  # A⁻¹ XᵀX A⁻¹ = A⁻¹ - ridge A⁻¹ A⁻¹
        return np.maximum(variances, 0) * self.scale**2

    def variance_along(self, point: np.ndarray) -> float:
        """Variance of ``point @ coef`` for residuals of variance 1; ``point`` (D,)."""
        half = self.inverse.T @ (self.scale * point)
        variance = half @ half
        if self.penalty.any():
            whole = self.inverse @ half
            variance -= self.penalty @ whole**2
        return float(max(variance, 0.0))

    def parameters(self) -> float:
        """Trace of ``X A⁻¹ Xᵀ``: the columns of X, less what the ridge takes from them."""
        if not self.penalty.any():
            return float(len(self.coef))
        return float(len(self.coef) - self.penalty @ np.einsum("ij,ij->i", self.inverse, self.inverse))


def products_of(found: CovarianceMatrix, order: np.ndarray, intercept: bool) -> Products:
    """Products of the columns ``order`` (y last), from mean and covariance with ``ddof=0``; reuses its memory.

    Without an intercept they are rebuilt as n cov + n m mᵀ: exact, and kinder to float32 than products
    about zero would be.
    """
    mean, gram = found.mean[order], found.covariance
    if not np.array_equal(order, np.arange(len(order))):
        gram = gram[np.ix_(order, order)]
    gram *= found.n_rows
    total_squares = max(float(gram[-1, -1]), 0.0)
    if not intercept:
        for i, row in enumerate(gram):
            row += found.n_rows * (mean[i] * mean)
    return Products(mean, gram, total_squares)


def factor_of(upper: np.ndarray, shift: np.ndarray, order: np.ndarray, intercept: bool) -> Factor:
    """The factor of the columns ``order`` (y last), from that of the rows ``[1, x - shift]``."""
    ones, rest = upper[:, 0], upper[:, 1:][:, order]
    shift = shift.astype(np.float64)[order]
    mean = shift + rest[0] / ones[0]
    total_squares = float(rest[1:, -1] @ rest[1:, -1])
    # Below the row of the ones lies what is orthogonal to them: the centred rows.
    wanted = rest[1:] if intercept else rest + np.outer(ones, shift)
    return Factor(mean, triangular_factor(wanted), total_squares)


def solve_products(products: Products, ridge: float, rounding: float) -> Solution | None:
    """By Cholesky; ``rounding`` is the relative error of the products. None where nothing is left."""
    gram, cross, squares = products.gram[:-1, :-1], products.gram[:-1, -1], float(products.gram[-1, -1])
    scale, penalty = _scaling(gram.diagonal(), ridge)
    scaled = gram * scale[:, np.newaxis]
    scaled *= scale
    scaled[np.diag_indices_from(scaled)] += penalty
    condition = _condition(scaled)
    if not condition * rounding < ALL:
        return None
    try:
        upper = cholesky(scaled, check_finite=False)
    except LinAlgError:
        return None
    solved = solve_triangular(upper, scale * cross, trans="T", check_finite=False)
    coef = scale * solve_triangular(upper, solved, check_finite=False)
    residual_squares = max(squares - float(solved @ solved) - ridge * float(coef @ coef), 0.0)
    own = condition
    if ridge:
        unit = _unit(gram.diagonal())
        own = _condition(gram * unit[:, np.newaxis] * unit)
        own = own if own * rounding < ALL else np.inf
    return Solution(coef, residual_squares, float(np.sqrt(own)), condition * rounding, scale, _inverse(upper), penalty)


def solve_factor(factor: Factor, ridge: float, rounding: float) -> Solution | None:
    """By back substitution, with the ridge as further rows below. None where nothing is left."""
    upper, cross, rest = factor.upper[:-1, :-1], factor.upper[:-1, -1], float(factor.upper[-1, -1])
    squares = np.einsum("ij,ij->j", upper, upper)
    scale, penalty = _scaling(squares, ridge)
    scaled = upper * scale
    solved, triangle = cross, scaled
    if ridge:
        below = np.column_stack([np.diag(np.sqrt(penalty)), np.zeros(len(penalty))])
        both = triangular_factor(np.vstack([np.column_stack([scaled, cross]), below]))
        triangle, solved = both[: len(scale), :-1], both[: len(scale), -1]
    lengths = svdvals(upper * _unit(squares), check_finite=False)
    condition = float(lengths[0] / lengths[-1]) if lengths[-1] > 0 else np.inf
    solved_lengths = svdvals(triangle, check_finite=False) if ridge else lengths
    if not ALL * solved_lengths[-1] > rounding * solved_lengths[0]:
        return None
    loss = rounding * float(solved_lengths[0] / solved_lengths[-1])
    part = solve_triangular(triangle, solved, check_finite=False)
    misfit = cross - scaled @ part
    residual_squares = float(misfit @ misfit) + rest**2
    return Solution(scale * part, residual_squares, condition, loss, scale, _inverse(triangle), penalty)


def dependent_columns(factor: Factor, relative_rounding: np.ndarray) -> list[tuple[int, list[int]]]:
    """Columns of X that the others give, each with those it is a combination of; none at full rank.

    ``relative_rounding`` (D,) is the rounding of each column's values, relative to its length in the
    factor. A column k is dependent where the rounding of the columns before it, in the order that
    pivoting finds, could make all of what they leave of it: with S = R⁻¹, where |rounding S e_k| >= 1.
    """
    upper = factor.upper[:-1, :-1]
    unit = _unit(np.einsum("ij,ij->j", upper, upper))
    triangle, order = qr(upper * unit, mode="r", pivoting=True, check_finite=False)
    rounding = relative_rounding[order]
    left = np.abs(triangle.diagonal())
    rank = int(np.argmax(left <= rounding)) if (left <= rounding).any() else len(left)
    inverse = _inverse(triangle[:rank, :rank])
    doubt = np.linalg.norm(rounding[:rank, np.newaxis] * inverse, axis=0)
    rank = int(np.argmax(doubt >= 1)) if (doubt >= 1).any() else rank
    vanishing = np.zeros((len(order) - rank, len(order)))  # combinations of columns that vanish, a row each
    parts = solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:], check_finite=False)
    vanishing[:, order[:rank]] = parts.T
    vanishing[np.arange(len(vanishing)), order[rank:]] = -1
    return _last_of_each(vanishing)


def _last_of_each(vanishing: np.ndarray) -> list[tuple[int, list[int]]]:
    """The last column of each combination (a row, overwritten) with its others, none of them a last one itself."""
    last: dict[int, int] = {}  # row: column
    for column in reversed(range(vanishing.shape[1])):
        share = np.abs(vanishing[:, column]) / np.abs(vanishing).max(axis=1, initial=0)
        share[list(last)] = 0
        if len(last) < len(vanishing) and share.max() > SHARE:
            row = int(np.argmax(share))
            last[row] = column
            others = np.arange(len(vanishing)) != row
            factors = vanishing[others, column] / vanishing[row, column]
            vanishing[others] -= factors[:, np.newaxis] * vanishing[row]
    found = []
    for row, column in last.items():
        parts = np.abs(vanishing[row])
        others_of = np.flatnonzero(parts > SHARE * parts.max())
        found.append((column, [int(j) for j in others_of if j != column]))
    return sorted(found)


def _scaling(squares: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale (D,) that makes the diagonal of XᵀX + ridge I one, and the ridge so scaled (D,)."""
    scale = _unit(squares + ridge)
    return scale, ridge * scale**2


def _unit(squares: np.ndarray) -> np.ndarray:
    """Scale (D,) to unit length; 1 where there is none."""
    return 1 / np.sqrt(np.where(squares > 0, squares, 1.0))


def _condition(symmetric: np.ndarray) -> float:
    """2-norm condition number; infinity where it is not positive definite."""
    values = eigvalsh(symmetric, check_finite=False)
    return float(values[-1] / values[0]) if values[0] > 0 else np.inf


def _inverse(upper: np.ndarray) -> np.ndarray:
    return solve_triangular(upper, np.eye(len(upper)), check_finite=False)
