"""A matrix of weights that mini-batches move."""

from __future__ import annotations

import numpy as np

from lazypipe.models.sweep.minibatch_kernel import descend
from lazypipe.models.sweep.minibatches import Batch

PANEL = 256  # rows whose gradient is in memory at once


class Layer:
    """``weights`` (m, n) float32."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights
        self._gradient = np.empty_like(weights[:PANEL])

    def step(self, batch: Batch, left: np.ndarray, right: np.ndarray, penalty: np.ndarray | float) -> None:
        """A step against the gradients of the losses, ``left`` (m, k) @ ``right`` (k, n), and of the penalty.

        The penalty's is ``penalty``, one number or (m,), times the weights that the step leads to,
        W' = (W - r G) / (1 + r k penalty): no penalty is then too strong for a step, and W rests where
        G / k + penalty W = 0.
        """
        rate, shrink = np.float32(batch.rate), np.empty(len(self.weights), np.float32)
        shrink[:] = 1 / (1 + batch.penalty_rate * penalty)
        for start in range(0, len(shrink), PANEL):
            panel = slice(start, start + PANEL)
            weights = self.weights[panel]
            np.matmul(left[panel], right, out=self._gradient[: len(weights)])
            descend(weights, self._gradient, rate, shrink[panel])

    def squares(self) -> np.ndarray:
        """The squared norm (m,) of each row, in float64."""
        return np.array([np.square(row, dtype=np.float64).sum() for row in self.weights])


def nbytes(m: int, n: int) -> int:
    """Bytes of a layer."""
    return 4 * (m + min(m, PANEL)) * n + 32 * m
