"""One minimisation by preconditioned L-BFGS that asks for its evaluations: many of them share one pass.

Sources: Nocedal, "Updating quasi-Newton matrices with limited storage", 1980; the approximate Wolfe condition,
which holds where the objective's own differences are lost in rounding: Hager, Zhang, SIAM J. Optim. 16, 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

ARMIJO, CURVATURE = 1e-4, 0.9
NOISE = 2e-6  # relative, of an objective summed from float32 losses; near a minimum the slopes decide
LEAST_STEP = 1e-5
LARGEST_PAIRS_NBYTES = 2**28
MOST_PAIRS, LEAST_PAIRS = 20, 4

jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})


@jit
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@jit
def _add(total: np.ndarray, factor: float, what: np.ndarray) -> None:
    for i in range(len(total)):
        total[i] += factor * what[i]


@jit
def _backward(q: np.ndarray, s: np.ndarray, y: np.ndarray, sy: np.ndarray, order: np.ndarray, by: np.ndarray) -> None:
    """The first loop: from the newest pair to the oldest."""
    for i in order[::-1]:
        by[i] = _dot(s[i], q) / sy[i]
        _add(q, -by[i], y[i])


@jit
def _forward(q: np.ndarray, s: np.ndarray, y: np.ndarray, sy: np.ndarray, order: np.ndarray, by: np.ndarray) -> None:
    """The second loop: from the oldest pair to the newest."""
    for i in order:
        _add(q, by[i] - _dot(y[i], q) / sy[i], s[i])


def n_pairs(n_parameters: int, n_strengths: int) -> int:
    """Pairs of differences to keep of each strength: 20, fewer where all of them would take over 256 MiB."""
    fit = LARGEST_PAIRS_NBYTES // max(1, 16 * n_parameters * n_strengths)
    return int(max(LEAST_PAIRS, min(MOST_PAIRS, fit)))


def nbytes(n_parameters: int, n_strengths: int) -> int:
    """Memory of the minimisations of all strengths, and of the vectors on their way."""
    return n_strengths * n_parameters * 8 * (2 * n_pairs(n_parameters, n_strengths) + 10)


class Minimisation:
    """Minimise f from ``start``: evaluate at ``trial``, hand the value and gradient to ``tell``, until it says no.

    ``precondition`` applies about the inverse of the Hessian. It ends where the Newton decrement ``-gᵀd / 2``,
    about f less its minimum, is at most ``tol`` of f; or where rounding leaves no descent to be found.
    ``decrement`` (relative) and ``converged`` tell which. ``point`` and ``value`` are the last ones accepted.
    """

    def __init__(self, start: np.ndarray, precondition: Callable[[np.ndarray], np.ndarray], n_pairs: int):
        self.point = self.trial = start
        self.precondition = precondition
        self.value = np.inf
        self.decrement = np.inf
        self.converged = False
        self._gradient: np.ndarray | None = None
        self._direction = np.zeros(0)
        self._slope = 0.0
        self._step = 1.0
        self._s, self._y = (np.empty((n_pairs, start.size)) for _ in range(2))
        self._sy = np.empty(n_pairs)
        self._order: list[int] = []  # of the pairs, oldest first

    def again(self, precondition: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Begin anew at the point found, of a function near the one before: its curvature is kept."""
        self.precondition = precondition or self.precondition
        self.trial, self._gradient, self.converged = self.point, None, False

    def tell(self, value: float, gradient: np.ndarray, tol: float) -> bool:
        """Take f and its gradient at ``trial``; whether another evaluation is wanted."""
        if self._gradient is not None:
            along = float(_dot(gradient, self._direction))
            if not self._accepted(value, along):
                return self._shorter(value)
            self._keep_pair(gradient)
        elif not (np.isfinite(value) and np.isfinite(gradient).all()):
            return False
        self.point, self.value, self._gradient = self.trial, value, gradient
        return self._next(tol)

    def _accepted(self, value: float, along: float) -> bool:
        if not (np.isfinite(value) and np.isfinite(along)):
            return False
        if value <= self.value + ARMIJO * self._step * self._slope:
            return True
        level = value <= self.value + NOISE * abs(self.value)
        return level and along <= (2 * ARMIJO - 1) * self._slope and abs(along) <= CURVATURE * abs(self._slope)

    def _shorter(self, value: float) -> bool:
        """Another trial nearer by, where a parabola through what is known has its minimum."""
        rise = value - self.value - self._slope * self._step
        best = -self._slope * self._step**2 / (2 * rise) if np.isfinite(rise) and rise > 0 else 0.0
        self._step = min(max(best, 0.1 * self._step), 0.5 * self._step)
        if self._step < LEAST_STEP:
            if not self._order:
                return False
            self._order = []  # what the pairs tell of the curvature led nowhere
            self._aim()
        self.trial = self.point + self._step * self._direction
        return True

    def _keep_pair(self, gradient: np.ndarray) -> None:
        assert self._gradient is not None
        s, y = self.trial - self.point, gradient - self._gradient
        sy = float(_dot(s, y))
        if not sy > 1e-12 * np.sqrt(_dot(s, s) * _dot(y, y)):
            return
        slot = len(self._order) if len(self._order) < len(self._sy) else self._order.pop(0)
        self._s[slot], self._y[slot], self._sy[slot] = s, y, sy
        self._order.append(slot)

    def _next(self, tol: float) -> bool:
        self._aim()
        self.decrement = -self._slope / 2 / abs(self.value) if self.value else 0.0
        if not self._slope < 0 or self.decrement <= tol:
            self.converged = True
            return False
        self.trial = self.point + self._direction
        return True

    def _aim(self) -> None:
        """The direction from ``point``: the two loops about the preconditioner, scaled by the newest pair."""
        assert self._gradient is not None
        q = self._gradient.copy()
        order, by = np.array(self._order, np.int64), np.empty(len(self._sy))
        _backward(q, self._s, self._y, self._sy, order, by)
        if len(order):
            y = self._y[order[-1]]
            q = self.precondition(q) * (self._sy[order[-1]] / float(_dot(self.precondition(y), y)))
        else:
            q = self.precondition(q)
        _forward(q, self._s, self._y, self._sy, order, by)
        self._direction = -q
        self._slope = float(_dot(self._gradient, self._direction))
        self._step = 1.0
