"""Which eigenvalues are more than chance: nested tests against the extremes of surrogates, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Spectra = Callable[[dict[int, np.ndarray]], dict[int, np.ndarray]]


def p_values(eigenvalues: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """One-sided, the smaller of both, for eigenvalues (d,) against the extremes of spectra (n, d), ascending."""
    n = len(spectra)
    largest, smallest = np.sort(spectra[:, -1]), np.sort(spectra[:, 0])
    above = n - np.searchsorted(largest, eigenvalues, side="left")
    below = np.searchsorted(smallest, eigenvalues, side="right")
    return (1 + np.minimum(above, below)) / (1 + n)


def step_down(
    eigenvalues: np.ndarray, eigenvectors: np.ndarray, spectra_in: Spectra, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Significant (n_units, D), and the limits (n_units, 2) that the last test of each unit drew.

    eigenvalues (n_units, D); eigenvectors (n_units, D, D), a row each; NaN for units that are not to be tested.
    ``spectra_in`` gives the surrogates' eigenvalues in a basis (D, d) for each unit named, or in the whole space.

    First the largest and the smallest eigenvalue are held against those of the surrogates. What lies beyond, at
    ``level`` on both sides together, is significant, and is taken out of the space; what remains is held against
    surrogates in what remains of the space, until nothing lies beyond. Extremes in a space are extremes in none
    that is larger, so no step takes back what another found.
    """
    significant = np.zeros(eigenvalues.shape, bool)
    limits = np.full((len(eigenvalues), 2), np.nan)
    tails = level / 2, 1 - level / 2
    due = [u for u in range(len(eigenvalues)) if np.isfinite(eigenvalues[u]).all()]
    first: dict[int, np.ndarray] = {}
    while due:
        bases = {u: eigenvectors[u, ~significant[u]].T for u in due if significant[u].any()}
        found = spectra_in({u: bases.get(u, np.empty(0)) for u in due})
        first = first or found
        again = []
        for u in due:
            spectra, rest = found[u], np.flatnonzero(~significant[u])
            limits[u] = np.quantile(spectra[:, 0], tails[0]), np.quantile(spectra[:, -1], tails[1])
            beyond = p_values(eigenvalues[u, rest], spectra) <= level / 2
            significant[u, rest[beyond]] = True
            if beyond.any() and not beyond.all() and _may_go_on(eigenvalues[u], significant[u], first[u], level):
                again.append(u)
        due = again
    return significant, limits


def _may_go_on(eigenvalues: np.ndarray, significant: np.ndarray, spectra: np.ndarray, level: float) -> bool:
    """Whether another step could find more: surrogates less q dimensions keep at least their eigenvalue q + 1.

    By Cauchy's interlacing the largest eigenvalue in a space that lacks q dimensions is no less than number q + 1
    in the whole, and the smallest no more: where what remains lies within these already, no pass is needed.
    """
    q = int(significant.sum())
    bound = spectra[:, q : spectra.shape[1] - q]
    if not bound.shape[1]:
        return True
    # The extremes of the smaller space lie at least as far out as the last and the first of these.
    return bool((p_values(eigenvalues[~significant], bound) <= level / 2).any())
