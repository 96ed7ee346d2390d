"""A deep belief network, fine-tuned: sigmoid units whose hidden layers start from a pre-trained stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import networks
from lazypipe.models.sweep.deep import nbytes
from lazypipe.models.sweep.fitted import Fitted, Options
from lazypipe.models.sweep.rows import Prefix
from lazypipe.nets.arrays import ArrayNetwork


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit all layers to the labels by the steps of ``deep``, from ``options.pretrained`` and its random output layer.

    The first biases take up what the rows are centred by: the units say of them what the stack says of the rows.
    (Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 2006.)
    """
    stack = options.pretrained
    assert stack is not None, "checked with the data"

    def start(network: ArrayNetwork) -> None:
        network.initialise("xavier", seed)
        for i, (weight, bias) in enumerate(stack.entered()):
            weights, biases = network.layer(i)
            weights[:], biases[:] = weight, bias if i else bias + weight @ prefix.shift

    return networks.fit(
        prefix, targets, n_classes, strengths, options, seed,
        hidden=options.layers, activation="sigmoid", momentum=options.momentum, start=start,
    )  # fmt: skip


__all__ = ["fit", "nbytes"]
