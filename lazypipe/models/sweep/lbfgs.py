"""Minimisations that ask for what they need of the data: many of them share one pass.

Preconditioned L-BFGS until it takes itself to be there, then conjugate gradients on the Hessian itself, which tell
how far there still is to go: the decrement of a quasi-Newton method alone may say a thousandth of it. Where that is
too far, they give the next step.

Sources: Nocedal, "Updating quasi-Newton matrices with limited storage", 1980; the approximate Wolfe condition,
which holds where the objective's own differences are lost in rounding: Hager, Zhang, SIAM J. Optim. 16, 2005;
preconditioning conjugate gradients by L-BFGS: Morales, Nocedal, SIAM J. Optim. 10, 2000; the energy of the steps as
an error: Hestenes, Stiefel, 1952.
"""

# mypy: allow-untyped-decorators
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

import numba
import numpy as np

from lazypipe.stats.kept import KEPT

ARMIJO, SLOPE_LEFT = 1e-4, 0.9
NOISE = 2e-6  # relative, of an objective summed from float32 losses; near a minimum the slopes decide
LEAST_STEP = 1e-5
LARGEST_PAIRS_NBYTES = 2**28
MOST_PAIRS, LEAST_PAIRS = 40, 4
RENEWED, SOON_RENEWED = 60, 12  # steps with one preconditioner: renewing a large one costs some passes
CERTAIN = 0.3  # of the energy: conjugate gradients end where their last two steps added less
LEAST_PRODUCTS, MOST_PRODUCTS = 2, 40

jit = numba.njit(nogil=True, cache=KEPT, fastmath={"reassoc", "contract"})


@jit
def dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@jit
def add(total: np.ndarray, factor: float, what: np.ndarray) -> None:
    for i in range(len(total)):
        total[i] += factor * what[i]


@jit
def _backward(q: np.ndarray, s: np.ndarray, y: np.ndarray, sy: np.ndarray, order: np.ndarray, by: np.ndarray) -> None:
    """The first loop: from the newest pair to the oldest."""
    for i in order[::-1]:
        by[i] = dot(s[i], q) / sy[i]
        add(q, -by[i], y[i])


@jit
def _forward(q: np.ndarray, s: np.ndarray, y: np.ndarray, sy: np.ndarray, order: np.ndarray, by: np.ndarray) -> None:
    """The second loop: from the oldest pair to the newest."""
    for i in order:
        add(q, by[i] - dot(y[i], q) / sy[i], s[i])


def n_pairs(n_parameters: int, n_strengths: int) -> int:
    """Pairs of differences to keep of each strength: 40, fewer where all of them would take over 256 MiB."""
    fit = LARGEST_PAIRS_NBYTES // max(1, 16 * n_parameters * n_strengths)
    return int(max(LEAST_PAIRS, min(MOST_PAIRS, fit)))


def nbytes(n_parameters: int, n_strengths: int) -> int:
    """Memory of the minimisations of all strengths, and of the vectors on their way."""
    return n_strengths * n_parameters * 8 * (2 * n_pairs(n_parameters, n_strengths) + 10)


Precondition = Callable[[np.ndarray], np.ndarray]  # about the inverse Hessian times a flat vector


class Request(NamedTuple):
    """Wanted of the data: value and gradient at ``point``; with ``along`` the Hessian there times it.

    With ``curvature`` a preconditioner for that point.
    """

    point: np.ndarray
    along: np.ndarray | None = None
    curvature: bool = False


class Answer(NamedTuple):
    """``vector``: the gradient, or the Hessian's product; ``precondition`` None where there is none to be had."""

    value: float
    vector: np.ndarray
    precondition: Precondition | None = None


class Found(NamedTuple):
    """Where a minimisation ended. ``decrement``: about (value - minimum) / value."""

    point: np.ndarray
    value: float
    decrement: float
    converged: bool


Asking = Generator[Request, Answer, Found]


class Curvature:
    """About the inverse Hessian: a preconditioner, and what the last steps told of it. ``found``: how far one came."""

    def __init__(self, size: int, precondition: Precondition, n_pairs: int):
        self.precondition = precondition
        self._s, self._y = (np.empty((n_pairs, size)) for _ in range(2))
        self._sy = np.empty(n_pairs)
        self._order: list[int] = []  # of the pairs, oldest first
        self._scale = 1.0
        self.found: Found | None = None

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The two loops about the preconditioner, scaled by the newest pair."""
        q = vector.copy()
        order, by = np.array(self._order, np.int64), np.empty(len(self._sy))
        _backward(q, self._s, self._y, self._sy, order, by)
        q = self.precondition(q) * self._scale
        _forward(q, self._s, self._y, self._sy, order, by)
        return q

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """Take in a step and what it changed of the gradient, unless rounding hides it."""
        sy = dot(s, y)
        if not sy > 1e-12 * np.sqrt(dot(s, s) * dot(y, y)):
            return
        slot = len(self._order) if len(self._order) < len(self._sy) else self._order.pop(0)
        self._s[slot], self._y[slot], self._sy[slot] = s, y, sy
        self._order.append(slot)
        self._scale = sy / dot(self.precondition(y), y)

    def renew(self, precondition: Precondition | None) -> None:
        """Begin anew about another preconditioner, if there is one."""
        if precondition is not None:
            self.precondition = precondition
            self.forget()

    def forget(self) -> None:
        """Drop what the steps told."""
        self._order, self._scale = [], 1.0


def minimise(point: np.ndarray, curvature: Curvature, tol: float, certain: bool = True, exact: bool = False) -> Asking:
    """Minimise from ``point``, as a generator: it yields requests and is sent their answers.

    Ends where the Newton decrement ``gᵀ H⁻¹ g / 2``, about the value less its minimum, is at most ``tol`` of the
    value, by conjugate gradients or, unless ``certain``, by ``curvature`` alone; or where rounding leaves no
    descent. ``curvature`` keeps what it learns. It is renewed after 60 steps; after 12, and before the conjugate
    gradients at the end, where a new one is the Hessian itself (``exact``).
    """
    value, gradient, _ = yield Request(point)
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        return Found(point, np.inf, np.inf, False)
    steps = 0  # with this preconditioner
    while True:
        if steps >= (SOON_RENEWED if exact else RENEWED):
            curvature.renew((yield Request(point, curvature=True)).precondition)
            steps = 0
        direction = -curvature.times(gradient)
        decrement = _relative(-dot(gradient, direction) / 2, value)
        curvature.found = Found(point, value, decrement, False)
        if decrement <= tol:
            if certain and gradient.any():
                if exact and steps:
                    curvature.renew((yield Request(point, curvature=True)).precondition)
                    steps = 0
                direction, decrement = yield from _newton(point, value, gradient, curvature)
            if decrement <= tol:
                return Found(point, value, decrement, True)
        step = yield from _search(point, value, gradient, direction)
        if step is not None:
            following, answer = step
            curvature.learn(following - point, answer.vector - gradient)
            point, value, gradient, steps = following, answer.value, answer.vector, steps + 1
        elif steps:  # what was learnt on the way here may mislead
            curvature.renew((yield Request(point, curvature=True)).precondition)
            curvature.forget()
            steps = 0
        else:
            if certain:
                decrement = (yield from _newton(point, value, gradient, curvature))[1]
            return Found(point, value, decrement, decrement <= tol)


def _relative(energy: float, value: float) -> float:
    """Of a value that cannot fall below 0."""
    return min(float(energy / value), 1.0) if value else 0.0


def _newton(
    point: np.ndarray, value: float, gradient: np.ndarray, curvature: Curvature
) -> Generator[Request, Answer, tuple[np.ndarray, float]]:
    """The Newton direction and its decrement, relative to the value, by preconditioned conjugate gradients."""
    direction, rest = np.zeros_like(gradient), gradient.copy()
    first = near = curvature.times(rest)
    along, size = near, dot(rest, near)
    energies: list[float] = []
    while len(energies) < MOST_PRODUCTS:
        product = (yield Request(point, along)).vector
        bend = dot(along, product)
        if not bend > 0:  # nothing but rounding is left
            break
        length = size / bend
        add(direction, -length, along)
        add(rest, -length, product)
        energies.append(length * size / 2)
        if len(energies) >= LEAST_PRODUCTS and sum(energies[-2:]) <= CERTAIN * sum(energies):
            break
        near = curvature.times(rest)
        before, size = size, dot(rest, near)
        if not size > 0:
            break
        along = near + (size / before) * along
    if not energies:
        return -first, _relative(dot(gradient, first) / 2, value)
    return direction, _relative(sum(energies), value)


def _search(
    point: np.ndarray, value: float, gradient: np.ndarray, direction: np.ndarray
) -> Generator[Request, Answer, tuple[np.ndarray, Answer] | None]:
    """A point along ``direction`` that is lower, or as low as rounding tells and less steep; None without one."""
    slope, length = dot(gradient, direction), 1.0
    if not slope < 0:
        return None
    while length >= LEAST_STEP:
        trial = point + length * direction
        answer = yield Request(trial)
        steep = dot(answer.vector, direction)
        if np.isfinite(answer.value) and np.isfinite(steep):
            if answer.value <= value + ARMIJO * length * slope:
                return trial, answer
            level = answer.value <= value + NOISE * abs(value)
            if level and steep <= (2 * ARMIJO - 1) * slope and abs(steep) <= SLOPE_LEFT * abs(slope):
                return trial, answer
        rise = answer.value - value - slope * length
        lowest = -slope * length**2 / (2 * rise) if np.isfinite(rise) and rise > 0 else 0.0
        length = min(max(lowest, 0.1 * length), 0.5 * length)  # of a parabola through what is known
    return None
