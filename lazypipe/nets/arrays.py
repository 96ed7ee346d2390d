"""A classifier that is given NumPy arrays and takes steps of its own: the networks of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lazypipe.nets.device import arithmetic
from lazypipe.nets.network import Network, Shape, network_nbytes
from lazypipe.stats import softmax_kernel


@contextmanager
def one_core() -> Iterator[None]:
    """For all that an ``ArrayNetwork`` does: one thread, and numbers below 1e-38, which are slow, as 0.

    Both are settings of the calling thread alone, in torch and in its MKL, so that several networks learn at once.
    """
    flushed = bool(torch.tensor(1e-38) * 0.01 == 0)
    torch.set_flush_denormal(True)
    try:
        with arithmetic(threads=1):
            yield
    finally:
        torch.set_flush_denormal(flushed)


class ArrayNetwork(Network):
    """Layers of ``units``, inputs first; one output of two classes, which is the logit of class 1, or one a class.

    ``vector`` (P,) float32 is a view of the parameters. Rows (n, D) are float32, ``n_rows`` at most, targets (n,)
    int32. Rows are copied to memory of torch: MKL gives the same bits only to what lies alike on the lines of the
    caches. Losses are float64, and their gradients made by one kernel in place of nine small ones of torch. Products
    that are gradients of weights are not formed but added to the weights: a twelfth of a step of 784-1024-10.
    """

    def __init__(self, units: tuple[int, ...], activation: str, n_rows: int, momentum: float = 0.0):
        super().__init__(Shape(units, activation, "cross_entropy"), torch.Generator())
        self.vector, self.momentum = self.parameters.vector.numpy(), momentum
        self._change = torch.zeros_like(self.parameters.vector) if momentum else None
        self._rows = torch.empty(n_rows, units[0])
        self._no_bias = np.zeros(units[-1], np.float32)
        self._products: list[tuple[Tensor, Tensor]] = []  # of the last layer first

    def initialise(self, name: str, seed: int) -> None:
        super().initialise(name, seed)
        if self._change is not None:
            self._change.zero_()

    def layer(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the weights (outputs, inputs) and biases of a layer."""
        values = self.parameters.values
        return values[f"weight.{i}"].numpy(), values[f"bias.{i}"].numpy()

    def backpropagate(self, rows: np.ndarray, targets: np.ndarray) -> float:
        """The summed loss, whose gradient G the next ``step`` is against."""
        self._products.clear()
        return float(self.learn(self._copied(rows), torch.from_numpy(targets), 1, True))

    def step(self, rate: float, penalty: float) -> None:
        """A step against the gradients of the loss and of ``penalty`` ‖W‖² / 2, over all weights but no bias.

        The penalty's is that of the weights that the step leads to: with momentum μ and the last change V,

            W' = (W - rate G + μ V) / (1 + rate penalty)

        so that no penalty is too strong for a step, and W rests where G + penalty W = 0. (Ochs, Chen, Brox and Pock,
        "iPiano: Inertial proximal algorithm for nonconvex optimization", SIAM J. Imaging Sciences 2014.)
        """
        values, shrink = self.parameters.values, 1 / (1 + rate * penalty)
        n, gradient = self.parameters.n_weights, self.parameters.gradient
        changes = {} if self._change is None else self.parameters.views(self._change)
        for i, (left, right) in zip(reversed(range(self.shape.n_layers)), self._products, strict=True):
            name = f"weight.{i}"
            if self._change is None:
                values[name].addmm_(left, right, beta=shrink, alpha=-rate * shrink)
                continue
            changes[name].addmm_(left, right, beta=self.momentum * shrink, alpha=-rate * shrink)
            values[name].add_(changes[name].add_(values[name], alpha=-rate * penalty * shrink))
        if self._change is None:
            self.parameters.vector[n:].sub_(gradient[n:], alpha=rate)
        else:
            self.parameters.vector[n:].add_(self._change[n:].mul_(self.momentum).sub_(gradient[n:], alpha=rate))

    def loss(self, rows: np.ndarray, targets: np.ndarray) -> float:
        """Summed over rows."""
        return float(self.judge(self._copied(rows), torch.from_numpy(targets)))

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest class (n,) of each row."""
        said = self.forward(self._copied(rows))[-1].numpy()
        return said[0] > 0 if len(said) == 1 else said.argmax(axis=0)

    def squares(self) -> float:
        """‖W‖² of all weights."""
        n = self.parameters.n_weights
        parts = np.array_split(self.vector[:n], 1 + n // 2**16)
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts))

    def _copied(self, rows: np.ndarray) -> Tensor:
        return self._rows[: len(rows)].copy_(torch.from_numpy(rows))

    def _errors(self, said: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses, sums = np.zeros(1), np.zeros(len(said))
        softmax_kernel.residuals(said.numpy().T, self._no_bias, targets.numpy(), len(said), losses, sums)
        return torch.from_numpy(losses), said

    def _add_product(self, gradient: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
        self._products.append((left, right))


def array_network_nbytes(units: tuple[int, ...], n_rows: int, momentum: float) -> int:
    """Bytes of one that learns from so many rows: parameters, gradient, changes, a matrix as it is drawn, and units."""
    drawn = max(a * b for a, b in pairwise(units))
    shape = Shape(units, "", "")
    return 4 * ((2 + bool(momentum)) * shape.n_parameters + drawn) + network_nbytes(shape, n_rows) + 8 * n_rows
