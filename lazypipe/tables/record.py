"""What each column of the matrix is, as a file beside it and as lines to print."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.tables.fields import Field

LINES_SHOWN = 20


@dataclass(frozen=True)
class Converted:
    """A matrix made of a table: where it is, and what each of its columns was."""

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype
    fields: tuple[Field, ...]
    n_dropped: int  # rows left out for a null
    rounded: tuple[str, ...]  # columns whose numbers are not exact in the dtype that was asked for
    labels: Path | None

    @property
    def columns(self) -> Path:
        """The record of what each column is."""
        return columns_path(self.path)


def columns_path(target: Path) -> Path:
    """Where the record of the columns in ``target`` goes."""
    return target.with_name(f"{target.stem}.columns.json")


def write(path: Path, head: dict[str, Any], fields: Sequence[Field]) -> None:
    """JSON: the head, and under ``columns`` a line for each column of the matrix, in order."""
    with open(path, "w", encoding="utf-8") as file:
        text = json.dumps(head, ensure_ascii=False, allow_nan=False, indent=1)
        file.write(text.removesuffix("\n}") + ',\n "columns": [')
        for i, column in enumerate(columns(fields)):
            file.write(("," if i else "") + "\n  " + json.dumps(column, ensure_ascii=False, allow_nan=False))
        file.write("\n ]\n}\n")


def columns(fields: Sequence[Field]) -> Iterator[dict[str, Any]]:
    """Index, source and what was found of each column of the matrix."""
    index = 0
    for field in fields:
        found, nulls = field.found, field.found.nulls
        for entry in range(field.width):
            column: dict[str, Any] = {"index": index, "source": field.name, "type": field.feature.type}
            if field.feature.is_list:
                column["entry"] = entry
            if field.one_hot:
                column["category"] = field.categories[entry]
            elif field.categories:
                column["categories"] = list(field.categories)
            elif field.meaning:
                column["unit"] = field.meaning
            column["nulls"] = field.n_nulls if field.categories else int(nulls[entry])
            if not field.categories:
                column["nan"] = int(found.n_nan[entry]) if len(found.n_nan) else 0
                low, high = _bounds(field, entry)
                column |= {"min": low, "max": high}
                if len(found.n_infinite) and found.n_infinite[entry]:
                    column["infinite"] = int(found.n_infinite[entry])
            yield column
            index += 1


def table(fields: Sequence[Field]) -> list[tuple[str, ...]]:
    """The same, a row a column of the source; the first row is the head."""
    rows: list[tuple[str, ...]] = [("columns", "source", "type", "nulls", "NaN", "min", "max", "")]
    at = 0
    for field in fields[:LINES_SHOWN]:
        last = at + field.width - 1
        low, high = ("", "") if field.categories else _whole_range(field)
        span = f"{at:,}" if last <= at else f"{at:,} to {last:,}"
        rows.append(
            (span, field.name, field.feature.type, f"{field.n_nulls:,}", f"{field.n_nan:,}", low, high, field.meaning)
        )
        at = last + 1
    return rows


def _bounds(field: Field, entry: int) -> tuple[Any, Any]:
    if field.found.low is None or field.found.high is None:
        return None, None
    return _plain(field.found.low[entry].item()), _plain(field.found.high[entry].item())


def _plain(number: float) -> Any:
    """JSON has no NaN: where no number was seen there is no bound."""
    return None if isinstance(number, float) and math.isnan(number) else number


def _whole_range(field: Field) -> tuple[str, str]:
    low, high = field.found.low, field.found.high
    if low is None or high is None:
        return "", ""
    seen = [(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True) if a == a]
    return (f"{min(a for a, _ in seen):.6g}", f"{max(b for _, b in seen):.6g}") if seen else ("", "")
