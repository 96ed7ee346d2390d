"""Softmax regression by stochastic gradient descent, all strengths at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import layer, minibatches
from lazypipe.models.sweep.fitted import Fitted, Options
from lazypipe.models.sweep.layer import Layer
from lazypipe.models.sweep.minibatches import Batch, Descent, Errors, errors_of
from lazypipe.models.sweep.planes import Planes, n_outputs_of
from lazypipe.models.sweep.rows import Prefix


class Strengths(Layer):
    """The K planes of each of S strengths, side by side: weights (S K, D). ``penalties`` (S,) are 1 / (C size)."""

    def __init__(self, n_features: int, n_outputs: int, penalties: np.ndarray):
        super().__init__(np.zeros((len(penalties) * n_outputs, n_features), np.float32))
        self.bias = np.zeros(len(self.weights), np.float32)
        self.n_outputs, self.penalties = n_outputs, penalties
        self._penalty = np.repeat(penalties, n_outputs)

    def errors(self, rows: np.ndarray, targets: np.ndarray) -> Errors:
        return errors_of(rows @ self.weights.T, self.bias, targets, self.n_outputs)

    def descend(self, batch: Batch, errors: Errors) -> None:
        self.step(batch, errors.of_rows.T, batch.rows, self._penalty)
        self.bias -= np.float32(batch.rate) * errors.sums.astype(np.float32)

    def penalty(self) -> np.ndarray:
        """What the objective (S,) is beside the mean loss."""
        return self.penalties / 2 * self.squares().reshape(-1, self.n_outputs).sum(axis=1)

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
        objectives = descent.mean_losses(models.errors) + models.penalty()
        outcomes = descent.outcomes(strengths, objectives, np.log(n_classes))
    planes = models.planes(descent.alive)
    return Fitted(outcomes, planes, planes.of)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Bytes at most: of the descent, the weights and their gradient, the planes, and the logits of some rows."""
    width = n_strengths * n_outputs_of(n_classes)
    n_rows = max(options.batch_size, minibatches.PART_ROWS)
    planes = 20 * width * n_features
    return (
        minibatches.nbytes(size, n_features, options) + layer.nbytes(width, n_features) + planes + 12 * width * n_rows
    )
