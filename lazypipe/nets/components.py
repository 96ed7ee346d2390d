"""How well so many components give rows back: what codes are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazypipe.io import open_matrix
from lazypipe.nets.applying import Function, applied
from lazypipe.nets.options import Options


def component_errors(others: Any, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Of the first component, of the first two, and so on (k,): the mean squared error of an entry of ``others``.

    One pass over them. ``mean`` (D,) and ``components`` (k, D) as of a fitted PCA.
    """
    matrix = open_matrix(others)
    k = len(components)

    def make(device: torch.device) -> Function:
        centre, basis = (torch.from_numpy(array.astype(np.float32)).to(device) for array in (mean, components.T))

        def squares(rows: Tensor) -> Tensor:
            centred = rows - centre
            return torch.cat([centred.square().sum(1, keepdim=True), (centred @ basis).square_()], 1)

        return squares

    found = applied(make, matrix, k + 1, 3 * (matrix.shape[1] + k + 1), Options(device="cpu"))
    assert isinstance(found, np.ndarray)
    sums = found.sum(axis=0, dtype=np.float64)
    return np.asarray((sums[0] - np.cumsum(sums[1:])) / (matrix.shape[0] * matrix.shape[1]))
