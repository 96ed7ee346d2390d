"""The weights of a network as one vector, and their gradient as another."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Parameters:
    """Named float32 tensors that are views of ``vector`` (P,), and their gradients, of ``gradient`` (P,).

    Weight matrices lie first, ``vector[:n_weights]``, then the biases: a penalty of weights alone, the sum over
    several processes, the norm of a gradient and the step of an optimizer are each one operation.
    """

    def __init__(
        self,
        weights: Mapping[str, tuple[int, ...]],
        biases: Mapping[str, tuple[int, ...]],
        device: torch.device | str = "cpu",
    ):
        self.n_weights = sum(math.prod(shape) for shape in weights.values())
        self.size = self.n_weights + sum(math.prod(shape) for shape in biases.values())
        self.vector = torch.zeros(self.size, device=device)
        self.gradient = torch.zeros(self.size, device=device)
        self.shapes = {**weights, **biases}
        self.values = self.views(self.vector)
        self.gradients = self.views(self.gradient)

    @property
    def device(self) -> torch.device:
        return self.vector.device

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parts of a vector (P,) that lies as this one, such as its bfloat16 copy."""
        parts, start = {}, 0
        for name, shape in self.shapes.items():
            parts[name] = vector[start : start + math.prod(shape)].view(shape)
            start += math.prod(shape)
        return parts
