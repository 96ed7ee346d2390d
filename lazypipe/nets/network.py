"""A network of layers: what it says of rows, and the gradient of its loss, written out by hand.

Layer l has weights W (outputs, inputs) and biases b, z = W a + b, a' = f(z). What passes through the units lies unit
by unit, (units, rows): products with W and its gradient are fastest so on processors (1.1 times those of rows by
units), and as fast on GPUs. The gradient is that of backpropagation (Rumelhart, Hinton and Williams, Nature 1986), in
memory that is kept between steps: with fresh memory a step of 784-1024-10 takes a sixth longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lazypipe.checks import whole
from lazypipe.nets.activations import ACTIVATIONS, activation_of
from lazypipe.nets.initial import fill
from lazypipe.nets.parameters import Parameters

LOSSES = {
    "cross_entropy": "softmax of classes",
    "squared_error": "linear outputs, half the squared error",
    "binary_cross_entropy": "a sigmoid each output, of targets in [0, 1]",
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Shape(NamedTuple):
    """Units of every layer, inputs first, and how they work."""

    units: tuple[int, ...]
    activation: str
    loss: str  # one of LOSSES
    code: int | None = None  # a hidden layer, from 1, that is linear: that of an autoencoder's codes

    @property
    def n_layers(self) -> int:
        return len(self.units) - 1

    @property
    def n_parameters(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.units))

    @property
    def n_alive(self) -> int:
        """Numbers of a row that are there at once where a network says something of it: ``forward`` keeps all units."""
        return sum(self.units) + self.units[-1]

    def __str__(self) -> str:
        return "-".join(map(str, self.units))


def units_of(hidden: Any) -> tuple[int, ...]:
    """The units of each hidden layer, of which one may be given as a number; ConfigError for what counts no units."""
    return tuple(whole(n, "hidden") for n in (hidden if isinstance(hidden, Iterable) else (hidden,)))


class Network:
    """Layers of ``shape`` whose parameters are one vector; a Learner.

    ``dropout`` is the share of hidden units, ``input_dropout`` of inputs, that a row leaves out while it is learnt from
    (Srivastava et al., JMLR 2014; the rest are scaled up). In "bfloat16" products are of rounded parameters and
    activations, sums and parameters stay float32. Memory: the parameters and their gradient, and for parts of n rows
    8 n bytes a unit.
    """

    def __init__(
        self,
        shape: Shape,
        random: torch.Generator,
        device: torch.device | str = "cpu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        precision: str = "float32",
    ):
        self.shape, self.random, self.device = shape, random, torch.device(device)
        hidden = activation_of(shape.activation)
        self.activations = [ACTIVATIONS["linear"] if i == shape.code else hidden for i in range(1, shape.n_layers)]
        self.dropouts = (input_dropout, *[dropout] * (shape.n_layers - 1))
        self.dtype = PRECISIONS[precision]
        pairs = list(pairwise(shape.units))
        weights = {f"weight.{i}": (outputs, inputs) for i, (inputs, outputs) in enumerate(pairs)}
        biases = {f"bias.{i}": (outputs,) for i, (_, outputs) in enumerate(pairs)}
        self.parameters = Parameters(weights, biases, device)
        self.classifies = shape.loss == "cross_entropy"
        self.measures: tuple[str, ...] = ("loss", "accuracy") if self.classifies else ("loss",)
        self.judgements: tuple[str, ...] = self.measures
        self._rounded: Tensor | None = None
        self._memory: dict[tuple[str, int], Tensor] = {}
        self._n_memory = 0

    def initialise(self, name: str, seed: int) -> None:
        """Weights by that rule, in the order of the layers, the same on every device; biases 0."""
        random = torch.Generator().manual_seed(seed)
        for i in range(self.shape.n_layers):
            fill(self.parameters.values[f"weight.{i}"], name, random)
            self.parameters.values[f"bias.{i}"].zero_()

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of each layer, in the dtype of the products."""
        values = self.parameters.values
        if self.dtype is not torch.float32:
            if self._rounded is None:
                self._rounded = torch.empty_like(self.parameters.vector, dtype=self.dtype)
            self._rounded.copy_(self.parameters.vector)
            values = self.parameters.views(self._rounded)
        return [(values[f"weight.{i}"], values[f"bias.{i}"]) for i in range(self.shape.n_layers)]

    def forward(self, rows: Tensor, learning: bool = False) -> list[Tensor]:
        """What enters each layer (units, n), and last what the network says (outputs, n), before a softmax."""
        entering = rows.t().to(self.dtype)
        if learning and self.dropouts[0]:
            entering = entering * self._kept(entering.shape, self.dropouts[0])
        found = [entering]
        layers = self.layers()
        for i, (weight, bias) in enumerate(layers):
            out = self._units("active", i, len(weight), len(rows))
            torch.addmm(bias[:, None], weight, found[-1], out=out)
            if i < len(layers) - 1:
                self.activations[i].apply_(out)
                if learning and self.dropouts[i + 1]:
                    self._mask(i, len(rows)).copy_(self._kept(out.shape, self.dropouts[i + 1]))
                    out.mul_(self._mask(i, len(rows)))
            found.append(out)
        return found

    def outputs(self, rows: Tensor) -> Tensor:
        """What the network says of rows (n, D): (n, outputs) float32, before a softmax."""
        return self.forward(rows)[-1].t().float()

    def codes(self, rows: Tensor) -> Tensor:
        """What the code layer makes of rows, (n, codes) float32."""
        assert self.shape.code is not None, "only autoencoders have codes"
        return self.forward(rows)[self.shape.code].t().float()

    def after(self, active: Tensor, first: int) -> Tensor:
        """What the network says of what enters layer ``first``, (n, units) to (n, outputs) float32."""
        layers = self.layers()
        for i in range(first, len(layers)):
            active = functional.linear(active.to(self.dtype), *layers[i])
            if i < len(layers) - 1:
                active = self.activations[i].apply_(active)
        return active.float()

    def learn(self, rows: Tensor, targets: Tensor | None, n_batch: int, first: bool) -> Tensor:
        """Write or add the gradient of the mean loss of a batch of ``n_batch`` rows, of which these are some.

        ``targets`` (n,) int64 classes, or (n, outputs) float32; None: the rows themselves, as of an autoencoder. The
        sums over rows of ``measures``.
        """
        entered = self.forward(rows, learning=True)
        sums, delta = self._errors(entered.pop(), rows if targets is None else targets)
        delta = delta.mul_(1 / n_batch).to(self.dtype)
        gradients, layers = self.parameters.gradients, self.layers() if self.dtype is torch.float32 else self._cast()
        for i in reversed(range(self.shape.n_layers)):
            weight, entering = layers[i][0], entered[i]
            self._add_product(gradients[f"weight.{i}"], delta, entering.t(), first)
            self._add_sums(gradients[f"bias.{i}"], delta, first)
            if i:
                behind = self._units("delta", i - 1, weight.shape[1], len(rows))
                torch.mm(weight.t(), delta, out=behind)
                if self.dropouts[i]:
                    # what left the units was scaled up: the slope is told from what it was before
                    mask = self._mask(i - 1, len(rows))
                    behind.mul_(mask)
                    entering.div_(mask.clamp(min=1.0))
                delta = self.activations[i - 1].times_slope_(behind, entering)
        return sums

    def judge(self, rows: Tensor, targets: Tensor | None) -> Tensor:
        """The sums over rows of ``judgements``."""
        return self._errors(self.forward(rows)[-1], rows if targets is None else targets)[0]

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def function(self) -> Callable[[Tensor, Tensor], Tensor]:
        """(vector (P,), rows (n, D)) to outputs (n, outputs), in plain operations that can be differentiated again."""
        views, n_layers, activations = self.parameters.views, self.shape.n_layers, self.activations

        def outputs(vector: Tensor, rows: Tensor) -> Tensor:
            values, active = views(vector), rows
            for i in range(n_layers):
                active = functional.linear(active, values[f"weight.{i}"], values[f"bias.{i}"])
                if i < n_layers - 1:
                    active = activations[i].plain(active)
            return active

        return outputs

    def _errors(self, said: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the measures, and the gradient (outputs, n) of the summed loss in what was said."""
        said = said.float()
        if self.classifies:
            log_probabilities = torch.log_softmax(said, 0)
            wanted = targets[None, :]
            loss = -log_probabilities.gather(0, wanted).sum()
            right = (said.argmax(0) == targets).sum()
            delta = log_probabilities.exp_()
            delta.scatter_add_(0, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            return torch.stack((loss, right.to(loss.dtype))), delta
        wanted = targets.t()
        if self.shape.loss == "binary_cross_entropy":
            loss = functional.binary_cross_entropy_with_logits(said, wanted, reduction="sum")
            return loss[None], said.sigmoid().sub_(wanted)
        delta = said - wanted
        return (delta.square().sum() / 2)[None], delta

    def _add_product(self, gradient: Tensor, left: Tensor, right: Tensor, first: bool) -> None:
        if self.dtype is torch.float32:
            if first:
                torch.mm(left, right, out=gradient)
            else:
                gradient.addmm_(left, right)
        elif first:
            gradient.copy_(torch.mm(left, right))
        else:
            gradient.add_(torch.mm(left, right))

    def _add_sums(self, gradient: Tensor, delta: Tensor, first: bool) -> None:
        if first:
            torch.sum(delta, 1, dtype=torch.float32, out=gradient)
        else:
            gradient.add_(delta.sum(1, dtype=torch.float32))

    def _cast(self) -> list[tuple[Tensor, Tensor]]:
        """The layers as ``forward`` has just rounded them."""
        assert self._rounded is not None
        values = self.parameters.views(self._rounded)
        return [(values[f"weight.{i}"], values[f"bias.{i}"]) for i in range(self.shape.n_layers)]

    def _kept(self, shape: Sequence[int], dropout: float) -> Tensor:
        """0 for what is left out, else 1 / (1 - dropout)."""
        kept = torch.rand(tuple(shape), generator=self.random, device=self.device) >= dropout
        return kept.to(self.dtype).mul_(1 / (1 - dropout))

    def _mask(self, layer: int, n_rows: int) -> Tensor:
        return self._units("mask", layer, self.shape.units[layer + 1], n_rows)

    def _units(self, kind: str, layer: int, n_units: int, n_rows: int) -> Tensor:
        """Memory (units, n) for one use, kept between steps."""
        if n_rows > self._n_memory:
            self._memory.clear()
            self._n_memory = n_rows
        memory = self._memory.get((kind, layer))
        if memory is None:
            memory = torch.empty(n_units * self._n_memory, dtype=self.dtype, device=self.device)
            self._memory[kind, layer] = memory
        return memory[: n_units * n_rows].view(n_units, n_rows)

    def release(self) -> None:
        """Let go of what is kept between steps."""
        self._memory.clear()
        self._n_memory = 0


def network_of(shape: Shape, vector: np.ndarray, device: torch.device | str = "cpu") -> Network:
    """A network that has learnt: with the parameters (P,)."""
    network = Network(shape, torch.Generator(device), device)
    network.parameters.vector.copy_(torch.from_numpy(vector))
    return network


def vector_of(shape: Shape, tensors: Mapping[str, Tensor]) -> np.ndarray:
    """The parameters (P,) of a network of that shape from its weights and biases by name, as a file has them."""
    parameters = Network(shape, torch.Generator()).parameters
    for name, value in parameters.values.items():
        value.copy_(tensors[name])
    return parameters.vector.numpy()


def network_nbytes(shape: Shape, n_rows: int, itemsize: int = 4, dropout: bool = False) -> int:
    """Bytes of parts of so many rows: activations, errors, masks, and what the loss makes of the outputs."""
    hidden, outputs, inputs = sum(shape.units[1:-1]), shape.units[-1], shape.units[0]
    rounded = 0 if itemsize == 4 else itemsize * shape.n_parameters + 4 * max(a * b for a, b in pairwise(shape.units))
    return (
        n_rows * ((2 + 2 * dropout) * itemsize * hidden + (4 * 4 + itemsize) * outputs + 2 * itemsize * inputs)
        + rounded
    )
