"""What an average around spikes would be for every circular shift of the spikes: all shifts from one FFT.

Within a block of n samples, shifting the train by s turns the sum at lag l into ``c[s + l]``, where
``c[j] = sum_r x[(r + j) mod n]`` over the spikes r is the circular cross-correlation of train and signal:
``irfft(rfft(x) conj(rfft(train)))``. Blocks are added up shift by shift, so a state holds one number a shift,
however long the recording. Surrogates of this kind keep the spikes' intervals and the signal as they are, and break
only what ties them (Perkel, Gerstein & Moore, Biophys. J. 7:419, 1967; Harris, bioRxiv 2020.11.29.402719).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import fft

from lazypipe.blocks import Block, Reads, Run, Span, evenly
from lazypipe.errors import DataError
from lazypipe.stats.base import Axis, add_each
from lazypipe.stats.spike_triggered import block_dtype
from lazypipe.stats.windows import Windows

MOSTLY = 0.9  # of the samples lie in blocks at least as long as there are offsets
SAME = 1e-9  # deviations of the null: nearer than this is a tie, which an FFT may break either way
ROUNDING = 1e-12  # of a mean: deviations below it are none


@dataclass(frozen=True)
class CutRun(Run):
    """A run whose blocks lie where the data have them: within stretches, not ``step`` apart."""

    cuts: tuple[Span, ...] = ()

    def spans(self) -> Iterator[Span]:
        return iter(self.cuts)


def shift_blocks(pieces: np.ndarray, most: int, length: int) -> tuple[tuple[Span, ...], int]:
    """Blocks of ``most`` rows or fewer, each in one of ``pieces`` (n, 2), and how many offsets they share.

    A piece is cut into as few blocks as may be, of equal length but for one row. Pieces in which no window of
    ``length`` fits have none. The offsets are the length that most of the data have: shorter blocks wrap earlier.
    """
    blocks: list[Span] = []
    for start, stop in pieces.tolist():
        if stop - start >= length:
            blocks += evenly(Span(start, stop), -(-(stop - start) // most))
    if not blocks:
        return (), 0
    lengths = np.sort([len(block) for block in blocks])[::-1]
    so_far = np.cumsum(lengths)
    return tuple(blocks), int(lengths[np.searchsorted(so_far, MOSTLY * so_far[-1])])


class ShiftTotals(NamedTuple):
    """By offset j of a window's samples from the spikes' windows: shift and lag together."""

    sums: np.ndarray  # (n_units, k, n_offsets) float64
    counts: np.ndarray  # likewise, samples that were finite; (n_units, k, 0) where all have to be


@dataclass(frozen=True, eq=False)
class ShiftSums:
    """Sums of the windows of each unit, in its own ``channels``, for all circular shifts within each block.

    A window belongs to the block of its first row. Blocks are whole: each is a circle of its own.
    """

    windows: Windows
    channels: np.ndarray  # (n_units, k) columns of the matrix
    names: np.ndarray  # (n_columns,) what a message calls them
    n_offsets: int
    largest_fft: int  # of the blocks'
    stored: str  # dtype of the matrix
    omit: bool = False  # samples that are not finite count for no window
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = ShiftTotals

    @property
    def reads(self) -> Reads:
        return Reads(Span(0, len(self.names)), 0, block_dtype(self.stored).name)

    @property
    def nbytes(self) -> int:
        return self.windows.nbytes

    def wants(self, rows: Span) -> bool:
        """Whether windows begin in those rows."""
        return any(len(self._begins(unit, rows)) for unit in range(self.windows.n_units))

    def _begins(self, unit: int, rows: Span) -> np.ndarray:
        """The first rows of the unit's windows that lie in ``rows``, from its start."""
        first = self.windows.first[self.windows.edges[unit] : self.windows.edges[unit + 1]]
        a, b = np.searchsorted(first, (rows.start, rows.stop))
        return first[a:b] - rows.start

    def empty(self) -> ShiftTotals:
        shape = *self.channels.shape, self.n_offsets
        return ShiftTotals(np.zeros(shape), np.zeros(shape if self.omit else (*shape[:2], 0)))

    def measure(self, block: Block) -> ShiftTotals:
        return self.add(self.empty(), block)

    def add(self, total: ShiftTotals, block: Block) -> ShiftTotals:
        n = len(block.rows)
        size = fft_size(n)
        for column in np.unique(self.channels):
            users = np.argwhere(self.channels == column)
            trains = [self._begins(unit, block.rows) for unit, _ in users]
            if not any(len(train) for train in trains):
                continue
            x = block.values[:, column].astype(np.float64)
            missing = ~np.isfinite(x)
            n_missing = int(np.count_nonzero(missing))
            if n_missing and not self.omit:
                self._refuse(block, column, missing)
            mean = 0.0
            if n_missing < n:
                mean = float(x.sum(where=~missing) / (n - n_missing))  # the FFT then rounds what varies alone
            x -= mean
            x[missing] = 0
            signal = fft.rfft(x, size)
            there = fft.rfft((~missing).astype(np.float64), size) if n_missing else None
            del x
            for (unit, k), train in zip(users, trains, strict=True):
                if not len(train):
                    continue
                spikes = np.conj(fft.rfft(np.bincount(train, minlength=n).astype(np.float64), size))
                found: np.ndarray | float = float(len(train))  # samples at each offset
                if there is not None:
                    found = np.rint(circular(there * spikes, n, size))
                add_repeated(total.sums[unit, k], circular(signal * spikes, n, size) + found * mean)
                if self.omit:
                    add_repeated(total.counts[unit, k], np.broadcast_to(found, (n,)))
        return total

    def _refuse(self, block: Block, column: int, missing: np.ndarray) -> None:
        row = int(np.argmax(missing))
        what = "NaN" if np.isnan(block.values[row, column]) else "infinity"
        raise DataError(
            f"{block.uri}: {what} at sample {block.rows.start + row:,}, channel {self.names[column]:,}, which spikes "
            f"may be shifted to. Let such samples count for no window with nan='omit' (--nan omit), or exclude them."
        )

    def merge(self, left: ShiftTotals, right: ShiftTotals) -> ShiftTotals:
        return add_each(left, right)

    def finish(self, total: ShiftTotals) -> ShiftTotals:
        return total

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * self.channels.size * self.n_offsets * (2 if self.omit else 1)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """The signal, its transform, those of a train and of their product, and what the FFT works in."""
        return 8 * (8 if self.omit else 7) * self.largest_fft + 8 * n_rows


class Null(NamedTuple):
    """Of one unit and channel, by lag; each (length,)."""

    mean: np.ndarray  # over the shifts
    std: np.ndarray  # dividing by n_shifts - 1
    p_values: np.ndarray


def null_of(sums: np.ndarray, counts: np.ndarray | float, observed: np.ndarray) -> Null:
    """The null of ``observed`` (length,) from the sums (n_offsets,) at all offsets and the number of samples in each.

    Shifts nearer to none than the window's length are left out, on both sides: ``n_offsets - 2 length + 1`` remain.
    A p-value is ``(1 + n) / (1 + n_shifts)``, n the shifts whose mean lies as far from the null's as observed.
    """
    length = len(observed)
    n = len(sums) - 2 * length + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (sums / counts)[length:]  # that of lag i and shift s is means[i + s - length]
    centre = float(np.nanmean(means))
    deviations = np.nan_to_num(means - centre)
    so_far = np.concatenate([[0.0], np.cumsum(deviations)])
    squares = np.concatenate([[0.0], np.cumsum(deviations**2)])
    lags = np.arange(length)
    mean = (so_far[lags + n] - so_far[lags]) / n
    total = np.maximum(squares[lags + n] - squares[lags] - n * mean**2, 0)
    std = np.sqrt(total / max(n - 1, 1))
    rounding = ROUNDING * abs(centre)
    std[std <= rounding] = 0
    far = np.abs(observed - centre - mean) - SAME * std - rounding
    high, low = mean + far, mean - far
    deviations_in_order = np.sort(deviations)
    beyond = len(deviations) - np.searchsorted(deviations_in_order, high, side="left")
    beyond += np.searchsorted(deviations_in_order, low, side="right")
    for i in lags:  # the slice of lag i lacks i of the first and the rest of the last
        others = np.concatenate([deviations[:i], deviations[i + n :]])
        beyond[i] -= np.count_nonzero(others >= high[i]) + np.count_nonzero(others <= low[i])
    beyond[far <= 0] = n
    p_values = np.where(np.isfinite(observed), (1 + beyond) / (1 + n), np.nan)
    return Null(mean + centre, std, p_values)


def fft_size(n: int) -> int:
    """The length of an FFT for ``n`` samples: n where that is fast, else twice as much or more.

    A prime length takes ten times as long.
    """
    return n if fft.next_fast_len(n, real=True) == n else fft.next_fast_len(2 * n, real=True)


def circular(spectrum: np.ndarray, n: int, size: int) -> np.ndarray:
    """The circular cross-correlation (n,) from the product of two transforms of ``size``."""
    whole = fft.irfft(spectrum, size)
    if size > n:
        whole[1:n] += whole[size - n + 1 :]  # negative offsets
    return whole[:n]


def add_repeated(total: np.ndarray, values: np.ndarray) -> None:
    """Add ``values`` to ``total``, again and again where they are fewer."""
    for start in range(0, len(total), len(values)):
        part = total[start : start + len(values)]
        part += values[: len(part)]
