"""Mean and covariance of all windows of a signal, from the products of their first samples alone.

Windows that begin at the rows r of a range overlap, so that their second moments ``P[i, j] = sum_r x[r + i] x[r + j]``
hardly change along a diagonal: ``P[i + 1, j + 1] = P[i, j] - x[a + i] x[a + j] + x[b + i] x[b + j]`` for the range
[a, b). The first row needs full products, and the ends of the ranges give all others, exactly: length times fewer
operations than windows multiplied one by one, and a state of k x D in place of D x D, with D = length x k.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from lazypipe.blocks import Block, Reads, Span
from lazypipe.errors import DataError
from lazypipe.stats.base import Axis, add_each, mirror
from lazypipe.stats.spike_triggered import block_dtype

SLAB = 2**14  # values: 128 KiB, which pass through a cache once for all lags


class FirstProducts(NamedTuple):
    """By segment; of values less the shift."""

    sums: np.ndarray  # (n_segments, k) of the first sample of every window
    products: np.ndarray  # (n_segments, k, D) of the first sample with all


class Ends(NamedTuple):
    """The ``length - 1`` rows from the first window of a range on, and those from the first window after it."""

    head: np.ndarray  # (length - 1, k) float64, less the shift
    tail: np.ndarray


class Moments(NamedTuple):
    """Sums over windows (D,) and their products (D, D), less the shift."""

    n: int
    sums: np.ndarray
    products: np.ndarray

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        return Moments(self.n + other.n, self.sums + other.sums, self.products + other.products)

    @property
    def mean(self) -> np.ndarray:
        return self.sums / self.n

    @property
    def covariance(self) -> np.ndarray:
        """Dividing by n - 1; NaN where that is not above 0."""
        if self.n < 2:
            return np.full_like(self.products, np.nan)
        covariance = np.outer(self.sums, self.sums)  # to the last bit as symmetric as the products
        covariance /= -self.n
        covariance += self.products
        covariance /= self.n - 1
        return covariance


@dataclass(frozen=True, eq=False)
class WindowProducts:
    """Products of the first sample of every window with all of its samples, about a shift, in float64.

    A window belongs to its last row, as windows of spikes do.
    """

    ranges: np.ndarray  # (n, 2) first rows of windows, in order
    segments: np.ndarray  # (n,) the segment that each range is counted to, from 0
    n_segments: int
    length: int
    shift: np.ndarray  # (k,) float64
    names: np.ndarray  # (k,) channels, for messages
    stored: str  # dtype of the matrix
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = FirstProducts

    @property
    def reads(self) -> Reads:
        return Reads(Span(0, len(self.shift)), self.length - 1, block_dtype(self.stored).name)

    @property
    def nbytes(self) -> int:
        return self.ranges.nbytes + self.segments.nbytes

    def within(self, rows: Span) -> list[tuple[int, int, int]]:
        """(begin, end, segment) of the windows that belong to those rows."""
        low, high = rows.start - self.length + 1, rows.stop - self.length + 1
        a, b = np.searchsorted(self.ranges[:, 1], low, side="right"), np.searchsorted(self.ranges[:, 0], high)
        parts = zip(self.ranges[a:b].tolist(), self.segments[a:b].tolist(), strict=True)
        return [(max(start, low), min(stop, high), segment) for (start, stop), segment in parts]

    def wants(self, rows: Span) -> bool:
        return len(self.within(rows)) > 0

    def empty(self) -> FirstProducts:
        k, n = len(self.shift), self.n_segments
        return FirstProducts(np.zeros((n, k)), np.zeros((n, k, self.length * k)))

    def measure(self, block: Block) -> FirstProducts:
        return self.add(self.empty(), block)

    def add(self, total: FirstProducts, block: Block) -> FirstProducts:
        k = len(self.shift)
        first_row = block.rows.start - block.halo
        x = block.values.astype(np.float64)
        x -= self.shift
        slab = max(1, SLAB // k)
        for begin, end, segment in self.within(block.rows):
            begin, end = begin - first_row, end - first_row
            if not np.isfinite(x[begin : end + self.length - 1].sum()):
                self._refuse(block, begin, end + self.length - 1)
            products = total.products[segment]
            total.sums[segment] += x[begin:end].sum(axis=0)
            for at in range(begin, end, slab):
                to = min(at + slab, end)
                first = x[at:to].T
                for lag in range(self.length):
                    products[:, lag * k : (lag + 1) * k] += first @ x[at + lag : to + lag]
        return total

    def _refuse(self, block: Block, begin: int, end: int) -> None:
        wrong = ~np.isfinite(block.values[begin:end])
        if not wrong.any():
            raise DataError(
                f"{block.uri}: values so large that their sum overflows near sample {block.rows.start:,}. "
                f"Divide the data by a constant first."
            )
        row = int(np.argmax(wrong.any(axis=1)))
        column = int(np.argmax(wrong[row]))
        what = "NaN" if np.isnan(block.values[begin + row, column]) else "infinity"
        raise DataError(
            f"{block.uri}: {what} at sample {block.rows.start - block.halo + begin + row:,}, channel "
            f"{self.names[column]:,}. Leave out the windows that hold such samples with nan='omit', or exclude them."
        )

    def merge(self, left: FirstProducts, right: FirstProducts) -> FirstProducts:
        return add_each(left, right)

    def finish(self, total: FirstProducts) -> FirstProducts:
        """The products themselves: ``completed`` wants the ends of the ranges too."""
        return total

    def completed(self, total: FirstProducts, segment: int, ends: Iterable[Ends]) -> Moments:
        """The moments of all windows of a segment; ``ends`` are those of its ranges. Memory: 2 D² numbers."""
        k, among = len(self.shift), self.segments == segment
        n = int((self.ranges[among, 1] - self.ranges[among, 0]).sum())
        size, inner = self.length * k, (self.length - 1) * k
        moved, changed = np.zeros(inner), np.zeros((inner, inner))
        for head, tail in ends:
            moved += tail.reshape(-1) - head.reshape(-1)
            changed += np.outer(tail, tail)
            changed -= np.outer(head, head)
        sums, products = np.empty(size), np.zeros((size, size))
        sums[:k], products[:k] = total.sums[segment], total.products[segment]
        for i in range(0, inner, k):
            sums[i + k : i + 2 * k] = sums[i : i + k] + moved[i : i + k]
            products[i + k : i + 2 * k, i + k :] = products[i : i + k, i:inner] + changed[i : i + k, i:]
        del changed
        mirror(products)
        return Moments(n, sums, products)

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        k = len(self.shift)
        return 8 * self.n_segments * k * (1 + self.length * k)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return 8 * n_rows * n_columns + 8 * n_columns**2 + 8 * SLAB
