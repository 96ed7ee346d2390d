"""How a step follows from a gradient: the optimizers of torch on the one vector of a network.

For a gradient g, a rate r and weights w, element by element, after t steps with this one:

    gradient_descent   w -= r g
    momentum           v = μ v + g;   w -= r v                                   Polyak 1964
    nesterov           v = μ v + g;   w -= r (g + μ v)                           Sutskever, Martens, Dahl & Hinton 2013
    adagrad            s += g²;       w -= r g / (√s + 1e-10)                    Duchi, Hazan & Singer 2011
    rmsprop            s = 0.99 s + 0.01 g²;  w -= r g / (√s + 1e-8)             Tieleman & Hinton 2012, lecture 6.5
    adam               v = 0.9 v + 0.1 g;  s = 0.999 s + 0.001 g²;               Kingma & Ba 2015
                       w -= r v / (1 - 0.9ᵗ) / (√(s / (1 - 0.999ᵗ)) + 1e-8)
    curvature          w -= r g, where g has a term of the second derivatives in it already: lazypipe.nets.curvature

All state is 0 before the first step. Full batch or mini-batch is a matter of the gradient, not of the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lazypipe.checks import named
from lazypipe.errors import ConfigError
from lazypipe.nets.parameters import Parameters

NORM_MARGIN = 1e-6  # as in torch.nn.utils.clip_grad_norm_
FUSED_ON = ("cpu", "cuda")


@dataclass(frozen=True)
class Rule:
    """An optimizer of torch: its class, the vectors that it keeps, the rate that it starts with by default."""

    kind: type[torch.optim.Optimizer]
    vectors: tuple[str, ...]  # as torch calls them
    rate: float
    has_momentum: bool = False
    nesterov: bool = False
    counts: bool = False  # its steps
    fused: bool = True  # has one kernel for all of a step


OPTIMIZERS = {
    "gradient_descent": Rule(torch.optim.SGD, (), 0.1),
    "momentum": Rule(torch.optim.SGD, ("momentum_buffer",), 0.02, has_momentum=True),
    "nesterov": Rule(torch.optim.SGD, ("momentum_buffer",), 0.02, has_momentum=True, nesterov=True),
    "adagrad": Rule(torch.optim.Adagrad, ("sum",), 0.01, counts=True),
    "rmsprop": Rule(torch.optim.RMSprop, ("square_avg",), 0.001, counts=True, fused=False),
    "adam": Rule(torch.optim.Adam, ("exp_avg", "exp_avg_sq"), 0.001, counts=True),
    "curvature": Rule(torch.optim.SGD, (), 0.1),
}
DEFAULT_RATES = {name: rule.rate for name, rule in OPTIMIZERS.items()}
STATE_VECTORS = {name: len(rule.vectors) for name, rule in OPTIMIZERS.items()}


class Optimizer:
    """Moves ``parameters.vector`` by ``parameters.gradient``, in place.

    Keeps STATE_VECTORS[name] vectors of the parameters' size beside them (``nbytes``), made here; a step of "rmsprop",
    which torch has no one kernel for, takes one more while it lasts. No step waits for the device.
    Raises ConfigError for an unknown name, or a ``momentum`` (of "momentum" and "nesterov") not from 0 to below 1.
    """

    def __init__(self, name: str, parameters: Parameters, *, momentum: float = 0.9):
        rule = named("optimizer", name, OPTIMIZERS)
        if not (isinstance(momentum, int | float) and 0 <= momentum < 1):
            raise ConfigError(f"momentum: {momentum!r} is not from 0 to below 1. Give such a number, often 0.9.")
        self.name = name
        weights = torch.nn.Parameter(parameters.vector)  # the same memory
        weights.grad = parameters.gradient
        fused = rule.fused and weights.device.type in FUSED_ON
        options: dict[str, object] = {"lr": rule.rate, "foreach": False}  # foreach is for many tensors: this is one
        if fused:
            options |= {"fused": True}
        if rule.has_momentum:
            options |= {"momentum": float(momentum), "nesterov": rule.nesterov and momentum > 0}
        self._torch = rule.kind([weights], **options)  # type: ignore[arg-type]
        # Made now rather than by the first step: so its memory is known, and it can be loaded into.
        self._state: dict[str, Tensor] = {key: torch.zeros_like(parameters.vector) for key in rule.vectors}
        if rule.counts:
            self._state["step"] = torch.zeros((), device=weights.device if fused else "cpu")
        if self._state:
            self._torch.state[weights] = self._state

    def step(self, rate: float) -> None:
        """Make one step with this learning rate."""
        self._torch.param_groups[0]["lr"] = rate
        self._torch.step()

    def tensors(self) -> dict[str, Tensor]:
        """Its state, to copy or write: the vectors (P,) that it keeps, and where they count, the steps so far.

        These are the optimizer's own tensors, which the next step changes.
        """
        return dict(self._state)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from such a state, bit for bit; ConfigError if it is not one of this optimizer and size."""
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        wanted = {key: tuple(value.shape) for key, value in self._state.items()}
        if shapes != wanted:
            raise ConfigError(
                f"optimizer: the saved state is {_listed(shapes)}, where {self.name} has {_listed(wanted)}. "
                "Give the optimizer and network that it was saved with, or start again."
            )
        for key, value in tensors.items():
            self._state[key].copy_(value)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps on the device, beside the parameters and their gradient."""
        return sum(tensor.nbytes for tensor in self._state.values())


def clip_(parameters: Parameters, max_norm: float) -> Tensor:
    """Scale the gradient in place to a Euclidean norm of ``max_norm`` at most; its norm before, a scalar on the device.

    As torch.nn.utils.clip_grad_norm_ (Pascanu, Mikolov & Bengio 2013), in two passes over the gradient and without
    waiting for the device. A norm that is infinite clears the gradient, one that is NaN makes all of it NaN.
    """
    gradient = parameters.gradient
    norm = torch.dot(gradient, gradient).sqrt_()  # more exact than vector_norm in float32, and several times as fast
    gradient.mul_((max_norm / (norm + NORM_MARGIN)).clamp_(max=1.0))
    return norm


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in sorted(shapes.items())) or "empty"
