"""Logistic regression to its optimum, all strengths of a prefix in the same passes over its rows.

Each strength has its own L-BFGS, in coordinates where the Hessian is near to diagonal; those that still need an
evaluation share the next pass, whose products are as wide as there are of them. Losses and gradients of a block are
float32, their sums float64. A prefix of many blocks is solved loosely on a sixteenth and on a quarter of its blocks
first, so that its own passes begin near their end; cells thus depend on nothing but their own rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lazypipe.models.sweep import curvature, lbfgs, space
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.lbfgs import Answer, Asking, Curvature, Found, Request, minimise
from lazypipe.models.sweep.planes import Planes
from lazypipe.models.sweep.rows import Prefix, block_rows
from lazypipe.models.sweep.space import Space, space_of
from lazypipe.stats.softmax_kernel import bend, residuals

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
    curvatures = [Curvature(size, found.preconditioner(C, n_outputs), keep) for C in strengths]
    sums = Sums(found, targets, n_outputs, [1 / (C * prefix.size) for C in strengths])
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
    while asked:
        answers = sums(asked, every)
        passes[list(asked)] += 1 / every
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
                ends[i] = found
                del asked[i]
    return [ends[i] for i in range(len(searches))]


class Sums:
    """Objectives and gradients, or products with Hessians, of several strengths in one pass over the rows."""

    def __init__(self, found: Space, targets: np.ndarray, n_outputs: int, penalties: Sequence[float]):
        self.space, self.targets, self.n_outputs = found, targets.astype(np.int32), n_outputs
        self.penalties = penalties

    def curvature(self, i: int, point: np.ndarray) -> Answer:
        """A preconditioner of one strength, from as many blocks as it takes."""
        found = curvature.preconditioner(
            self.space, len(self.targets), point.reshape(-1, self.n_outputs), self.penalties[i], self.n_outputs
        )
        return Answer(0.0, point, found)

    def __call__(self, asked: Mapping[int, Request], every: int) -> dict[int, Answer]:
        """Answers by strength, from every so many-th block.

        The columns of a product are the points at which Hessians are wanted, points of gradients, and directions.
        """
        bent = [i for i, request in asked.items() if request.along is not None]
        order = bent + [i for i in asked if i not in bent]
        columns = [asked[i].point for i in order] + [asked[i].along for i in bent]
        parts = [column.reshape(-1, self.n_outputs) for column in columns if column is not None]
        planes, offsets = self.space.to_rows(np.hstack([part[:-1] for part in parts]))
        bias = (np.concatenate([part[-1] for part in parts]) + offsets).astype(np.float32)
        points, first = len(order) * self.n_outputs, len(bent) * self.n_outputs
        width = len(bias) - first  # of gradients and directions
        losses, sums = np.zeros(len(order) - len(bent)), np.zeros(points - first)
        products, bends, n = np.zeros((width, len(planes))), np.zeros(first), 0
        for rows, values in self.space.blocks(every):
            logits = values @ planes
            if len(losses):
                residuals(logits[:, first:points], bias[first:points], self.targets[rows], self.n_outputs, losses, sums)
            if bent:
                along = logits[:, points:]
                along += bias[points:]
                bend(logits[:, :first], bias[:first], along, self.n_outputs)
                bends += along.sum(axis=0, dtype=np.float64)
            products += logits[:, first:].T @ values
            n += len(values)
        sums = np.concatenate([sums, bends])
        vectors = np.split(np.vstack([self.space.from_rows(products, sums), sums]) / n, width // self.n_outputs, axis=1)
        answers = {}
        for i, vector, loss in zip(order[len(bent) :] + bent, vectors, [*losses / n, *[0.0] * len(bent)], strict=True):
            request = asked[i]
            penalised = (request.point if request.along is None else request.along).reshape(-1, self.n_outputs)[:-1]
            vector = vector.copy()
            vector[:-1] += self.penalties[i] * penalised
            value = float(loss) + self.penalties[i] / 2 * float(np.vdot(penalised, penalised))
            answers[i] = Answer(value, vector.reshape(-1))
        return answers


def _fitted(
    found: Space, ends: Sequence[Found], strengths: Sequence[float], passes: np.ndarray, n_outputs: int
) -> Fitted:
    outcomes = []
    planes, intercepts = [], []
    for end, strength, n in zip(ends, strengths, passes, strict=True):
        outcome = Outcome(strength, passes=int(np.ceil(n)))
        if np.isfinite(end.value):
            outcome.objective, outcome.gap, outcome.converged = end.value, end.decrement, end.converged
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
    n_outputs = 1 if n_classes == 2 else n_classes
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
