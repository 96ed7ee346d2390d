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
from lazypipe.stats.windows import Clipped, Windows

NanPolicy = Literal["raise", "omit", "propagate"]
TEMPORARY = 2**16  # sums that are finished at a time
PANEL_NBYTES = 2**20  # of the rows of a panel: they stay in the second cache, three times as fast as the third
PANEL_LAGS, PANEL_CHANNELS = 128, 64  # of windows that are worth the copy
PANEL_REUSE = 12  # windows that a sample has to be in
PANEL = 32  # channels: 64 bytes of int16 are a line of the cache
MOST_IN_INT32 = 2**16 - 1  # windows of int16 whose sum int32 holds
ALL_ONES = {4: (np.int32, 0x7F80_0000), 8: (np.int64, 0x7FF0_0000_0000_0000)}  # exponents of what is not finite


class WindowSums(NamedTuple):
    """Of ``n_units`` units, with ``n = length x n_channels`` sums each."""

    used: np.ndarray  # (n_units,) int64, whole windows
    clipped: np.ndarray  # (n_units, length) int64, windows of which this lag was recorded; (n_units, 0) without
    not_finite: np.ndarray  # (n_units,) int64, windows left out for a NaN
    total: np.ndarray  # (n_units, n) int32 or int64; float64 about the shift. By panel, lag, and channel in it
    squares: np.ndarray  # likewise uint32, int64 or float64; (n_units, 0) where no spread was asked for
    bound: np.ndarray  # (1,) int64, no sum of integer squares is larger


class Moments(NamedTuple):
    """Arrays (n_units, length, n_channels) for the mean, and the deviation where it is wanted."""

    mean: np.ndarray
    std: np.ndarray | None


class WindowMoments(NamedTuple):
    """What is known of the windows of each unit."""

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
    panel: int = 0  # channels that are read apart and added at a time; 0 for all
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = WindowSums

    @cached_property
    def reads(self) -> Reads:
        return Reads(self.columns, self.windows.reach - 1, block_dtype(self.stored).name, self.panel)

    @cached_property
    def is_exact(self) -> bool:
        """Whether sums are of integers: the same in any order."""
        return block_dtype(self.stored) == np.int16

    @property
    def omits(self) -> bool:
        """Whether a value that is not finite leaves its window out."""
        return self.nan == "omit" and not self.is_exact

    @property
    def _shape(self) -> tuple[int, int]:
        return self.windows.n_units, self.windows.length * self.reads.width()

    def wants(self, rows: Span) -> bool:
        """Whether windows end in those rows."""
        return self._owned(rows)[2] > 0 or len(self.windows.clipped_of(rows).unit) > 0

    def _owned(self, rows: Span) -> tuple[np.ndarray, np.ndarray, int]:
        from lazypipe.stats.window_kernel import ending

        windows = self.windows
        low, high = np.empty((2, windows.n_units), np.int64)
        edges = windows.edges[:-1], windows.edges[1:]
        n = ending(windows.first, *edges, windows.reach, rows.start, rows.stop, low, high)
        return low, high, n

    def empty(self, within: Moments | None = None) -> WindowSums:
        """Sums of no window; in the memory of the arrays ``within`` that will hold their moments, where they fit."""
        n_units, n = self._shape
        mean, std = within or (None, None)
        return WindowSums(
            np.zeros(n_units, np.int64),
            np.zeros((n_units, self.windows.length if self.windows.clips else 0), np.int64),
            np.zeros(n_units, np.int64),
            _zeros((n_units, n), self._kinds[0], mean),
            _zeros((n_units, n if self.spread else 0), self._kinds[1], std),
            np.zeros(1, np.int64),
        )

    @cached_property
    def _kinds(self) -> tuple[type, type]:
        """Of sums, and of sums of squares to begin with."""
        if not self.is_exact:
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
        total = self._with_wide_total(total, len(self.windows.clipped.unit))
        return self._add(total, block, none, none, self.windows.clipped_of(Span(block.rows.stop, block.rows.stop + 1)))

    def _add(self, total: WindowSums, block: Block, low: np.ndarray, high: np.ndarray, clipped: Clipped) -> WindowSums:
        values, first = block.values, self.windows.first
        if not self.is_exact and self.nan != "propagate" and not _all_finite(values.reshape(-1)):
            first, low, high, clipped = self._without_nan(total, block, low, high, clipped)
        used, squares = high - low, total.squares
        if self.is_exact and self.spread:
            squares = self._with_room(total, block, int(used.max(initial=0)) + len(clipped.unit))
        if used.any():
            self._add_whole(total.total, squares, block, first, low, high)
            np.add(total.used, used, out=total.used)
        row = block.rows.start - block.halo
        for unit, begin, lag, length, _ in zip(*clipped, strict=True):
            for i, panel in enumerate(self._as_panels(values)):
                part = panel[begin - row :][:length]
                start = i * self.windows.length * part.shape[1] + lag * part.shape[1]
                where = slice(start, start + part.size)
                self._add_part(total.total[unit, where], squares[unit, where] if self.spread else None, part, i)
            total.clipped[unit, lag : lag + length] += 1
        return total._replace(squares=squares)

    def _as_panels(self, values: np.ndarray) -> np.ndarray:
        """(n_panels, rows, channels)"""
        return values if self.panel else values[None]

    def _add_whole(
        self, sums: np.ndarray, squares: np.ndarray, block: Block, first: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> None:
        """The windows ``first[low[u]:high[u]]`` of each unit, in one go or panel by panel."""
        from lazypipe.stats import window_kernel as kernel

        add = kernel.add_integers if self.is_exact else kernel.add_floats
        length, row = self.windows.length, block.rows.start - block.halo
        step = len(block.rows)
        if self.panel:
            step = max(PANEL_NBYTES // (self.panel * block.values.itemsize) - length, length)
        spans = []
        for start in range(block.rows.start, block.rows.stop, step):
            begin, end = np.empty((2, len(low)), np.int64)
            stop = min(start + step, block.rows.stop)
            if kernel.ending(first, low, high, self.windows.reach, start, stop, begin, end):
                spans.append((begin, end))
        # The sums of one panel stay in the third cache from span to span, and a span of it in the second.
        for i, panel in enumerate(self._as_panels(block.values)):
            n, flat = length * panel.shape[1], panel.reshape(-1)
            shift = () if self.is_exact else (self._patterns[i],)
            for begin, end in spans:
                add(flat, panel.shape[1], first, row, begin, end, sums, squares, self.spread, i * n, n, *shift)

    def _with_room(self, total: WindowSums, block: Block, n_windows: int) -> np.ndarray:
        """The squares in a dtype that holds so many windows of the block more."""
        from lazypipe.stats.window_kernel import largest

        return self._widened(total, n_windows * int(largest(block.values.reshape(-1))) ** 2)

    def _with_wide_total(self, total: WindowSums, more: int) -> WindowSums:
        """``total`` with sums that hold so many windows of each unit more: a state may be of a shorter recording."""
        counts = total.used + total.clipped.max(axis=1, initial=0)
        if total.total.dtype != np.int32 or int(counts.max(initial=0)) + more <= MOST_IN_INT32:
            return total
        return total._replace(total=total.total.astype(np.int64))

    def _widened(self, total: WindowSums, more: int) -> np.ndarray:
        total.bound[0] += more
        if total.squares.dtype == np.uint32 and total.bound[0] >= 2**32:
            return total.squares.astype(np.int64)
        return total.squares

    def _add_part(self, sums: np.ndarray, squares: np.ndarray | None, values: np.ndarray, panel: int) -> None:
        """A part of a window, its rows (length, channels of the panel) added one to one."""
        if self.is_exact:
            sums += values.reshape(-1)
            if squares is not None:
                squares += (values.astype(np.int32) ** 2).astype(squares.dtype).reshape(-1)
            return
        less = (values - self._shifts[panel]).reshape(-1)
        sums += less
        if squares is not None:
            squares += less**2

    @cached_property
    def _shifts(self) -> np.ndarray:
        """(n_panels, channels) of the shift; 0 where the last panel is filled up."""
        padded = np.zeros(self.reads.width())
        if self.shift is not None:
            padded[: len(self.shift)] = self.shift
        return padded.reshape(-1, self.panel or len(padded))

    @cached_property
    def _patterns(self) -> list[np.ndarray]:
        """Of each panel the shift of as many whole rows as a tile holds."""
        from lazypipe.stats.window_kernel import TILE

        return [np.tile(shift, max(1, TILE // len(shift))) for shift in self._shifts]

    def _without_nan(
        self, total: WindowSums, block: Block, low: np.ndarray, high: np.ndarray, clipped: Clipped
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Clipped]:
        """The windows that hold no NaN; DataError at the first that does, if that is the policy."""
        first_row = block.rows.start - block.halo
        bad = ~np.isfinite(self._as_panels(block.values)).all(axis=(0, 2))
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
        values = self._as_panels(block.values)[:, row].reshape(-1)
        channel = int(np.argmax(~np.isfinite(values)))
        what = "NaN" if np.isnan(values[channel]) else "infinity"
        raise DataError(
            f"{block.uri}: {what} at sample {block.rows.start - block.halo + row:,}, channel "
            f"{self.columns.start + channel:,}, within a window. Leave such windows out with nan='omit' (--nan omit), "
            f"or let it spoil its lag and channel with nan='propagate'."
        )

    def merge(self, left: WindowSums, right: WindowSums) -> WindowSums:
        more = right.used + right.clipped.max(axis=1, initial=0)
        left = self._with_wide_total(left, int(more.max(initial=0)))
        squares = left.squares
        if self.is_exact and self.spread:
            squares = self._widened(left, int(right.bound[0]))
        for mine, other in zip((*left[:4], squares), right[:5], strict=True):
            np.add(mine, other, out=mine)
        return left._replace(squares=squares)

    def finish(self, total: WindowSums) -> WindowSums:
        """The sums themselves: windows that the end of the recording cuts off may come to them."""
        return total

    def moments(self, total: WindowSums, into: Moments | None = None) -> WindowMoments:
        """Mean and deviation: ``into`` these arrays, or in the memory of the sums where their sizes are the same."""
        n_units, length, n_channels = self.windows.n_units, self.windows.length, len(self.columns)
        counts = total.used[:, None] + total.clipped if total.clipped.size else total.used[:, None]
        shape = n_units, length, n_channels
        if into is None:
            into = Moments(_in_place(total.total, self.result, shape), None)
            if self.spread:
                into = into._replace(std=_in_place(total.squares, self.result, shape))
        mean, std = into
        average = np.empty((length, n_channels), self.result)
        deviation = np.empty_like(average) if self.spread else average
        with np.errstate(divide="ignore", invalid="ignore"):
            for u in range(n_units):
                for i, shift in enumerate(self._shifts):
                    width = len(shift)
                    channels = slice(i * width, min((i + 1) * width, n_channels))
                    of_channels = slice(channels.stop - channels.start)
                    for lag in range(0, length, max(1, TEMPORARY // width)):
                        lags = slice(lag, min(lag + max(1, TEMPORARY // width), length))
                        count = counts[u, lags][:, None] if counts.shape[1] > 1 else counts[u]
                        where = slice((i * length + lags.start) * width, (i * length + lags.stop) * width)
                        sums = total.total[u, where].reshape(-1, width)[:, of_channels]
                        average[lags, channels] = sums / count + (0 if self.is_exact else shift[of_channels])
                        if self.spread:
                            squares = total.squares[u, where].reshape(-1, width)[:, of_channels]
                            deviation[lags, channels] = _deviation(sums, squares, count, self.ddof)
                mean[u] = average
                if std is not None:
                    std[u] = deviation
        return WindowMoments(counts, total.not_finite, mean, std)

    def moments_nbytes(self) -> int:
        """Bytes that ``moments`` takes beside the sums."""
        wanted, n = np.dtype(self.result).itemsize, math.prod(self._shape)
        kinds = [np.dtype(kind).itemsize for kind in (self._kinds if self.spread else self._kinds[:1])]
        unit = 2 * wanted * self._shape[1]
        return n * wanted * sum(kind != wanted for kind in kinds) + unit + 64 * max(TEMPORARY, len(self.columns))

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        """At most: squares of integers begin with 4 bytes, and take 8 once they are large."""
        n_units, n = self._shape
        return n_units * n * (np.dtype(self._kinds[0]).itemsize + (8 if self.spread else 0)) + 8 * 3 * n_units

    def held_nbytes(self, shares: bool) -> int:
        """Bytes of sums and moments beside the result; ``shares`` where sums may lie in its memory (``empty``)."""
        held = self.state_nbytes(0, 0) + self.moments_nbytes()
        if shares and self.reads.width() == len(self.columns):
            wanted = np.dtype(self.result).itemsize
            kinds = self._kinds if self.spread else self._kinds[:1]
            held -= math.prod(self._shape) * sum(wanted for kind in kinds if np.dtype(kind).itemsize == wanted)
        return held

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """While squares move to 8 bytes the 4 are there too; masks where NaN are looked for."""
        n_units, n = self._shape
        masks = 0 if self.is_exact else n_rows * (n_columns + 16)
        return (4 * n_units * n if self.is_exact and self.spread else 0) + masks + 2**20


def panel_width(windows: Windows, n_rows: int, n_channels: int) -> int:
    """Channels to add at a time: few enough to stay in the caches, where windows are long and overlap; 0 for all."""
    reuse = len(windows.first) * windows.length / n_rows
    long = windows.length >= PANEL_LAGS and n_channels >= PANEL_CHANNELS
    return PANEL if long and reuse >= PANEL_REUSE else 0


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


def _in_place(sums: np.ndarray, result: str, shape: tuple[int, int, int]) -> np.ndarray:
    """An array of that shape; of each unit in the memory of its sums, where that has the same values a sum."""
    if sums.itemsize != np.dtype(result).itemsize:
        return np.empty(shape, result)
    return sums.view(result)[:, : shape[1] * shape[2]].reshape(shape)


def _zeros(shape: tuple[int, int], kind: type, memory: np.ndarray | None) -> np.ndarray:
    """Of that shape, in the memory of another array where that is of the same size and contiguous."""
    wanted = np.dtype(kind)
    fits = memory is not None and memory.itemsize == wanted.itemsize and memory.size == math.prod(shape)
    if memory is None or not fits or not memory.flags.c_contiguous:
        return np.zeros(shape, kind)
    zeros = memory.reshape(shape).view(wanted)
    zeros[:] = 0
    return zeros


def _deviation(total: np.ndarray, squares: np.ndarray, count: np.ndarray, ddof: int) -> np.ndarray:
    """From sums and the number of windows at each: exact for integers until the last division, whatever their mean."""
    if total.dtype.kind == "i":
        whole, rest = np.divmod(total.astype(np.int64), np.maximum(count, 1))
        # total² / count = whole² count + 2 whole rest + rest² / count, of which only the last is no integer.
        about_mean = (squares.astype(np.int64) - whole * (whole * count + 2 * rest)) - rest * rest / count
    else:
        about_mean = squares - total * (total / count)
    return np.sqrt(np.maximum(about_mean, 0) / np.where(count > ddof, count - ddof, np.nan))
