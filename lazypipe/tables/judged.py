"""What the first pass found, judged: what the matrix will be, or the one line that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np

from lazypipe.errors import DataError
from lazypipe.tables.dtypes import checked, narrowest
from lazypipe.tables.fields import Field
from lazypipe.tables.found import Found
from lazypipe.tables.passes import Measured, Split

COLUMNS_SHOWN = 5
LABELS = {"truth": "bool", "float32": "float32", "float64": "float64", "day": "int32", "second": "float64"}
INTEGERS = {"tinyint": "int8", "smallint": "int16", "int": "int32", "bigint": "int64"}


@dataclass(frozen=True)
class Judged:
    """The matrix to write."""

    fields: tuple[Field, ...]
    dtype: np.dtype
    rounded: tuple[str, ...]  # columns whose numbers the dtype asked for does not hold exactly
    n_rows: int
    places: dict[Split, tuple[int, int]]  # first row and rows of each split
    labels: np.dtype | None

    @property
    def width(self) -> int:
        return sum(field.width for field in self.fields)


def judge(
    seen: Measured, nulls: str, categories: str | None, most_categories: int, dtype: str | None, uri: str
) -> Judged:
    """Raises DataError for what cannot be a matrix of numbers."""
    n_rows, places = _placed(seen)
    if not n_rows:
        why = f": all {seen.n_dropped:,} have a null" if seen.n_dropped else ""
        raise DataError(f"{uri}: is empty, no rows{why}. Check what wrote it.")
    if nulls == "raise":
        _require_no_nulls(seen, uri)
    fields = tuple(_field(found, nulls, categories, most_categories, uri) for found in seen.found)
    rounded: tuple[str, ...] = ()
    if dtype is None:
        chosen = narrowest(fields, nulls == "nan", uri)
    else:
        chosen, rounded = checked(dtype, fields, nulls == "nan", uri)
    labels = None if seen.label is None else _labels(seen.label, nulls == "drop", uri)
    return Judged(fields, chosen, rounded, n_rows, places, labels)


def _placed(seen: Measured) -> tuple[int, dict[Split, tuple[int, int]]]:
    """Rows in all, and the place of each split: files by name, and each from its beginning."""
    at, places = 0, {}
    for split in sorted(seen.rows, key=lambda split: (unquote(seen.names[split[0]]), split)):
        places[split] = (at, seen.rows[split])
        at += seen.rows[split]
    return at, places


def _require_no_nulls(seen: Measured, uri: str) -> None:
    counts = {found.feature.name: found.n_missing + int(found.n_null.sum()) for found in seen.found}
    counts = {name: n_nulls for name, n_nulls in counts.items() if n_nulls}
    if counts:
        shown = ", ".join(f"{n_nulls:,} in {name!r}" for name, n_nulls in list(counts.items())[:COLUMNS_SHOWN])
        more = f" and in {len(counts) - COLUMNS_SHOWN} more columns" if len(counts) > COLUMNS_SHOWN else ""
        raise DataError(
            f"{uri}: has nulls: {shown}{more}. Fill them, nulls='nan' or 'zero' (--nulls), or leave their rows out, "
            f"'drop'."
        )


def _field(found: Found, nulls: str, categories: str | None, most: int, uri: str) -> Field:
    name = found.feature.name
    if found.feature.kind == "text":
        if len(found.categories) > most:
            raise DataError(
                f"{uri}: column {name!r} has more than {most:,} categories. Leave it out, or raise max_categories "
                f"(--max-categories)."
            )
        if not found.categories:
            raise DataError(f"{uri}: column {name!r} holds nothing but nulls. Leave it out.")
        if nulls == "zero" and categories == "codes" and found.n_missing:
            raise DataError(
                f"{uri}: column {name!r} has {found.n_missing:,} nulls, and code 0 is its first category. Use "
                f"nulls='nan' or 'drop', or categories='one-hot'."
            )
        return Field(found.feature, found, tuple(sorted(found.categories)), categories == "one-hot")
    if found.is_ragged:
        raise DataError(
            f"{uri}: column {name!r} has lists of {found.shortest:,} to {found.longest:,} entries. Pad or cut them to "
            f"one length, or leave it out."
        )
    if found.feature.is_list and not found.width:
        raise DataError(f"{uri}: column {name!r} holds no entries. Leave it out.")
    return Field(found.feature, found)


def _labels(found: Found, drop: bool, uri: str) -> np.dtype:
    """The dtype of the labels: what the table has."""
    name = found.feature.name
    for what, count in (("null", found.n_missing), ("NaN", int(found.n_nan.sum()))):
        if count and not (drop and what == "null"):
            raise DataError(
                f"{uri}: the label {name!r} is {what} in {count:,} rows. Leave such rows out"
                f"{' (--nulls drop)' if what == 'null' else ''}, or fill them in."
            )
    if found.feature.kind == "text":
        return np.dtype(f"<U{max(1, found.longest_text)}")
    return np.dtype(LABELS.get(found.feature.kind) or INTEGERS[found.feature.type])
