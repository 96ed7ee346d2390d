"""A column of a table, and its entries in a batch of rows as Spark sends them (Arrow)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = pa.Array
Kind = Literal["truth", "integer", "float32", "float64", "day", "second", "text"]

UNITS = {"day": "days since 1970-01-01", "second": "seconds since 1970-01-01 UTC"}
MICROSECONDS = 1e6


@dataclass(frozen=True)
class Feature:
    """A column that goes into the matrix: one entry a row, or a list of them."""

    name: str
    type: str  # as Spark calls it
    kind: Kind
    is_list: bool = False

    @property
    def is_float(self) -> bool:
        return self.kind in ("float32", "float64", "second")


def entries(feature: Feature, column: Array) -> tuple[Array, np.ndarray | None]:
    """The entries of all rows back to back, and of lists the length of each row's: -1 where there is none."""
    if not feature.is_list:
        return column, None
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets).astype(np.int64)
    if column.null_count:
        lengths[missing(column)] = -1
        return column.flatten(), lengths  # which leaves out what may lie under a null
    return column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])), lengths


def numbers(feature: Feature, values: Array) -> np.ndarray:
    """Entries as numbers (n,), in float64 where they are not integers or float32; nulls are 0."""
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(False if feature.kind == "truth" else 0, values.type))
    if feature.kind == "truth":
        return values.cast(pa.uint8()).to_numpy(zero_copy_only=False)
    if feature.kind == "day":
        return values.cast(pa.int32()).to_numpy(zero_copy_only=False)
    if feature.kind == "second":
        return values.cast(pa.int64()).to_numpy(zero_copy_only=False) / MICROSECONDS
    return np.asarray(values.to_numpy(zero_copy_only=False))


def missing(values: Array) -> np.ndarray:
    """Where nulls are (n,)."""
    return np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False))


def whole_rows(features: tuple[Feature, ...], columns: list[Array], n_rows: int) -> np.ndarray:
    """Which rows (n,) have no null in any of the columns, nor in a list of theirs."""
    whole = np.ones(n_rows, bool)
    for feature, column in zip(features, columns, strict=True):
        if column.null_count:
            whole &= ~missing(column)
        if feature.is_list:
            values, lengths = entries(feature, column)
            if values.null_count and lengths is not None:
                owner = np.repeat(np.arange(n_rows), np.maximum(lengths, 0))
                whole[owner[missing(values)]] = False
    return whole
