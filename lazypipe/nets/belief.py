"""From a pre-trained stack to a network: what fine-tuning starts from, and both trained by one task."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from lazypipe.nets.fitting import Fit, FitNetwork, checkpoints_of
from lazypipe.nets.layers import FitStack, FitStackResult, require_probabilities
from lazypipe.nets.network import Network, Shape
from lazypipe.nets.options import Options
from lazypipe.nets.processes import Group
from lazypipe.nets.spawning import Tell
from lazypipe.nets.stack import Stack

SLOPE = 0.25  # of a sigmoid at 0, by which a layer that becomes linear is replaced


@dataclass(frozen=True, eq=False)
class FitBelief:
    """Pre-training, then backpropagation of the whole network. A Work.

    Without ``pretraining`` the network starts from ``stack``; without both, from random weights.
    """

    network: FitNetwork
    pretraining: FitStack | None
    stack: Stack | None

    @property
    def options(self) -> Options:
        return self.network.options

    def __call__(self, group: Group, tell: Tell) -> tuple[FitStackResult | None, Fit]:
        with checkpoints_of(self.network.state, group) as checkpoints:
            before = None if self.pretraining is None else self.pretraining.within(group, tell, checkpoints)
            stack = self.stack if before is None else before.stack
            network = self.network
            untried = self.pretraining is None or self.pretraining.given is not None
            if untried and network.shape.loss == "binary_cross_entropy":
                with closing(network.in_order(network.train, group.device)) as rows:
                    require_probabilities(rows)
            if stack is not None:
                network = replace(network, start=started(stack, network.shape, network.options.seed))
            return before, network.within(group, tell, checkpoints)


def started(stack: Stack, shape: Shape, seed: int) -> np.ndarray:
    """The parameters (P,) of a network whose first layers are those of a stack.

    A classifier's output layer starts at 0, so that the first steps change what was learnt least. An autoencoder's
    layers go down again by the transposed weights; its code layer, which is linear, by the tangent of the sigmoid.
    Where rows were standardised the first layer does that.
    """
    network = Network(shape, torch.Generator())
    network.initialise("xavier", seed)
    values = network.parameters.values
    n = len(stack.weights)
    for i, arrays in enumerate(stack.entered()):
        weight, bias = (torch.from_numpy(array) for array in arrays)
        if i + 1 == shape.code:
            weight, bias = SLOPE * weight, SLOPE * bias + 0.5
        values[f"weight.{i}"].copy_(weight)
        values[f"bias.{i}"].copy_(bias)
    if shape.code is None:
        values[f"weight.{n}"].zero_()
    else:
        _unroll(stack, values, n)
    return network.parameters.vector.numpy()


def _unroll(stack: Stack, values: dict[str, torch.Tensor], n: int) -> None:
    """Write the ``n`` layers from the codes down again: each layer of the stack transposed, the last one first."""
    for i in range(n):
        below = n - 1 - i  # the layer of the stack that is gone down
        weight, bias = torch.from_numpy(stack.weights[below]).t(), torch.from_numpy(stack.visible_biases[below])
        if below == 0 and stack.mean is not None and stack.scale is not None:
            scale = torch.from_numpy(stack.scale)
            weight, bias = weight * scale[:, None], bias * scale + torch.from_numpy(stack.mean)
        values[f"weight.{n + i}"].copy_(weight)
        values[f"bias.{n + i}"].copy_(bias)
