"""A network of rectified units by stochastic gradient descent, from He's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import networks
from lazypipe.models.sweep.fitted import Fitted, Options
from lazypipe.models.sweep.rows import Prefix


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit layers of ``options.hidden`` rectified units by plain steps: ``networks.fit`` says more.

    Weights start normal, of variance 2 / inputs. (He et al., "Delving deep into rectifiers", ICCV 2015.)
    """
    return networks.fit(
        prefix, targets, n_classes, strengths, options, seed,
        hidden=options.hidden, activation="relu", momentum=0.0, start=lambda network: network.initialise("he", seed),
    )  # fmt: skip


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    return networks.nbytes(size, n_features, n_classes, n_strengths, options, hidden=options.hidden, momentum=0.0)
