"""Sums and sums of squares of the windows around spikes, of many units at once.

Integers of 16 bits or fewer are added as integers: exact, in any order, at any size. Floats are added in
float64 about a shift, one after another in the order of time, so that no cut of a run into blocks changes a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from lazypipe.blocks import Block, Reads, Span
from lazypipe.errors import DataError
from lazypipe.stats.base import Axis
from lazypipe.stats.compiled import loading_nbytes
from lazypipe.stats.windows import Clipped, Windows

NanPolicy = Literal["raise", "omit", "propagate"]
TEMPORARY = 2**16  # sums that are finished at a time
MOST_IN_INT32 = 2**16 - 1  # windows of int16 whose sum int32 holds
ALL_ONES = {4: (np.int32, 0x7F80_0000), 8: (np.int64, 0x7FF0_0000_0000_0000)}  # exponents of what is not finite


class WindowSums(NamedTuple):
    """Of ``n_units`` units, with ``n = length x n_channels`` sums each."""

    used: np.ndarray  # (n_units,) int64, whole windows
    clipped: np.ndarray  # (n_units, length) int64, windows of which this lag was recorded; (n_units, 0) without
    not_finite: np.ndarray  # (n_units,) int64, windows left out for a NaN
    total: np.ndarray  # (n_units, n) int32 or int64; float64 about the shift
    squares: np.ndarray  # likewise uint32, int64 or float64; (n_units, 0) where no spread was asked for
    bound: np.ndarray  # (1,) int64, no sum of integer squares is larger


class WindowMoments(NamedTuple):
    used: np.ndarray  # (n_units, 1), or (n_units, length) where lags differ
    not_finite: np.ndarray  # (n_units,)
    mean: np.ndarray  # (n_units, length, n_channels)
    std: np.ndarray | None


@dataclass(frozen=True, eq=False)
class SpikeTriggered:
    """Mean and standard deviation (dividing by n - ddof) of the ``windows`` of every unit, in one pass."""

    windows: Windows
    columns: Span  # of the matrix
    stored: str  # dtype of the matrix
    shift: np.ndarray | None = None  # (n_channels,) float64, for floats
    spread: bool = True
    ddof: int = 1
    nan: NanPolicy = "raise"
    result: str = "float64"  # dtype of mean and deviation
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = WindowSums

    @property
    def reads(self) -> Reads:
        return Reads(self.columns, self.windows.length - 1, block_dtype(self.stored).name)

    @property
    def _is_integer(self) -> bool:
        return block_dtype(self.stored) == np.int16

    @property
    def _shape(self) -> tuple[int, int]:
        return self.windows.n_units, self.windows.length * len(self.columns)

    def wants(self, rows: Span) -> bool:
        """Whether windows end in those rows."""
        return self._owned(rows)[2] > 0 or len(self.windows.clipped_of(rows).unit) > 0

    def _owned(self, rows: Span) -> tuple[np.ndarray, np.ndarray, int]:
        from lazypipe.stats.window_kernel import owned

        low, high = np.empty((2, self.windows.n_units), np.int64)
        windows = self.windows
        n = owned(windows.first, windows.edges, windows.length, rows.start, rows.stop, low, high)
        return low, high, n

    def empty(self) -> WindowSums:
        n_units, n = self._shape
        kinds = self._kinds
        return WindowSums(
            np.zeros(n_units, np.int64),
            np.zeros((n_units, self.windows.length if len(self.windows.clipped.unit) else 0), np.int64),
            np.zeros(n_units, np.int64),
            np.zeros((n_units, n), kinds[0]),
            np.zeros((n_units, n if self.spread else 0), kinds[1]),
            np.zeros(1, np.int64),
        )

    @cached_property
    def _kinds(self) -> tuple[type, type]:
        """Of sums, and of sums of squares to begin with."""
        if not self._is_integer:
            return np.float64, np.float64
        counts = np.diff(self.windows.edges) + np.bincount(self.windows.clipped.unit, minlength=self.windows.n_units)
        return (np.int32 if counts.max(initial=0) <= MOST_IN_INT32 else np.int64), np.uint32

    def measure(self, block: Block) -> WindowSums:
        return self.add(self.empty(), block)

    def add(self, total: WindowSums, block: Block) -> WindowSums:
        low, high, _ = self._owned(block.rows)
        clipped = self.windows.clipped_of(block.rows)
        return self._add(total, block, low, high, clipped)

    def add_open(self, total: WindowSums, block: Block) -> WindowSums:
        """The windows cut off by the end of the recording, from a block that ends there."""
        none = np.zeros(self.windows.n_units, np.int64)
        return self._add(total, block, none, none, self.windows.clipped_of(Span(block.rows.stop, block.rows.stop + 1)))

    def _add(self, total: WindowSums, block: Block, low: np.ndarray, high: np.ndarray, clipped: Clipped) -> WindowSums:
        from lazypipe.stats import window_kernel as kernel

        width, row = len(self.columns), block.rows.start - block.halo
        values, first = block.values.reshape(-1), self.windows.first
        if not self._is_integer and self.nan != "propagate" and not _all_finite(values):
            first, low, high, clipped = self._without_nan(total, block, low, high, clipped)
        used, squares = high - low, total.squares
        if self._is_integer:
            if self.spread:
                most = int(used.max(initial=0)) + len(clipped.unit)
                squares = self._with_room(total, most * int(kernel.largest(values)) ** 2)
            kernel.add_integers(values, width, first, row, low, high, total.total, squares, self.spread)
        else:
            kernel.add_floats(values, width, first, row, low, high, self._pattern, total.total, squares, self.spread)
        np.add(total.used, used, out=total.used)
        for unit, begin, lag, length, _ in zip(*clipped, strict=True):
            part = values[(begin - row) * width :][: length * width]
            place = slice(lag * width, (lag + length) * width)
            self._add_part(total.total[unit, place], squares[unit, place] if self.spread else None, part)
            total.clipped[unit, lag : lag + length] += 1
        return total._replace(squares=squares)

    def _with_room(self, total: WindowSums, more: int) -> np.ndarray:
        """The squares in a dtype that holds them and ``more``; what was added to the bound stays there."""
        total.bound[0] += more
        if total.squares.dtype == np.uint32 and total.bound[0] >= 2**32:
            return total.squares.astype(np.int64)
        return total.squares

    def _add_part(self, sums: np.ndarray, squares: np.ndarray | None, values: np.ndarray) -> None:
        if self._is_integer:
            sums += values
            if squares is not None:
                squares += (values.astype(np.int32) ** 2).astype(squares.dtype)
            return
        less = values.reshape(-1, len(self.columns)) - self._shift
        sums += less.reshape(-1)
        if squares is not None:
            squares += less.reshape(-1) ** 2

    @property
    def _shift(self) -> np.ndarray:
        return np.zeros(len(self.columns)) if self.shift is None else self.shift

    @cached_property
    def _pattern(self) -> np.ndarray:
        """The shift of as many whole rows as a tile holds."""
        from lazypipe.stats.window_kernel import TILE

        return np.tile(self._shift, max(1, TILE // len(self.columns)))

    def _without_nan(
        self, total: WindowSums, block: Block, low: np.ndarray, high: np.ndarray, clipped: Clipped
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Clipped]:
        """The windows that hold no NaN; DataError at the first that does, if that is the policy."""
        first_row = block.rows.start - block.halo
        bad = ~np.isfinite(block.values).all(axis=1)
        so_far = np.concatenate([[0], np.cumsum(bad)])
        unit = np.repeat(np.arange(len(low)), high - low)
        first = np.concatenate([self.windows.first[a:b] for a, b in zip(low, high, strict=True)])
        place, row = first - first_row, clipped.row - first_row
        spoilt = so_far[place + self.windows.length] > so_far[place]
        cut = so_far[row + clipped.length] > so_far[row]
        if self.nan == "raise" and (spoilt.any() or cut.any()):
            self._refuse(block, bad, np.concatenate([place[spoilt], row[cut]]).min())
        total.not_finite[...] += np.bincount(unit[spoilt], minlength=len(low))
        total.not_finite[...] += np.bincount(clipped.unit[cut], minlength=len(low))
        edges = np.searchsorted(unit[~spoilt], np.arange(len(low) + 1))
        return first[~spoilt], edges[:-1], edges[1:], Clipped(*(array[~cut] for array in clipped))

    def _refuse(self, block: Block, bad: np.ndarray, after: int) -> None:
        row = int(after + np.argmax(bad[after:]))
        channel = int(np.argmax(~np.isfinite(block.values[row])))
        what = "NaN" if np.isnan(block.values[row, channel]) else "infinity"
        raise DataError(
            f"{block.uri}: {what} at sample {block.rows.start - block.halo + row:,}, channel {channel:,}, within a "
            f"window. Leave such windows out with nan='omit' (--nan omit), or let it spoil its lag and channel with "
            f"nan='propagate'."
        )

    def merge(self, left: WindowSums, right: WindowSums) -> WindowSums:
        squares = left.squares
        if self._is_integer and self.spread:
            squares = self._with_room(left, int(right.bound[0]))
        for mine, other in zip((*left[:4], squares), right[:5], strict=True):
            np.add(mine, other, out=mine)
        return left._replace(squares=squares)

    def finish(self, total: WindowSums) -> WindowSums:
        """The sums themselves: windows that the end of the recording cuts off may come to them."""
        return total

    def moments(self, total: WindowSums) -> WindowMoments:
        """Mean and deviation, in the memory of the sums where their sizes are the same."""
        length, width = self.windows.length, len(self.columns)
        shape = self.windows.n_units, length, width
        counts = total.used[:, None] + total.clipped if total.clipped.size else total.used[:, None]
        sums = total.total.reshape(shape)
        squares = total.squares.reshape(shape) if self.spread else None
        mean = _in_place(sums, self.result)
        std = None if squares is None else _in_place(squares, self.result)
        step = max(1, TEMPORARY // width)
        with np.errstate(divide="ignore", invalid="ignore"):
            for u in range(self.windows.n_units):
                for start in range(0, length, step):
                    part = u, slice(start, start + step)
                    count = counts[part if counts.shape[1] > 1 else (u, slice(None))][:, None]
                    if squares is not None and std is not None:
                        std[part] = _deviation(sums[part], squares[part], count, self.ddof)
                    mean[part] = sums[part] / count if self._is_integer else sums[part] / count + self._shift
        return WindowMoments(counts, total.not_finite, mean, std)

    def moments_nbytes(self) -> int:
        """Bytes that ``moments`` takes beside the sums."""
        wanted, n = np.dtype(self.result).itemsize, math.prod(self._shape)
        kinds = [np.dtype(kind).itemsize for kind in (self._kinds if self.spread else self._kinds[:1])]
        return n * wanted * sum(kind != wanted for kind in kinds) + 64 * max(TEMPORARY, len(self.columns))

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        """At most: squares of integers begin with 4 bytes, and take 8 once they are large."""
        n_units, n = self._shape
        return n_units * n * (np.dtype(self._kinds[0]).itemsize + (8 if self.spread else 0)) + 8 * 3 * n_units

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """While squares move to 8 bytes the 4 are there too; masks where NaN are looked for."""
        n_units, n = self._shape
        masks = 0 if self._is_integer else n_rows * (n_columns + 16)
        return (4 * n_units * n if self._is_integer and self.spread else 0) + masks + 2**20


def library_nbytes() -> int:
    """Bytes that a process will take to load the loops."""
    return loading_nbytes("lazypipe.stats.window_kernel")


def block_dtype(stored: Any) -> np.dtype:
    """int16 for integers of 16 bits or fewer, float32 for floats that it holds, else float64."""
    stored = np.dtype(stored)
    for kind in (np.int16, np.float32):
        if np.can_cast(stored, kind, "safe"):
            return np.dtype(kind)
    return np.dtype(np.float64)


def _all_finite(values: np.ndarray) -> bool:
    """Looks at exponents as integers: no sum, so nothing rounds, and no mask of the block's size."""
    kind, limit = ALL_ONES[values.itemsize]
    bits = values.view(kind)
    return all(int(np.bitwise_and(bits[i : i + 2**16], limit).max()) < limit for i in range(0, len(bits), 2**16))


def _in_place(sums: np.ndarray, result: str) -> np.ndarray:
    return sums.view(result) if sums.itemsize == np.dtype(result).itemsize else np.empty(sums.shape, result)


def _deviation(total: np.ndarray, squares: np.ndarray, count: np.ndarray, ddof: int) -> np.ndarray:
    """From sums and the number of windows at each: exact for integers until the last division, whatever their mean."""
    if total.dtype.kind == "i":
        whole, rest = np.divmod(total.astype(np.int64), np.maximum(count, 1))
        # total² / count = whole² count + 2 whole rest + rest² / count, of which only the last is no integer.
        about_mean = (squares.astype(np.int64) - whole * (whole * count + 2 * rest)) - rest * rest / count
    else:
        about_mean = squares - total * (total / count)
    return np.sqrt(np.maximum(about_mean, 0) / np.where(count > ddof, count - ddof, np.nan))
