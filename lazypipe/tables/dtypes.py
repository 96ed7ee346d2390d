"""The dtype of the matrix: the narrowest that holds every number exactly, or the one asked for if it can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.errors import DataError
from lazypipe.tables.fields import Field

INTEGERS = ("int8", "uint8", "int16", "int32")
EXACT_IN_FLOAT32, EXACT_IN_FLOAT64 = 2**24, 2**53


def narrowest(fields: Sequence[Field], fill_nan: bool, uri: str) -> np.dtype:
    """The narrowest supported dtype in which every number of the fields is exact; floats stay floats.

    DataError for whole numbers beyond 2**53, which no supported dtype holds.
    """
    low, high = _range(fields)
    if any(field.is_float for field in fields) or (fill_nan and any(field.n_nulls for field in fields)):
        exact = max(-low, high) <= EXACT_IN_FLOAT32 and all(field.in_float32 for field in fields)
        chosen = "float32" if exact else "float64"
    elif all(field.is_truth for field in fields):
        chosen = "bool"
    else:
        chosen = next((name for name in INTEGERS if _holds(name, low, high)), "float64")
    if chosen == "float64" and max(-low, high) > EXACT_IN_FLOAT64:
        largest = max(fields, key=lambda field: max(map(abs, field.integers)))
        raise DataError(
            f"{uri}: column {largest.name!r} has {max(largest.integers, key=abs):,}, and no dtype holds every whole "
            f"number beyond 2**53. Leave it out, or round it: dtype='float64' (--dtype float64)."
        )
    return np.dtype(chosen)


def checked(asked: str, fields: Sequence[Field], fill_nan: bool, uri: str) -> tuple[np.dtype, tuple[str, ...]]:
    """The dtype asked for, and the names of the columns whose numbers it rounds; DataError where it cannot hold one."""
    dtype = np.dtype(asked)
    rounded = []
    for field in fields:
        if dtype.kind == "f":
            _require_range(field, float(np.finfo(dtype).max), asked, uri)
            if not _exact(field, dtype):
                rounded.append(field.name)
            continue
        wrong = (
            ("nulls, which become NaN", fill_nan and field.n_nulls),
            ("NaN", field.n_nan),
            ("infinite numbers", field.n_infinite),
            ("fractions", not field.whole),
        )
        found = next((what for what, is_so in wrong if is_so), None)
        if found is not None:
            raise DataError(f"{uri}: column {field.name!r} has {found}: {asked} holds none. Ask for a float dtype.")
        low, high = field.range
        if not _holds(asked, low, high):
            raise DataError(
                f"{uri}: column {field.name!r} goes from {low:,.0f} to {high:,.0f}, beyond {asked}. Ask for a wider "
                f"dtype."
            )
    return dtype, tuple(rounded)


def _range(fields: Sequence[Field]) -> tuple[int, int]:
    """Of all integers."""
    pairs = [field.integers for field in fields]
    return min(low for low, _ in pairs), max(high for _, high in pairs)


def _holds(name: str, low: float, high: float) -> bool:
    if name == "bool":
        return low >= 0 and high <= 1
    limits = np.iinfo(name)
    return bool(limits.min <= low and high <= limits.max)


def _require_range(field: Field, most: float, asked: str, uri: str) -> None:
    largest = max(map(abs, field.range))
    if largest > most:
        raise DataError(
            f"{uri}: column {field.name!r} has {largest:.6g}, beyond the {most:.6g} of {asked}. Ask for a wider dtype."
        )


def _exact(field: Field, dtype: np.dtype) -> bool:
    if dtype == np.float64:
        return max(map(abs, field.integers)) <= EXACT_IN_FLOAT64
    most = EXACT_IN_FLOAT32 if dtype == np.float32 else 2**11
    if field.is_float:
        return dtype == np.float32 and field.in_float32
    return max(map(abs, field.integers)) <= most
