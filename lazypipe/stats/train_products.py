"""Means and covariances of the windows around spikes, and around the same spikes moved in time.

A moved train keeps the intervals between its spikes: within each circle of windows that there are (all that lie
whole in one piece of the recording), every spike moves on by the same number of samples, round and round. So a moved
spike has a whole window too, and over all shifts each window of the recording is taken equally often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lazypipe.blocks import Block, Reads, Span
from lazypipe.stats.base import Axis, add_each
from lazypipe.stats.spike_triggered import block_dtype
from lazypipe.stats.window_products import Moments
from lazypipe.stats.windows import Windows

SLAB_NBYTES = 2**20  # of windows multiplied at once: they stay in the second cache


class TrainSums(NamedTuple):
    """Of each train, over the windows of its spikes less the shift."""

    total: np.ndarray  # (n_trains, D)
    products: np.ndarray  # (n_trains, D, D)


@dataclass(frozen=True, eq=False)
class TrainProducts:
    """Second moments of the windows of each train: a unit's, every circle of which is moved by so many samples."""

    windows: Windows
    circles: np.ndarray  # (n_circles, 2) first rows of the windows that there are
    units: np.ndarray  # (n_trains,)
    moves: np.ndarray  # (n_trains, n_circles) samples; 0 for the spikes as they were
    shift: np.ndarray  # (k,) float64, taken off the samples
    stored: str  # dtype of the matrix
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = TrainSums

    @property
    def reads(self) -> Reads:
        return Reads(Span(0, len(self.shift)), self.windows.length - 1, block_dtype(self.stored).name)

    @property
    def nbytes(self) -> int:
        return self.windows.nbytes + self.circles.nbytes + self.moves.nbytes

    @property
    def n_dimensions(self) -> int:
        return self.windows.length * len(self.shift)

    def wants(self, rows: Span) -> bool:
        """Whether windows of any train belong to those rows, with their last one."""
        starts = self._starts(rows)
        return any(len(part) for train in range(len(self.units)) for part in self.begins(train, starts))

    def _starts(self, rows: Span) -> Span:
        before = self.windows.length - 1
        return Span(rows.start - before, rows.stop - before)

    def begins(self, train: int, starts: Span) -> Iterator[np.ndarray]:
        """First rows, within ``starts``, of the windows of a train, in order."""
        windows, unit = self.windows, self.units[train]
        first = windows.first[windows.edges[unit] : windows.edges[unit + 1]]
        a, b = np.searchsorted(self.circles[:, 1], starts.start, side="right"), len(self.circles)
        for circle in range(a, b):
            begin, end = self.circles[circle].tolist()
            if begin >= starts.stop:
                return
            n = end - begin
            move = int(self.moves[train, circle]) % n
            low, high = max(starts.start, begin) - begin, min(starts.stop, end) - begin
            ours = first[slice(*np.searchsorted(first, (begin, end)))]
            # What is now in [low, high) was in [low - move, high - move), round the circle.
            at = (low - move) % n
            for start, stop in ((at, min(at + high - low, n)), (0, at + high - low - n)):
                if start < stop:
                    part = ours[slice(*np.searchsorted(ours, (begin + start, begin + stop)))]
                    yield begin + (part - begin + move) % n

    def empty(self) -> TrainSums:
        n, size = len(self.units), self.n_dimensions
        return TrainSums(np.zeros((n, size)), np.zeros((n, size, size)))

    def measure(self, block: Block) -> TrainSums:
        return self.add(self.empty(), block)

    def add(self, total: TrainSums, block: Block) -> TrainSums:
        k, size = len(self.shift), self.n_dimensions
        first_row, starts = block.rows.start - block.halo, self._starts(block.rows)
        x = block.values.astype(np.float64)
        x -= self.shift
        if len(x) < self.windows.length:
            return total
        there = sliding_window_view(x.reshape(-1), size)[::k]
        slab = slab_rows(size)
        for train in range(len(self.units)):
            rows = np.concatenate([np.empty(0, np.int64), *self.begins(train, starts)]) - first_row
            for at in range(0, len(rows), slab):
                windows = there[rows[at : at + slab]]
                total.total[train] += windows.sum(axis=0)
                total.products[train] += windows.T @ windows
        return total

    def merge(self, left: TrainSums, right: TrainSums) -> TrainSums:
        return add_each(left, right)

    def finish(self, total: TrainSums) -> TrainSums:
        return total

    def moments(self, total: TrainSums, train: int) -> Moments:
        """Those of one train."""
        unit = self.units[train]
        n = int(self.windows.edges[unit + 1] - self.windows.edges[unit])
        return Moments(n, total.total[train], total.products[train])

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 8 * len(self.units) * self.n_dimensions * (1 + self.n_dimensions)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """The block in float64, a slab of windows, their products, and the rows of one train."""
        size = self.n_dimensions
        spikes = int(np.diff(self.windows.edges).max(initial=0))
        return 8 * n_rows * n_columns + 8 * size * (slab_rows(size) + size) + 24 * min(spikes, n_rows)


def slab_rows(size: int) -> int:
    """Windows of ``size`` samples to multiply at once."""
    return max(64, SLAB_NBYTES // (8 * size))


def draw_moves(circles: np.ndarray, length: int, n: int, seed: int) -> np.ndarray:
    """(n, n_circles) moves, each circle's drawn on its own: nowhere nearer to 0 than ``length``, where that can be."""
    sizes = circles[:, 1] - circles[:, 0]
    least = np.where(sizes >= 2 * length, length, 0)
    drawn = np.random.default_rng(seed).random((n, len(circles)))
    return least + np.floor(drawn * (sizes - 2 * least + (least > 0))).astype(np.int64)
