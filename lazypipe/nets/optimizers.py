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

They are torch's functions, not its classes: to make one of these imports its compiler, 2 to 6 s and 120 MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from lazypipe.checks import from_0, named
from lazypipe.errors import ConfigError
from lazypipe.nets.parameters import Parameters

NORM_MARGIN = 1e-6  # as in torch.nn.utils.clip_grad_norm_
FUSED_ON = ("cpu", "cuda")


@dataclass(frozen=True)
class Rule:
    """An optimizer of torch: its function, what it keeps, the rate that it starts with by default, and constants."""

    move: Callable[..., None]
    state: tuple[str, ...]  # as torch calls it, in the order of the function's arguments; "" is one that is not used
    rate: float
    constants: Mapping[str, Any] = field(default_factory=dict)
    has_momentum: bool = False
    nesterov: bool = False
    fused: bool = True  # has one kernel for all of a step

    @property
    def vectors(self) -> tuple[str, ...]:
        """Of the parameters' size."""
        return tuple(key for key in self.state if key not in ("", STEP))


STEP = "step"
SGD: dict[str, Any] = {"momentum": 0.0, "dampening": 0.0, "nesterov": False}
ADAGRAD: dict[str, Any] = {"lr_decay": 0.0, "eps": 1e-10}
RMSPROP: dict[str, Any] = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False}
ADAM: dict[str, Any] = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False}

OPTIMIZERS = {
    "gradient_descent": Rule(sgd, ("",), 0.1, SGD),
    "momentum": Rule(sgd, ("momentum_buffer",), 0.02, SGD, has_momentum=True),
    "nesterov": Rule(sgd, ("momentum_buffer",), 0.02, SGD, has_momentum=True, nesterov=True),
    "adagrad": Rule(adagrad, ("sum", STEP), 0.01, ADAGRAD),
    "rmsprop": Rule(rmsprop, ("square_avg", "", "", STEP), 0.001, RMSPROP, fused=False),
    "adam": Rule(adam, ("exp_avg", "exp_avg_sq", "", STEP), 0.001, ADAM),
    "curvature": Rule(sgd, ("",), 0.1, SGD),
}
DEFAULT_RATES = {name: rule.rate for name, rule in OPTIMIZERS.items()}
STATE_VECTORS = {name: len(rule.vectors) for name, rule in OPTIMIZERS.items()}


class Optimizer:
    """Moves ``parameters.vector`` by ``parameters.gradient``, in place.

    Keeps STATE_VECTORS[name] vectors of the parameters' size beside them, made here; a step of "rmsprop",
    which torch has no one kernel for, takes one more while it lasts. No step waits for the device.
    Raises ConfigError for an unknown name, or a ``momentum`` (of "momentum" and "nesterov") not from 0 to below 1.
    """

    def __init__(self, name: str, parameters: Parameters, *, momentum: float = 0.9):
        rule = named("optimizer", name, OPTIMIZERS)
        momentum = from_0(momentum, "momentum", below=1.0)
        self.name = name
        vector = parameters.vector
        fused = rule.fused and vector.device.type in FUSED_ON
        self._move, self._constants = rule.move, {**rule.constants, "weight_decay": 0.0, "maximize": False}
        self._constants["foreach"] = False  # which is for many tensors: this is one
        if fused:
            self._constants["fused"] = True
        if rule.has_momentum:
            self._constants |= {"momentum": momentum, "nesterov": rule.nesterov and momentum > 0}
        # Made now rather than by the first step: so its memory is known, and it can be loaded into.
        self._state: dict[str, Tensor] = {key: torch.zeros_like(vector) for key in rule.vectors}
        if STEP in rule.state:
            self._state[STEP] = torch.zeros((), device=vector.device if fused else "cpu")
        kept = [[self._state[key]] if key else [None] if rule.move is sgd else [] for key in rule.state]
        self._lists: list[list[Any]] = [[vector], [parameters.gradient], *kept]

    def step(self, rate: float) -> None:
        """Make one step with this learning rate."""
        self._move(*self._lists, lr=rate, **self._constants)

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
