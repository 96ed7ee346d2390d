"""The weights that training starts from: random, of a spread that keeps signals and gradients from layer to layer.

With n inputs and m outputs of a layer (fan in, fan out), the standard deviation of its weights is

    xavier, xavier_normal   sqrt(2 / (n + m))   Glorot & Bengio 2010, AISTATS, eq. 12 and 16
    he, he_uniform          sqrt(2 / n)         He, Zhang, Ren & Sun 2015, ICCV, eq. 10: half of relu's outputs are 0
    lecun                   sqrt(1 / n)         LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, eq. 16
    normal                  0.01                Hinton 2012, A practical guide to training RBMs, section 8
    zeros                   0                   for one layer alone: units of a hidden one would stay alike

"xavier" and "he_uniform" are uniform, the others normal, all with mean 0. Biases start at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lazypipe.checks import named


@dataclass(frozen=True)
class Initial:
    """A distribution of weights with mean 0; its standard deviation by (fan in, fan out)."""

    deviation: Callable[[int, int], float]
    uniform: bool = False


INITIALS = {
    "xavier": Initial(lambda n, m: math.sqrt(2 / (n + m)), uniform=True),
    "xavier_normal": Initial(lambda n, m: math.sqrt(2 / (n + m))),
    "he": Initial(lambda n, m: math.sqrt(2 / n)),
    "he_uniform": Initial(lambda n, m: math.sqrt(2 / n), uniform=True),
    "lecun": Initial(lambda n, m: math.sqrt(1 / n)),
    "normal": Initial(lambda n, m: 0.01),
    "zeros": Initial(lambda n, m: 0.0),
}


def initial_for(name: str, activation: str) -> str:
    """The name itself, or for "auto" what suits the activation: "he" for relu, else "xavier"; or ConfigError."""
    if name == "auto":
        return "he" if activation == "relu" else "xavier"
    named("initial", name, {"auto": None, **INITIALS})
    return name


def fill(weight: Tensor, name: str, random: Generator) -> None:
    """Draw a weight matrix (outputs, inputs) anew, in place; ConfigError for a name not in INITIALS.

    ``random`` is a generator on the CPU whatever the device of ``weight``, so that a seed gives the same numbers on
    every device; the matrix takes its room on the host once more meanwhile.
    """
    initial = named("initial", name, INITIALS)
    n_outputs, n_inputs = weight.shape
    deviation = initial.deviation(n_inputs, n_outputs)
    drawn = torch.empty(weight.shape, dtype=torch.float32)
    if initial.uniform:
        drawn.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation, generator=random)
    else:
        drawn.normal_(0, deviation, generator=random)
    weight.copy_(drawn)
