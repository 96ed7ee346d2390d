"""Logistic regression to its optimum, all strengths of a prefix in the same passes over its rows.

Each strength has its own L-BFGS, in coordinates where the Hessian is near to diagonal; those that still need an
evaluation share the next pass, whose products are as wide as there are of them. Losses and gradients of a block are
float32, their sums float64. A prefix of many blocks is solved loosely on a sixteenth and on a quarter of its blocks
first, so that its own passes begin near their end; cells thus depend on their own rows and on the strengths beside
them, whose products they share, alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lazypipe.models.sweep import curvature, lbfgs, space
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.lbfgs import Answer, Asking, Curvature, Found, Request, minimise
from lazypipe.models.sweep.planes import Planes, n_outputs_of
from lazypipe.models.sweep.rows import Prefix, block_rows
from lazypipe.models.sweep.space import Space, space_of
from lazypipe.stats.softmax_kernel import bend, residuals
from lazypipe.stats.thin import Thin

SHARES = (16, 4)  # every so many-th block, before all of them
LEAST_BLOCKS = 4  # of a share
LOOSE = 1e-3  # tolerance there
HESSIAN_ROWS = 16  # rows a direction that products with the Hessian are of: a sample is near enough


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """The optimum of each strength, as scikit-learn's LogisticRegression(C=strength) has it; see ``Model.fit``.

    Mean softmax loss over all classes, or the logistic loss of two with one plane, + ‖W‖² / (2 C size). Ends at a
    Newton decrement of ``options.tol`` of the objective; ``gap`` is that decrement. ``seed`` is not used.
    """
    n_outputs = n_outputs_of(n_classes)
    with np.errstate(over="ignore", invalid="ignore"):  # it looks for both
        found = space_of(prefix)
    size = (found.n_directions + 1) * n_outputs
    keep = lbfgs.n_pairs(size, len(strengths))
    curvatures = [Curvature(size, found.preconditioner(C, n_outputs), keep) for C in strengths]
    sums = Sums(found, targets, prefix.step, n_outputs, [1 / (C * prefix.size) for C in strengths])
    ends = [Found(np.zeros(size), np.inf, np.inf, False)] * len(strengths)
    passes = np.zeros(len(strengths))
    n_blocks = -(-prefix.size // prefix.step)
    for every in [share for share in SHARES if n_blocks >= share * LEAST_BLOCKS] + [1]:
        searches = [
            minimise(
                end.point,
                about,
                options.tol if every == 1 else LOOSE,
                every == 1,
                curvature.is_whole(prefix.size, size),
            )
            for end, about in zip(ends, curvatures, strict=True)
        ]
        ends = _together(searches, curvatures, sums, every, passes, options.max_passes)
    return _fitted(found, ends, strengths, passes, n_outputs)


def _together(
    searches: list[Asking], curvatures: list[Curvature], sums: Sums, every: int, passes: np.ndarray, most: int
) -> list[Found]:
    """Answer what all searches ask for, one pass after another; those that took ``most`` passes end as they are."""
    ends: dict[int, Found] = {}
    asked = {i: next(search) for i, search in enumerate(searches)}
    some = max(
        every, space.stride(sums.n_rows, sums.step, HESSIAN_ROWS * sums.space.n_directions)
    )  # blocks that tell the Hessian
    while asked:
        gradients = {i: request for i, request in asked.items() if request.along is None}
        products = {i: request for i, request in asked.items() if request.along is not None}
        passes[list(gradients)] += 1 / every
        passes[list(products)] += 1 / some
        answers = (sums.gradients(gradients, every) if gradients else {}) | (
            sums.products(products, some) if products else {}
        )
        for i, answer in answers.items():
            try:
                asked[i] = searches[i].send(answer)
                while asked[i].curvature:
                    asked[i] = searches[i].send(sums.curvature(i, asked[i].point))
            except StopIteration as stop:
                ends[i] = stop.value
                del asked[i]
                continue
            found = curvatures[i].found
            if passes[i] >= most and found is not None:
                ends[i] = found._replace(decrement=np.nan)  # without the Hessian it would tell too little
                del asked[i]
    return [ends[i] for i in range(len(searches))]


class Sums:
    """Objectives and gradients, or products with Hessians, of several strengths in one pass over the rows."""

    def __init__(self, found: Space, targets: np.ndarray, step: int, n_outputs: int, penalties: Sequence[float]):
        self.space, self.targets, self.n_outputs = found, targets.astype(np.int32), n_outputs
        self.n_rows, self.step, self.penalties = len(targets), step, penalties

    def curvature(self, i: int, point: np.ndarray) -> Answer:
        """A preconditioner of one strength, from as many blocks as it takes."""
        found = curvature.preconditioner(
            self.space, self.n_rows, self.step, self._shaped(point), self.penalties[i], self.n_outputs
        )
        return Answer(0.0, point, found)

    def gradients(self, asked: Mapping[int, Request], every: int) -> dict[int, Answer]:
        """Objectives and gradients by strength, from every so many-th block."""
        points = [self._shaped(request.point) for request in asked.values()]
        planes, bias = self._columns(points)
        losses, sums, products, n = np.zeros(len(points)), np.zeros(len(bias)), np.zeros((len(bias), len(planes))), 0
        thin = Thin(planes)
        for rows, values in self.space.blocks(every):
            logits = thin.times(values)
            residuals(logits, bias, self.targets[rows], self.n_outputs, losses, sums)
            products += thin.back(logits, values)
            n += len(values)
        vectors = self._vectors(asked, points, products / n, sums / n)
        answers = {}
        for i, point, vector, loss in zip(asked, points, vectors, losses / n, strict=True):
            squares = float(np.vdot(point[:-1], point[:-1]))
            answers[i] = Answer(float(loss) + self.penalties[i] / 2 * squares, vector)
        return answers

    def products(self, asked: Mapping[int, Request], every: int) -> dict[int, Answer]:
        """Hessians times directions by strength, from every so many-th block."""
        along = [self._shaped(request.along) for request in asked.values() if request.along is not None]
        planes, bias = self._columns([self._shaped(request.point) for request in asked.values()])
        directions, offsets = self._columns(along)
        sums, products, n = np.zeros(len(bias)), np.zeros((len(bias), len(planes))), 0
        thin, thin_along = Thin(planes), Thin(directions)
        for _, values in self.space.blocks(every):
            bent = thin_along.times(values)
            bend(thin.times(values), bias, bent, offsets, self.n_outputs, sums)
            products += thin_along.back(bent, values)
            n += len(values)
        vectors = self._vectors(asked, along, products / n, sums / n)
        return {i: Answer(0.0, vector) for i, vector in zip(asked, vectors, strict=True)}

    def _shaped(self, point: np.ndarray) -> np.ndarray:
        return point.reshape(-1, self.n_outputs)

    def _columns(self, points: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What rows are multiplied with for all points (n_directions + 1, outputs), and what is added."""
        planes, offsets = self.space.to_rows(np.hstack([point[:-1] for point in points]))
        return planes, (np.concatenate([point[-1] for point in points]) + offsets).astype(np.float32)

    def _vectors(
        self, asked: Iterable[int], points: list[np.ndarray], products: np.ndarray, sums: np.ndarray
    ) -> list[np.ndarray]:
        """Sums over rows as flat vectors, the penalty's part, which is of ``points``, added."""
        whole = np.vstack([self.space.from_rows(products, sums), sums])
        vectors = []
        for i, point, part in zip(asked, points, np.split(whole, len(points), axis=1), strict=True):
            vector = part.copy()
            vector[:-1] += self.penalties[i] * point[:-1]
            vectors.append(vector.reshape(-1))
        return vectors


def _fitted(
    found: Space, ends: Sequence[Found], strengths: Sequence[float], passes: np.ndarray, n_outputs: int
) -> Fitted:
    outcomes = []
    planes, intercepts = [], []
    for end, strength, n in zip(ends, strengths, passes, strict=True):
        outcome = Outcome(strength, passes=int(np.ceil(n)))
        if np.isfinite(end.value):
            outcome.objective, outcome.converged = end.value, end.converged
            outcome.gap = None if np.isnan(end.decrement) else end.decrement
        else:
            outcome.failed = "the loss overflows at the start: divide the entries by a constant"
        outcomes.append(outcome)
        point = end.point.reshape(-1, n_outputs)
        plane, offset = found.planes(point[:-1])
        planes.append(plane)
        intercepts.append(point[-1] + offset)
    decide = Planes(np.hstack(planes), np.concatenate(intercepts), n_outputs)
    return Fitted(outcomes, decide, decide.of)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Memory of a fit at most, the rows that are held and one block not included."""
    n_outputs = n_outputs_of(n_classes)
    width = n_outputs * n_strengths
    directions = min(n_features, size if size <= min(n_features, space.WIDEST) else n_features)
    n_parameters = (directions + 1) * n_outputs
    products = width * (24 * directions + 12 * block_rows(n_features))
    renewed = directions <= space.WIDEST
    return (
        max(space.nbytes(size, n_features, hold, width) for hold in (True, False))
        + lbfgs.nbytes(n_parameters, n_strengths)
        + (curvature.nbytes(size, n_parameters, n_outputs, n_strengths) if renewed else 0)
        + products
    )
