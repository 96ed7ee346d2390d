"""Sampling rates: which numbers are one, when two are the same, and where a file may tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError

ATTRIBUTES = ("sampling_rate", "sampling_frequency")  # SpikeInterface writes the second


def same_rate(left: float, right: float) -> bool:
    """Whether two rates are one: NWB stores them as float32, good to 6e-8."""
    return math.isclose(left, right, rel_tol=1e-7)


def hertz(rate: float | None) -> str:
    """A rate as an error tells it."""
    return "no rate" if rate is None else f"{rate:.10g} Hz"


def checked_rate(rate: Any) -> float:
    """A caller's rate in Hz; ConfigError unless it is a positive number."""
    value = _positive(rate)
    if value is None:
        raise ConfigError(f"sampling_rate: is {rate!r}. Give samples a second, a positive number such as 30000.")
    return value


def told_rate(rate: Any, where: str) -> float:
    """A rate that a file tells; DataError, which names ``where``, unless it is a positive number."""
    value = _positive(rate)
    if value is None:
        shown = rate.item() if isinstance(rate, np.generic) else rate
        raise DataError(f"{where}: its sampling rate is {shown!r}. Correct it: it is samples a second, above zero.")
    return value


def rate_among(attributes: Mapping[str, Any], where: str) -> float | None:
    """The rate among the attributes of an array or group; None where they tell none."""
    for name in ATTRIBUTES:
        if name in attributes:
            return told_rate(attributes[name], where)
    return None


def _positive(rate: Any) -> float | None:
    if isinstance(rate, np.ndarray) and rate.size == 1:  # as HDF5 and MATLAB store a scalar
        rate = rate.reshape(())[()]
    if isinstance(rate, (str, bytes, bool, np.bool_)):
        return None
    try:
        value = float(rate)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None
