"""Which windows there are around spikes: known from times alone, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lazypipe.blocks import Span

Edges = Literal["drop", "nan"]
Weights = Literal["count", "binary"]


class Clipped(NamedTuple):
    """Windows of which only a part was recorded, in the order of the row that each belongs to."""

    unit: np.ndarray  # (n,)
    row: np.ndarray  # (n,) of the matrix: the first that exists
    lag: np.ndarray  # (n,) index of the lag that this row is
    length: np.ndarray  # (n,) rows that exist
    owner: np.ndarray  # (n,) the row whose block adds it


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of ``length`` rows, unit after unit, each in order of time.

    A whole window belongs to its last row or to its spike's, whichever is later, so that rows that follow never
    change what was added. One that is cut off by a gap belongs to the first row after it. One that the end of the
    recording cuts off belongs to no row yet: more may come, and it would grow.
    """

    first: np.ndarray  # (n,) int64, row of the matrix at the first lag
    edges: np.ndarray  # (n_units + 1,) those of unit i are first[edges[i]:edges[i + 1]]
    length: int
    clipped: Clipped
    reach: int  # rows from the first one to the last or to the spike, whichever is later
    clips: bool = False  # whether windows that are not whole are used

    @property
    def n_units(self) -> int:
        return len(self.edges) - 1

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.first, self.edges, *self.clipped))

    def of_units(self, units: Span) -> Windows:
        """Those of some units alone."""
        edges = self.edges[units.start : units.stop + 1]
        among = (self.clipped.unit >= units.start) & (self.clipped.unit < units.stop)
        clipped = Clipped(*(array[among] for array in self.clipped))
        return Windows(
            self.first[edges[0] : edges[-1]],
            edges - edges[0],
            self.length,
            clipped._replace(unit=clipped.unit - units.start),
            self.reach,
            self.clips,
        )

    def belonging_to(self, rows: Span) -> np.ndarray:
        """All that tells which windows belong to those rows, as one array of integers."""
        whole = (self.first + self.reach > rows.start) & (self.first + self.reach <= rows.stop)
        unit = np.repeat(np.arange(self.n_units), np.diff(self.edges))
        return np.concatenate([self.first[whole], unit[whole], *self.clipped_of(rows)])

    def clipped_of(self, rows: Span) -> Clipped:
        """The clipped ones that belong to those rows."""
        a, b = np.searchsorted(self.clipped.owner, (rows.start, rows.stop))
        return Clipped(*(array[a:b] for array in self.clipped))


class Dropped(NamedTuple):
    """(n_units,) spikes of each unit that were not used, by reason."""

    edge: np.ndarray  # the window reaches beyond the begin or the end of the recording
    gap: np.ndarray  # it reaches into a gap or an excluded interval, or the spike itself lies there
    beyond_end: np.ndarray  # the spike is later than the recording


def find_windows(
    samples: np.ndarray,
    edges: np.ndarray,
    window: tuple[int, int],
    stretches: Sequence[Span],
    exclude: Sequence[Span] = (),
    at_edges: Edges = "drop",
    weights: Weights = "count",
) -> tuple[Windows, Dropped]:
    """The windows ``[t + window[0], t + window[1])`` of spikes t, and the spikes that have none.

    ``samples`` (n,) of units split at ``edges``, each in order, on the clock on which ``stretches`` lie: what
    was recorded, whose samples are the rows of the matrix one after another. A window lies in one stretch
    with its spike, outside what is to be excluded. Duplicates count as often as they come, or once
    ("binary"). Memory: a few arrays of the spikes' size.
    """
    before, after = window
    unit = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    if weights == "binary":
        first_of = np.ones(len(samples), bool)
        first_of[1:] = (samples[1:] != samples[:-1]) | (unit[1:] != unit[:-1])
        samples, unit = samples[first_of], unit[first_of]
    pieces, rows = recorded_pieces(stretches, exclude)
    starts, stops = pieces[:, 0], pieces[:, 1]
    begin, end = stretches[0].start, stretches[-1].stop

    if len(pieces) == 1:
        lower, upper, to_row = (
            np.broadcast_to(bound, samples.shape) for bound in (starts[0], stops[0], rows[0] - starts[0])
        )
    else:
        piece = np.maximum(np.searchsorted(starts, samples, side="right") - 1, 0)
        lower, upper, to_row = starts[piece], stops[piece], (rows - starts)[piece]
    inside = (samples >= lower) & (samples < upper)
    whole = inside & (samples >= lower - before) & (samples <= upper - after)
    first = samples[whole] + (to_row[whole] + before)
    n_units = len(edges) - 1
    new_edges = np.searchsorted(unit[whole], np.arange(n_units + 1))

    rest = ~whole  # few: what became of each
    t, unit, inside = samples[rest], unit[rest], inside[rest]
    lower, upper, to_row = lower[rest], upper[rest], to_row[rest]
    beyond, early = t >= end, t < begin
    too_early, too_late = t + before < lower, t + after > upper
    low, high = np.maximum(t + before, lower), np.minimum(t + after, upper)
    cut = inside & (low < high) if at_edges == "nan" else np.zeros(len(t), bool)
    edge = early | (inside & ~cut & ((too_early & (lower == begin)) | (too_late & (upper == end))))
    gap = ~cut & ~beyond & ~edge
    dropped = Dropped(*(np.bincount(unit[mask], minlength=n_units) for mask in (edge, gap, beyond)))
    last = np.where(too_late, upper, np.maximum(high - 1, t)) + to_row  # beyond the last row of the matrix at its end
    order = np.flatnonzero(cut)[np.argsort(last[cut], kind="stable")]
    clipped = Clipped(*(a[order] for a in (unit, low + to_row, low - t - before, high - low, last)))
    return Windows(first, new_edges, after - before, clipped, max(after, 1) - before, at_edges == "nan"), dropped


def recorded_pieces(stretches: Sequence[Span], exclude: Sequence[Span]) -> tuple[np.ndarray, np.ndarray]:
    """``stretches`` less what is excluded: (n, 2) begin and end on the clock, and (n,) row of the matrix at each."""
    kept = np.array([(span.start, span.stop) for span in stretches], np.int64).reshape(-1, 2)
    rows = np.concatenate([[0], np.cumsum(kept[:, 1] - kept[:, 0])[:-1]])
    pieces: list[tuple[int, int]] = []
    first_rows: list[int] = []
    holes = sorted((span.start, span.stop) for span in exclude if len(span))
    for (start, stop), row in zip(kept.tolist(), rows.tolist(), strict=True):
        at = start
        for low, high in (hole for hole in holes if hole[1] > start and hole[0] < stop):
            if low > at:
                pieces.append((at, low))
                first_rows.append(row + at - start)
            at = max(at, high)
        if at < stop:
            pieces.append((at, stop))
            first_rows.append(row + at - start)
    if not pieces:  # all of it excluded: an empty piece, in which no spike lies
        pieces, first_rows = [(stretches[0].start,) * 2], [0]
    return np.array(pieces, np.int64), np.array(first_rows, np.int64)
