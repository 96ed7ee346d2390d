"""Decisions of linear models, all strengths in one product."""

from __future__ import annotations

import numpy as np

from lazypipe.stats import softmax_kernel


def n_outputs_of(n_classes: int) -> int:
    """Planes a model: one for two classes."""
    return 1 if n_classes == 2 else n_classes


class Planes:
    """Models of ``n_outputs`` planes each, side by side: ``coef`` (D, models × outputs), ``intercept`` likewise."""

    def __init__(self, coef: np.ndarray, intercept: np.ndarray, n_outputs: int):
        self.coef, self.intercept, self.n_outputs = coef, intercept, n_outputs
        self._planes = np.ascontiguousarray(coef, np.float32)
        self._bias = np.ascontiguousarray(intercept, np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Positions (n, models) of the likeliest classes of rows (n, D)."""
        classes = np.empty((len(rows), len(self.intercept) // self.n_outputs), np.int32)
        softmax_kernel.decide(rows @ self._planes, self._bias, self.n_outputs, classes)
        return classes

    def of(self, model: int) -> tuple[np.ndarray, np.ndarray]:
        """(coef (outputs, D), intercept (outputs,)) of one model, float64."""
        columns = slice(model * self.n_outputs, (model + 1) * self.n_outputs)
        return self.coef[:, columns].T.copy(), self.intercept[columns].copy()
