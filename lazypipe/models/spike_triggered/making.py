"""What a worker does for a tile: its windows summed over the whole recording, finished, and written if asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Block, Run, Span
from lazypipe.engines.tasks import fold_windows, read_rows
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered import store
from lazypipe.models.spike_triggered.planning import Tile, part_of
from lazypipe.stats.spike_triggered import Moments, SpikeTriggered, WindowMoments, WindowSums


@dataclass(frozen=True, eq=False)
class MakeTile:
    """A task: the moments of one tile, from the whole recording; within arrays that tasks of a process share."""

    statistic: SpikeTriggered
    recording: Recording
    step: int
    within: Moments | None = None  # of all tiles

    def __call__(self, tile: Tile) -> WindowMoments:
        matrix = self.recording.matrix
        part, within = part_of(self.statistic, tile), None
        if self.within is not None:
            place = tile.units.slice, slice(None), tile.channels.slice
            mean, std = self.within
            within = Moments(mean[place], None if std is None else std[place])
        total = fold_windows(part, matrix, Run(0, 0, matrix.shape[0], self.step), part.empty(within))
        total = with_open_windows(part, matrix, total)
        return in_units(part.moments(total, within), self.recording, tile.channels)


@dataclass(frozen=True, eq=False)
class WriteTile:
    """A task: the same, into a store, unless it is there."""

    make: MakeTile
    target: store.Store

    def __call__(self, tile: Tile) -> store.TileCounts:
        done = self.target.counts_of(tile)
        if done is not None:
            return done
        found = self.make(tile)
        counts = store.TileCounts(found.used, found.not_finite)
        self.target.write(tile, found.mean, found.std, counts)
        return counts


def in_units(found: WindowMoments, recording: Recording, channels: Span | None = None) -> WindowMoments:
    """Counts as the recording's units, in their own memory."""
    place = slice(None) if channels is None else channels.slice
    for array in (found.mean, found.std):
        if array is not None and recording.gain is not None:
            np.multiply(array, np.broadcast_to(recording.gain, recording.n_channels)[place], out=array)
    if found.std is not None and recording.gain is not None:
        np.abs(found.std, out=found.std)
    if recording.offset is not None:
        np.add(found.mean, np.broadcast_to(recording.offset, recording.n_channels)[place], out=found.mean)
    return found


def with_open_windows(statistic: SpikeTriggered, matrix: Matrix, total: WindowSums) -> WindowSums:
    """``total`` and the windows that the end of the recording cuts off, where these are wanted."""
    n_rows = matrix.shape[0]
    if not len(statistic.windows.clipped_of(Span(n_rows, n_rows + 1)).unit):
        return total
    reads = statistic.reads
    rows = Span(max(0, n_rows - reads.before), n_rows)
    with matrix.open() as reader:
        values = read_rows(reader, rows, reads, np.empty(len(rows) * reads.width(), reads.dtype))
    return statistic.add_open(total, Block(values, Span(n_rows, n_rows), reads.columns, matrix.uri, len(rows)))
