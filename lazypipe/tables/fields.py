"""A column of a table as the columns of the matrix that it becomes, once the first pass has measured it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lazypipe.tables.features import UNITS, Feature
from lazypipe.tables.found import Found


@dataclass(frozen=True)
class Field:
    """One column, or several neighbours: entries of a list, or the categories of a text, one each."""

    feature: Feature
    found: Found
    categories: tuple[str, ...] = ()  # sorted
    one_hot: bool = False

    @property
    def name(self) -> str:
        return self.feature.name

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return len(self.categories) if self.one_hot else 1 if self.categories else self.found.width

    @property
    def n_nulls(self) -> int:
        return int(self.found.nulls.sum()) if self.feature.is_list else self.found.n_missing

    @property
    def n_nan(self) -> int:
        return int(self.found.n_nan.sum())

    @property
    def n_infinite(self) -> int:
        return int(self.found.n_infinite.sum())

    @property
    def is_float(self) -> bool:
        return self.feature.is_float

    @property
    def is_truth(self) -> bool:
        return self.one_hot or self.feature.kind == "truth"

    @property
    def in_float32(self) -> bool:
        return not self.is_float or self.found.in_float32

    @property
    def whole(self) -> bool:
        return not self.is_float or self.found.whole

    @property
    def range(self) -> tuple[float, float]:
        """Least and largest number; 0 among them, which may stand for a null."""
        if self.is_float:
            low, high = self.found.low, self.found.high
            if low is None or high is None or np.isnan(low).all():
                return 0.0, 0.0
            return min(0.0, float(np.nanmin(low))), max(0.0, float(np.nanmax(high)))
        return self.integers

    @property
    def integers(self) -> tuple[int, int]:
        """The same of whole numbers; of others 0 and 0."""
        if self.categories:
            return 0, 1 if self.one_hot else len(self.categories) - 1
        if self.is_float or self.found.low is None or self.found.high is None:
            return 0, 0
        return min(0, int(self.found.low.min())), max(0, int(self.found.high.max()))

    @property
    def meaning(self) -> str:
        """What its numbers are, where that is not plain."""
        if self.one_hot:
            return f"one-hot, {len(self.categories):,} categories"
        if self.categories:
            return f"codes 0 to {len(self.categories) - 1:,}"
        return UNITS.get(self.feature.kind, "")
