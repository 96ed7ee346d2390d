"""A classifier that is given NumPy arrays, for steps that are taken outside of torch: the networks of a sweep.

Wrap what it does in ``arithmetic(threads=1)``: threads are each thread's own setting in torch and in its MKL, so
that several networks learn at once, on one core each.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lazypipe.nets.network import Network, Shape, network_nbytes
from lazypipe.stats import softmax_kernel


class ArrayNetwork(Network):
    """Layers of ``units``, inputs first; one output of two classes, which is the logit of class 1, or one a class.

    ``vector`` and ``gradient`` (P,) float32 are views of the parameters, ``n_weights`` weights and then biases. Rows
    (n, D) are float32, ``n_rows`` at most, targets (n,) int32. Rows are copied to memory of torch: MKL gives the same
    bits only to what lies alike on the lines of the caches. Losses are float64, and gradients made by one kernel in
    place of nine small ones of torch, which take a twentieth of a step of 784-1024-10.
    """

    def __init__(self, units: tuple[int, ...], activation: str, n_rows: int):
        super().__init__(Shape(units, activation, "cross_entropy"), torch.Generator())
        self.vector, self.gradient = self.parameters.vector.numpy(), self.parameters.gradient.numpy()
        self.n_weights = self.parameters.n_weights
        self._rows = torch.empty(n_rows, units[0])
        self._no_bias = np.zeros(units[-1], np.float32)

    def layer(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the weights (outputs, inputs) and biases of a layer."""
        values = self.parameters.values
        return values[f"weight.{i}"].numpy(), values[f"bias.{i}"].numpy()

    def backpropagate(self, rows: np.ndarray, targets: np.ndarray) -> float:
        """Write the gradient of the summed loss to ``gradient``; the loss."""
        return float(self.learn(self._copied(rows), torch.from_numpy(targets), 1, True))

    def loss(self, rows: np.ndarray, targets: np.ndarray) -> float:
        """Summed over rows."""
        return float(self.judge(self._copied(rows), torch.from_numpy(targets)))

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest class (n,) of each row."""
        said = self.forward(self._copied(rows))[-1].numpy()
        return said[0] > 0 if len(said) == 1 else said.argmax(axis=0)

    def squares(self) -> float:
        """‖W‖² of all weights."""
        parts = np.array_split(self.vector[: self.n_weights], 1 + self.n_weights // 2**16)
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts))

    def _copied(self, rows: np.ndarray) -> Tensor:
        return self._rows[: len(rows)].copy_(torch.from_numpy(rows))

    def _errors(self, said: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses, sums = np.zeros(1), np.zeros(len(said))
        softmax_kernel.residuals(said.numpy().T, self._no_bias, targets.numpy(), len(said), losses, sums)
        return torch.from_numpy(losses), said


def array_network_nbytes(units: tuple[int, ...], n_rows: int) -> int:
    """Bytes of one that learns from so many rows: parameters, gradient, a matrix as it is drawn, rows, and units."""
    drawn = max(a * b for a, b in pairwise(units))
    shape = Shape(units, "", "")
    return 4 * (2 * shape.n_parameters + drawn) + network_nbytes(shape, n_rows) + 8 * n_rows
