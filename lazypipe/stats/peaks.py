"""Where an average over lags moves most, and from what."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Peak(NamedTuple):
    """The lag at which an average lies furthest from its baseline."""

    index: int  # among the lags
    value: float
    baseline: float


def peak_of(mean: np.ndarray) -> Peak | None:
    """Of an average (n_lags,); None where it has no value.

    The baseline is the median over the lags: that of the lags where nothing happens, as long as these are most,
    and wherever in the window they are.
    """
    if np.isnan(mean).all():
        return None
    baseline = float(np.nanmedian(mean))
    index = int(np.nanargmax(np.abs(mean - baseline)))
    return Peak(index, float(mean[index]), baseline)
