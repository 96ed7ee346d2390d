"""Logistic regression to its optimum, all strengths of a prefix in the same passes over its rows.

Each strength has its own L-BFGS, in coordinates where the Hessian is near to diagonal; those that still need an
evaluation share the next pass, whose products are as wide as there are of them. Losses and gradients of a block are
float32, their sums float64. A prefix of many blocks is solved loosely on a sixteenth and on a quarter of its blocks
first, so that its own passes begin near their end; cells thus depend on nothing but their own rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import lbfgs, space
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.lbfgs import Minimisation
from lazypipe.models.sweep.planes import Planes
from lazypipe.models.sweep.rows import Prefix, block_rows
from lazypipe.models.sweep.space import Space, space_of
from lazypipe.stats.softmax_kernel import residuals

SHARES = (16, 4)  # every so many-th block, before all of them
LEAST_BLOCKS = 4  # of a share
LOOSE = 1e-3  # tolerance there


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """The optimum of each strength, as scikit-learn's LogisticRegression(C=strength) has it; see ``Model.fit``.

    Mean softmax loss over all classes, or the logistic loss of two with one plane, + ‖W‖² / (2 C size). Ends at a
    Newton decrement of ``options.tol`` of the objective; ``gap`` is that decrement. ``seed`` is not used.
    """
    n_outputs = 1 if n_classes == 2 else n_classes
    found = space_of(prefix)
    size = (found.n_directions + 1) * n_outputs
    keep = lbfgs.n_pairs(size, len(strengths))
    searches = [Minimisation(np.zeros(size), found.preconditioner(C, n_outputs), keep) for C in strengths]
    sums = Sums(found, targets, n_outputs)
    penalties = [1 / (C * prefix.size) for C in strengths]
    passes = np.zeros(len(strengths))
    n_blocks = -(-prefix.size // prefix.step)
    for every in [share for share in SHARES if n_blocks >= share * LEAST_BLOCKS] + [1]:
        active = list(range(len(strengths)))
        while active:
            points = [searches[i].trial.reshape(-1, n_outputs) for i in active]
            losses, gradients = sums(points, every)
            passes[active] += 1 / every
            following = []
            for i, point, loss, gradient in zip(active, points, losses, gradients, strict=True):
                weights = point[:-1]
                gradient[:-1] += penalties[i] * weights
                value = loss + penalties[i] / 2 * float(np.vdot(weights, weights))
                more = searches[i].tell(value, gradient.reshape(-1), options.tol if every == 1 else LOOSE)
                if more and passes[i] < options.max_passes:
                    following.append(i)
            active = following
        if every > 1:
            for search in searches:
                search.again()
    return _fitted(found, searches, strengths, passes, n_outputs)


class Sums:
    """Mean losses and their gradients at several points, in one pass over every so many-th block."""

    def __init__(self, found: Space, targets: np.ndarray, n_outputs: int):
        self.space, self.targets, self.n_outputs = found, targets.astype(np.int32), n_outputs

    def __call__(self, points: list[np.ndarray], every: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Losses (n_points,) and gradients (n_directions + 1, n_outputs) each; points likewise."""
        width = len(points) * self.n_outputs
        planes, offsets = self.space.to_rows(np.hstack([point[:-1] for point in points]))
        bias = (np.concatenate([point[-1] for point in points]) + offsets).astype(np.float32)
        losses, sums, products, n = np.zeros(len(points)), np.zeros(width), np.zeros((width, len(planes))), 0
        for rows, values in self.space.blocks(every):
            logits = values @ planes
            residuals(logits, bias, self.targets[rows], self.n_outputs, losses, sums)
            products += logits.T @ values
            n += len(values)
        gradient = np.vstack([self.space.from_rows(products, sums), sums]) / n
        return losses / n, [part.copy() for part in np.split(gradient, len(points), axis=1)]


def _fitted(
    found: Space, searches: list[Minimisation], strengths: Sequence[float], passes: np.ndarray, n_outputs: int
) -> Fitted:
    outcomes = []
    planes, intercepts = [], []
    for search, strength, n in zip(searches, strengths, passes, strict=True):
        outcome = Outcome(strength, passes=int(np.ceil(n)))
        if np.isfinite(search.value):
            outcome.objective, outcome.gap = float(search.value), float(search.decrement)
            outcome.converged = search.converged
        else:
            outcome.failed = "the loss overflows at the start: divide the entries by a constant"
        outcomes.append(outcome)
        point = search.point.reshape(-1, n_outputs)
        plane, offset = found.planes(point[:-1])
        planes.append(plane)
        intercepts.append(point[-1] + offset)
    decide = Planes(np.hstack(planes), np.concatenate(intercepts), n_outputs)
    return Fitted(outcomes, decide, decide.of)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Memory of a fit at most, the rows that are held and one block not included."""
    n_outputs = 1 if n_classes == 2 else n_classes
    width = n_outputs * n_strengths
    directions = min(n_features, size if size <= min(n_features, space.WIDEST) else n_features)
    products = width * (24 * directions + 12 * block_rows(n_features))
    return (
        max(space.nbytes(size, n_features, hold, width) for hold in (True, False))
        + lbfgs.nbytes((directions + 1) * n_outputs, n_strengths)
        + products
    )
