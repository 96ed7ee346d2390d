"""Values that callers give, checked: each as a plain Python value, or a ConfigError of one line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from lazypipe.errors import ConfigError

Entry = TypeVar("Entry")
REAL = int | float | np.integer | np.floating


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of NumPy; a truth value is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole(value: Any, name: str, least: int = 1) -> int:
    """A whole number of ``least`` or more."""
    if not is_whole(value):
        raise ConfigError(f"{name}: {value!r} is not a whole number. Give one of {least} or more.")
    if value < least:
        raise ConfigError(f"{name}: {value!r} is not a number of {least} or more.")
    return int(value)


def above_0(value: Any, name: str) -> float:
    """A number as a float, so that 1 and 1.0 are the same in records; above 0 and finite."""
    number = _as_float(value, name)
    if number is None or not 0 < number < math.inf:
        raise ConfigError(f"{name}: {value!r} is not a number above 0.")
    return number


def from_0(value: Any, name: str, below: float = math.inf) -> float:
    """A number as a float, of 0 or more, and below ``below``."""
    number = _as_float(value, name)
    if number is None or not 0 <= number < below:
        up_to = "" if below == math.inf else f" and below {below:g}"
        raise ConfigError(f"{name}: {value!r} is not a number of 0 or more{up_to}.")
    return number


def named(what: str, name: object, known: Mapping[str, Entry]) -> Entry:
    """The entry of that name; the error lists the names that there are, and tells the nearest."""
    if isinstance(name, str) and name in known:
        return known[name]
    close = nearest(name, known) if isinstance(name, str) else ""
    raise ConfigError(f"{what}: {name!r} is not one of {', '.join(known)}{close}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; the nearest is 'x'``, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; the nearest is {close[0]!r}" if close else ""


def require_restart(state: object, restart: bool) -> None:
    """ConfigError where a state is to be forgotten and there is none."""
    if restart and state is None:
        raise ConfigError("restart: there is no state to forget. Give state= (--state), or leave restart out.")


def _as_float(value: Any, name: str) -> float | None:
    if not isinstance(value, REAL) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{name}: a whole number of more than 308 digits. Give a smaller one.") from None
