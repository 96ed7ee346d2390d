"""One unit of an average of many: its part of the arrays, and where it moves most, and from what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Peak:
    """The lag at which an average lies furthest from its baseline."""

    at: int  # among the lags
    value: float
    baseline: float


def unit_of(average: Any, index: int) -> Any:
    """The spike-triggered average of the unit at that place alone; of one on disk, only that much is read."""
    part = slice(index, index + 1)
    return replace(
        average,
        unit_ids=average.unit_ids[part],
        mean=np.asarray(average.mean[part]),
        std=None if average.std is None else np.asarray(average.std[part]),
        n_used=average.n_used[part],
        n_dropped={why: n[part] for why, n in average.n_dropped.items()},
    )


def best_channel(mean: np.ndarray) -> int | None:
    """Of an average (n_lags, n_channels), the channel whose finite values lie furthest apart; None if none has any."""
    finite = np.isfinite(mean)
    highest = np.max(mean, axis=0, where=finite, initial=-np.inf)
    lowest = np.min(mean, axis=0, where=finite, initial=np.inf)
    best = int(np.argmax(highest - lowest))  # minus infinity for a channel without any
    return best if finite[:, best].any() else None


def peak_of(mean: np.ndarray) -> Peak:
    """Of an average (n_lags,) that has a finite value.

    The baseline is the median over the lags: that of the lags where nothing happens, as long as these are most,
    and wherever in the window they are.
    """
    mean = np.where(np.isfinite(mean), mean, np.nan)
    baseline = float(np.nanmedian(mean))
    at = int(np.nanargmax(np.abs(mean - baseline)))
    return Peak(at, float(mean[at]), baseline)
