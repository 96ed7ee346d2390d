"""A network of sigmoid units by stochastic gradient descent, from random weights: what ``dbn`` is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import networks
from lazypipe.models.sweep.fitted import Fitted, Options
from lazypipe.models.sweep.rows import Prefix


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit the layers of ``dbn`` by the same steps, with momentum: ``networks.fit`` says more.

    Weights start uniform, of variance 2 / (inputs + outputs). (Glorot and Bengio, "Understanding the difficulty of
    training deep feedforward neural networks", AISTATS 2010.)
    """
    return networks.fit(
        prefix, targets, n_classes, strengths, options, seed,
        hidden=options.layers, activation="sigmoid", momentum=options.momentum,
        start=lambda network: network.initialise("xavier", seed),
    )  # fmt: skip


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    return networks.nbytes(
        size, n_features, n_classes, n_strengths, options, hidden=options.layers, momentum=options.momentum
    )
