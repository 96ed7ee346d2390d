"""What the first pass finds out about a column: nulls, range, categories, widths; merged in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from lazypipe.tables.features import Array, Feature, entries, missing, numbers

NO_WIDTH = 2**62


@dataclass
class Found:
    """Counts and range of each entry of a column (width,), over the rows seen."""

    feature: Feature
    most_categories: int
    shortest: int = NO_WIDTH  # entries of a row
    longest: int = -1
    n_missing: int = 0  # rows without a list, or without the one entry
    n_null: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # entries that are null in a list
    n_nan: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    n_infinite: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    low: np.ndarray | None = None  # of finite numbers; None, or NaN, where none was seen
    high: np.ndarray | None = None
    in_float32: bool = True  # every number is exact in it
    whole: bool = True  # every number is a whole one
    categories: set[str] = field(default_factory=set)  # at most one more than there may be
    longest_text: int = 0  # characters

    @property
    def width(self) -> int:
        """Entries of a row, 0 where no row has any."""
        return max(0, self.longest)

    @property
    def is_ragged(self) -> bool:
        return self.longest > self.shortest

    @property
    def nulls(self) -> np.ndarray:
        """Nulls of each entry (width,)."""
        return self.n_missing + (self.n_null if len(self.n_null) == self.width else np.zeros(self.width, np.int64))

    def add(self, column: Array) -> None:
        """Count the rows of a batch."""
        values, lengths = entries(self.feature, column)
        self.n_missing += column.null_count
        if lengths is None:
            width, n_rows = 1, len(values)
        else:
            there = lengths[lengths >= 0]
            if not len(there):
                return
            self.shortest, self.longest = min(self.shortest, int(there.min())), max(self.longest, int(there.max()))
            width, n_rows = self.longest, len(there)
        if lengths is None and n_rows:
            self.shortest = self.longest = 1
        if self.is_ragged or not n_rows or not width:
            return
        if self.feature.kind == "text":
            self._add_text(values)
            return
        nulls = missing(values).reshape(n_rows, width) if values.null_count else None
        table = numbers(self.feature, values).reshape(n_rows, width)
        part = Found(self.feature, self.most_categories, width, width)
        part.n_null = np.zeros(width, np.int64) if nulls is None or lengths is None else nulls.sum(0)
        part.n_nan, part.n_infinite = np.zeros((2, width), np.int64)
        if table.dtype.kind == "f":
            part._see_floats(table, nulls)
        else:
            part._see_integers(table, nulls)
        self.merge(part)

    def count_nulls(self, column: Array) -> None:
        """Count those of rows that are left out, of which nothing else is to be known."""
        values, lengths = entries(self.feature, column)
        part = Found(self.feature, self.most_categories, n_missing=column.null_count)
        if lengths is not None and values.null_count:
            there = lengths[lengths >= 0]
            if (there == there[0]).all():
                part.n_null = missing(values).reshape(len(there), -1).sum(0)
                part.n_nan, part.n_infinite = np.zeros((2, len(part.n_null)), np.int64)
        self.merge(part)

    def _add_text(self, values: Array) -> None:
        lengths = pc.max(pc.utf8_length(values)).as_py()
        self.longest_text = max(self.longest_text, lengths or 0)
        if len(self.categories) <= self.most_categories:
            new = [text for text in pc.unique(values).to_pylist() if text is not None and text not in self.categories]
            self.categories.update(new[: self.most_categories + 1 - len(self.categories)])

    def _see_floats(self, table: np.ndarray, nulls: np.ndarray | None) -> None:
        if nulls is not None:
            table = np.where(nulls, np.asarray(0, table.dtype), table)
        nan, infinite = np.isnan(table), np.isinf(table)
        self.n_nan, self.n_infinite = nan.sum(0), infinite.sum(0)
        with np.errstate(over="ignore", invalid="ignore"):
            self.in_float32 = bool(((table.astype(np.float32) == table) | nan).all())
            self.whole = bool(((np.floor(table) == table) & ~infinite | nan).all())
        there = ~(nan | infinite) if nulls is None else ~(nan | infinite | nulls)
        seen = there.any(0)
        low = np.min(table, axis=0, where=there, initial=np.inf).astype(np.float64)
        high = np.max(table, axis=0, where=there, initial=-np.inf).astype(np.float64)
        self.low, self.high = np.where(seen, low, np.nan), np.where(seen, high, np.nan)

    def _see_integers(self, table: np.ndarray, nulls: np.ndarray | None) -> None:
        limits = np.iinfo(table.dtype)
        there = True if nulls is None else ~nulls
        self.low = np.min(table, axis=0, where=there, initial=limits.max).astype(np.int64)
        self.high = np.max(table, axis=0, where=there, initial=limits.min).astype(np.int64)
        if nulls is not None and (none := nulls.all(0)).any():
            if none.all():
                self.low = self.high = None
            else:  # of a list: entries that no row has fill nothing, and have the range of 0
                self.low[none] = self.high[none] = 0

    def merge(self, other: Found) -> None:
        """Take in what was found in other rows."""
        self.shortest, self.longest = min(self.shortest, other.shortest), max(self.longest, other.longest)
        self.n_missing += other.n_missing
        self.longest_text = max(self.longest_text, other.longest_text)
        if len(self.categories) <= self.most_categories:
            self.categories |= other.categories
        self.in_float32 &= other.in_float32
        self.whole &= other.whole
        if self.is_ragged:
            self.low = self.high = None
            return
        if len(other.n_null) and len(self.n_null) in (0, len(other.n_null)):
            self.n_null = other.n_null if not len(self.n_null) else self.n_null + other.n_null
            self.n_nan = other.n_nan if not len(self.n_nan) else self.n_nan + other.n_nan
            self.n_infinite = other.n_infinite if not len(self.n_infinite) else self.n_infinite + other.n_infinite
        if other.low is not None and other.high is not None:
            if self.low is None or self.high is None:
                self.low, self.high = other.low, other.high
            else:
                self.low, self.high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
