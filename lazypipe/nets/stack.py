"""A pre-trained stack: the hidden layers that a network may start from, and the file that holds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from lazypipe.errors import DataError
from lazypipe.nets.checkpoints import load_tensors, save_tensors
from lazypipe.stores import AnyPath, path_of

LOSS = "pretrained"  # in the place of a loss: there are no outputs
REMEDY = "Give the file of a pre-trained stack, as the job dbn and DBN.save leave it."


@dataclass(frozen=True, eq=False)
class Stack:
    """Layers of sigmoid units, inputs first: ``a' = sigmoid(W a + b)``, and down again ``a = sigmoid(Wᵀ a' + v)``.

    ``units`` are of every layer, inputs first; ``weights`` (outputs, inputs), ``biases`` (outputs,) and
    ``visible_biases`` (inputs,) of each hidden one, float32. Entries of the rows are divided by ``divide_by``; where
    the visible units are Gaussian, ``mean`` (D,) is then taken off and what is left divided by ``scale`` (D,).
    """

    units: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    divide_by: float = 1.0
    visible_biases: tuple[np.ndarray, ...] = ()
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    @property
    def gaussian(self) -> bool:
        return self.mean is not None

    @property
    def _all(self) -> tuple[np.ndarray, ...]:
        standard = () if self.mean is None or self.scale is None else (self.mean, self.scale)
        return (*self.weights, *self.biases, *self.visible_biases, *standard)

    def layers(self, n: int) -> Stack:
        """The first ``n`` layers."""
        return replace(
            self,
            units=self.units[: n + 1],
            weights=self.weights[:n],
            biases=self.biases[:n],
            visible_biases=self.visible_biases[:n],
        )

    def entered(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights and biases of each layer for rows that are divided alone: the first layer standardises."""
        found = list(zip(self.weights, self.biases, strict=True))
        if found and self.mean is not None and self.scale is not None:
            weight = self.weights[0] / self.scale
            found[0] = weight, self.biases[0] - weight @ self.mean
        return found

    @cached_property
    def digest(self) -> str:
        """What tells its numbers from others."""
        found = hashlib.sha256(repr((self.units, self.divide_by)).encode())
        for array in self._all:
            found.update(np.ascontiguousarray(array, np.float32).data)
        return found.hexdigest()[:32]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._all)


def save_stack(path: str | Path, stack: Stack, overwrite: bool = False) -> None:
    """Write a stack as one safetensors file, whole. DataError where it is there and not ``overwrite``."""
    header = {
        "network": {"units": stack.units, "activation": "sigmoid", "loss": LOSS},
        "divide_by": stack.divide_by,
    }
    tensors = {f"weight.{i}": torch.from_numpy(weight) for i, weight in enumerate(stack.weights)}
    tensors |= {f"bias.{i}": torch.from_numpy(bias) for i, bias in enumerate(stack.biases)}
    tensors |= {f"visible_bias.{i}": torch.from_numpy(bias) for i, bias in enumerate(stack.visible_biases)}
    if stack.mean is not None and stack.scale is not None:
        tensors |= {"mean": torch.from_numpy(stack.mean), "scale": torch.from_numpy(stack.scale)}
    save_tensors(path_of(path), header, tensors, overwrite)


def is_stack(path: AnyPath, remedy: str) -> bool:
    """Whether a file holds a stack, or one machine. DataError, with that remedy, where it cannot be read."""
    return bool(load_tensors(path.absolute(), remedy).header.get("network", {}).get("loss") == LOSS)


def load_stack(path: str | AnyPath) -> Stack:
    """The stack of a file, which may hold more tensors and a longer header. DataError for any other file."""
    place = path_of(path)
    header, tensors = load_tensors(place, REMEDY)
    network = header.get("network", {})
    if network.get("loss") != LOSS:
        what = f"a network with outputs ({network['loss']})" if "loss" in network else "no network"
        raise DataError(f"{place}: is {what}, where a pre-trained stack is wanted. {REMEDY}")
    if network["activation"] != "sigmoid":
        raise DataError(f"{place}: its units are {network['activation']}, not sigmoid. {REMEDY}")
    units = tuple(network["units"])
    shapes: dict[str, tuple[int, ...]] = {f"weight.{i}": (n, m) for i, (m, n) in enumerate(pairwise(units))}
    shapes |= {f"bias.{i}": (n,) for i, n in enumerate(units[1:])}
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise DataError(f"{place}: {name} is {found or 'missing'}, where its units say {shape}. {REMEDY}")
    weights, biases, visible_biases = (
        tuple(tensors[f"{kind}.{i}"].float().numpy() for i in range(len(units) - 1) if f"{kind}.{i}" in tensors)
        for kind in ("weight", "bias", "visible_bias")
    )
    mean, scale = (tensors[name].numpy() if name in tensors else None for name in ("mean", "scale"))
    return Stack(units, weights, biases, float(header["divide_by"]), visible_biases, mean, scale)
