"""Softmax regression by stochastic gradient descent, all strengths at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lazypipe.models.sweep import minibatches
from lazypipe.models.sweep.fitted import Fitted, Options
from lazypipe.models.sweep.minibatch_kernel import descend
from lazypipe.models.sweep.minibatches import Batch, Descent
from lazypipe.models.sweep.planes import Planes, n_outputs_of
from lazypipe.models.sweep.rows import Prefix
from lazypipe.stats import softmax_kernel

PANEL = 256  # planes whose gradient is in memory at once


class Errors(NamedTuple):
    """The losses of some rows at the weights as they are, and their gradients, for all strengths."""

    losses: np.ndarray  # (n_losses,) summed over rows, float64
    of_rows: np.ndarray  # (n, outputs) the gradients in the logits
    sums: np.ndarray  # (outputs,) of them over rows, float64


class Strengths:
    """The K planes of each of S strengths, side by side: weights (S K, D). ``penalties`` (S,) are 1 / (C size)."""

    def __init__(self, n_features: int, n_outputs: int, penalties: np.ndarray):
        self.weights = np.zeros((len(penalties) * n_outputs, n_features), np.float32)
        self._gradient = np.empty_like(self.weights[:PANEL])
        self.bias = np.zeros(len(self.weights), np.float32)
        self.n_outputs, self.penalties = n_outputs, penalties
        self._penalty = np.repeat(penalties, n_outputs)

    def errors(self, rows: np.ndarray, targets: np.ndarray) -> Errors:
        logits, losses, sums = rows @ self.weights.T, np.zeros(len(self.penalties)), np.zeros(len(self.bias))
        softmax_kernel.residuals(logits, self.bias, targets, self.n_outputs, losses, sums)
        return Errors(losses, logits, sums)

    def descend(self, batch: Batch, errors: Errors) -> None:
        """A step against the gradients of the losses and of the penalty.

        The penalty's is that of the weights that the step leads to, W' = (W - r G) / (1 + r k penalty) with k rows: no
        penalty is then too strong for a step, and W rests where G / k + penalty W = 0.
        """
        rate, shrink = np.float32(batch.rate), (1 / (1 + batch.penalty_rate * self._penalty)).astype(np.float32)
        for start in range(0, len(shrink), PANEL):
            panel = slice(start, start + PANEL)
            weights = self.weights[panel]
            np.matmul(errors.of_rows.T[panel], batch.rows, out=self._gradient[: len(weights)])
            descend(weights, self._gradient, rate, shrink[panel])
        self.bias -= rate * errors.sums.astype(np.float32)

    def penalty(self) -> np.ndarray:
        """What the objective (S,) is beside the mean loss."""
        squares = np.array([np.square(row, dtype=np.float64).sum() for row in self.weights])
        return self.penalties / 2 * squares.reshape(-1, self.n_outputs).sum(axis=1)

    def planes(self, alive: np.ndarray) -> Planes:
        """All planes; those of strengths that failed are zero."""
        kept = np.repeat(alive, self.n_outputs)
        weights, bias = np.where(kept[:, None], self.weights, 0), np.where(kept, self.bias, 0)
        return Planes(weights.T.astype(np.float64), bias.astype(np.float64), self.n_outputs)


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit all strengths by the same steps: readings and products are of all at once.

    Minimises cross-entropy + ‖W‖² / (2 C size) from W = 0; of two classes by one output, as scikit-learn's
    ``LogisticRegression`` does. ``minibatches`` says which steps, and what counts as converged; ``gap`` is unknown.
    Passes: the epochs, and one for the exact objective. A strength that diverges fails and changes no other.
    (Bottou, Curtis and Nocedal, "Optimization methods for large-scale machine learning", SIAM Review 2018.)
    """
    penalties = 1 / (np.asarray(strengths, np.float64) * prefix.size)
    models = Strengths(prefix.n_features, n_outputs_of(n_classes), penalties)
    descent = Descent(prefix, targets, options, seed, len(strengths))
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in descent.batches():
            errors = models.errors(batch.rows, batch.targets)
            models.descend(batch, errors)
            descent.record(batch, errors.losses)
        objectives = descent.mean_losses(lambda rows, wanted: models.errors(rows, wanted).losses) + models.penalty()
        outcomes = descent.outcomes(strengths, objectives, np.log(n_classes))
    planes = models.planes(descent.alive)
    return Fitted(outcomes, planes, planes.of)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Bytes at most: of the descent, the weights and their gradient, the planes, and the logits of some rows."""
    width = n_strengths * n_outputs_of(n_classes)
    n_rows = max(options.batch_size, minibatches.PART_ROWS)
    weights = 4 * (width + min(width, PANEL)) * n_features + 32 * width
    planes = 20 * width * n_features
    return minibatches.nbytes(size, n_features, options) + weights + planes + 12 * width * n_rows
