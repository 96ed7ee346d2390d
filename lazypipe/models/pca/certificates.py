"""How far eigenvalues and components can be from the truth, from residuals and measured gaps.

For a unit vector v with ``r = ‖C v - θ v‖`` and the other eigenvalues at least ``gap`` away from θ:
an eigenvalue lies within ``min(r, r² / gap)`` of θ (Kato, Temple), and v within ``arcsin(r / gap)`` of its
eigenvector (C. Davis, W. M. Kahan, SIAM J. Numer. Anal. 7, 1970). The gaps are measured: to the other Ritz
values, less their own residuals, so they hold as far as the leading eigenvalues were found.
Sampling blurs a pair too: eigenvalues closer than ``λ sqrt(2 / N)`` are not told apart by N rows
(North, Bell, Cahalan, Moeng, Mon. Weather Rev. 110, 1982).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Certificate(NamedTuple):
    """How sure the k leading pairs are."""

    gaps: np.ndarray  # (k,) to the nearest other eigenvalue, at least; 0 where it cannot be told
    eigenvalue_bounds: np.ndarray  # (k,) |λ - θ| at most
    angle_bounds: np.ndarray  # (k,) radians; π/2 says nothing
    close: list[tuple[int, int]]  # pairs of components (from 0) too close to tell apart; k is the next one


def certificate(
    values: np.ndarray, residuals: np.ndarray, others: np.ndarray, total: float, n_rows: float
) -> Certificate:
    """Bounds for eigenvalues ``values`` (k,), descending, with residuals ‖C v - θ v‖ (k,).

    ``others`` (m, 2) are the next Ritz values with their residuals; where there are none, the variance
    that the k leave of the ``total`` bounds the next one. ``n_rows`` is N.
    """
    k = len(values)
    if len(others):
        next_value, next_residual = others[0]
    else:
        next_value, next_residual = min(values[-1], max(total - values.sum(), 0.0)), 0.0
    value = np.append(values, max(next_value, 0.0))
    residual = np.append(residuals, next_residual)
    apart = value[:-1] - value[1:]  # (k,) of each pair of neighbours
    gaps = np.empty(k)
    for i in range(k):
        below = apart[i] - residual[i + 1]
        above = apart[i - 1] - residual[i - 1] if i else np.inf
        gaps[i] = max(min(below, above), 0.0)
    safe = np.where(gaps > 0, gaps, 1)
    sine = np.where(gaps > 0, np.minimum(residuals / safe, 1), 1)
    bounds = np.where(gaps > residuals, np.minimum(residuals, residuals**2 / safe), residuals)
    angles = np.arcsin(sine)
    sampling = values * np.sqrt(2 / n_rows)
    blurred = (apart < sampling) | (apart <= 2 * (residual[:-1] + residual[1:]))
    last = k if len(others) else k - 1  # an upper bound of the next one tells nothing of their distance
    return Certificate(gaps, bounds, angles, [(i, i + 1) for i in range(last) if blurred[i]])


def told(close: list[tuple[int, int]], n_rows: float) -> str:
    """The pairs as a sentence, components counted from 1; nothing where there are none."""
    if not close:
        return ""
    pairs = ", ".join(f"{i + 1} and {j + 1}" for i, j in close[:4]) + (" and more" if len(close) > 4 else "")
    return (
        f"the eigenvalues of components {pairs} are closer than {n_rows:,.0f} rows can tell apart "
        f"(λ sqrt(2/N), North et al. 1982): only what they span together means something."
    )
