"""Sums of windows block of time by block of time, each unit in its own channel; and means of blocks drawn anew.

The block bootstrap draws whole blocks, so that what depends on its neighbours in time stays with them (Künsch,
Annals of Statistics 17:1217, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block, Reads, Span
from lazypipe.stats.base import Axis
from lazypipe.stats.spike_triggered import NanPolicy, SpikeTriggered, WindowSums
from lazypipe.stats.windows import Windows

MOST_NUMBERS = 2**18  # of resampled means at once: 2 MiB


class Part(NamedTuple):
    """Units that look at the same columns."""

    units: np.ndarray  # (n,) places among all units
    columns: np.ndarray  # (k,) of the matrix
    statistic: SpikeTriggered


class PartSums(NamedTuple):
    """One for each part."""

    parts: tuple[WindowSums, ...]


class Sums(NamedTuple):
    """Of all units; floats less the shift."""

    used: np.ndarray  # (n_units,)
    not_finite: np.ndarray  # (n_units,) windows left out for a NaN
    total: np.ndarray  # (n_units, length * k) float64


@dataclass(frozen=True, eq=False)
class SumsByChannel:
    """Sums of the windows of units that look at different columns, each column read once."""

    parts: tuple[Part, ...]
    n_columns: int
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = PartSums

    @classmethod
    def of(
        cls, windows: Windows, channels: np.ndarray, n_columns: int, stored: str, shift: np.ndarray, nan: NanPolicy
    ) -> SumsByChannel:
        """``channels`` (n_units, k) are columns of the matrix, ``shift`` (n_columns,) is taken off floats."""
        parts = []
        for columns in np.unique(channels, axis=0):
            units = np.flatnonzero((channels == columns).all(axis=1))
            among = Span(0, len(columns))
            less = shift[columns]
            statistic = SpikeTriggered(some_units(windows, units), among, stored, less, spread=False, nan=nan)
            parts.append(Part(units, columns, statistic))
        return cls(tuple(parts), n_columns)

    @property
    def reads(self) -> Reads:
        return replace(self.parts[0].statistic.reads, columns=Span(0, self.n_columns))

    @property
    def nbytes(self) -> int:
        return sum(part.statistic.windows.nbytes for part in self.parts)

    def wants(self, rows: Span) -> bool:
        return any(part.statistic.wants(rows) for part in self.parts)

    def empty(self) -> PartSums:
        return PartSums(tuple(part.statistic.empty() for part in self.parts))

    def measure(self, block: Block) -> PartSums:
        return self.add(self.empty(), block)

    def add(self, total: PartSums, block: Block) -> PartSums:
        sums = []
        for part, before in zip(self.parts, total.parts, strict=True):
            values = np.ascontiguousarray(block.values[:, part.columns])
            its_own = Block(values, block.rows, part.statistic.columns, block.uri, block.halo)
            sums.append(part.statistic.add(before, its_own))
        return PartSums(tuple(sums))

    def merge(self, left: PartSums, right: PartSums) -> PartSums:
        pairs = zip(self.parts, left.parts, right.parts, strict=True)
        return PartSums(tuple(part.statistic.merge(mine, other) for part, mine, other in pairs))

    def finish(self, total: PartSums) -> Sums:
        """Those of all units, in their order."""
        n_units = sum(len(part.units) for part in self.parts)
        used, not_finite = np.zeros((2, n_units), np.int64)
        sums = np.empty((n_units, total.parts[0].total.shape[1]))
        for part, found in zip(self.parts, total.parts, strict=True):
            used[part.units], not_finite[part.units], sums[part.units] = found.used, found.not_finite, found.total
        return Sums(used, not_finite, sums)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return sum(part.statistic.state_nbytes(n_rows, len(part.columns)) for part in self.parts)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """The columns of a part, and what its sums take; all sums once more, as they are put in order."""
        widest = max(len(part.columns) for part in self.parts)
        scratch = max(part.statistic.scratch_nbytes(n_rows, len(part.columns), itemsize) for part in self.parts)
        return n_rows * widest * itemsize + scratch + 2 * self.state_nbytes(n_rows, n_columns)


def some_units(windows: Windows, units: np.ndarray) -> Windows:
    """The whole windows of some units alone."""
    parts = [windows.first[windows.edges[unit] : windows.edges[unit + 1]] for unit in units]
    edges = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    none = windows.of_units(Span(0, 0)).clipped
    return Windows(np.concatenate(parts), edges, windows.length, none, windows.reach)


def bootstrap_band(used: np.ndarray, total: np.ndarray, drawn: np.ndarray, confidence: float) -> np.ndarray:
    """Percentiles (2, n) of the mean of one unit, from its sums by block.

    used (n_blocks,), total (n_blocks, n), drawn (n_bootstrap, n_blocks): how often each block is drawn. Draws
    without a window have no mean, and do not count; windows in one block alone tell of no spread: NaN.
    """
    n_used = drawn @ used
    drawn = drawn[n_used > 0] / n_used[n_used > 0, None]
    band = np.full((2, total.shape[1]), np.nan)
    if not len(drawn) or np.count_nonzero(used) < 2:
        return band
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    step = max(1, MOST_NUMBERS // len(drawn))
    for start in range(0, total.shape[1], step):
        band[:, start : start + step] = np.quantile(drawn @ total[:, start : start + step], tails, axis=0)
    return band
