"""How a recording is cut for windows: in time where a few states fit the budget, else by units and channels.

In time, each run of blocks has a state of all units, and the recording is read once. Cut by units (and
channels, where one unit alone is too large), each task reads the whole recording for its own sums, which only
it holds: all states together are one, however many tasks there are.

On a cluster of many workers these tasks would read the recording as often as there are workers. There the few
tiles whose states fit are folded in time, one after another, by all workers: but only sums of integers, which are
exact in any order. Sums of floats depend on the cut, and that must not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lazypipe import plan as plans
from lazypipe.blocks import Run, Span, evenly
from lazypipe.engines.tasks import SLAB_NBYTES
from lazypipe.errors import MemoryPlanError
from lazypipe.io.matrix import Matrix
from lazypipe.operations import NOTHING, Operations
from lazypipe.plan import MAX_RUNS, FoldPlan, Host, between, fitted, live_states_of, runs_that_fit
from lazypipe.sizes import KIB, MIB
from lazypipe.stats.spike_triggered import SpikeTriggered
from lazypipe.work import Work

CHUNK_NBYTES = 6 * MIB  # of a block, which is read and added while it is in the caches
PANELS_NBYTES = 40 * MIB  # likewise, in panels: the longer, the less often all the sums pass through the caches
LEAST_RUNS = 8
MANY_RUNS = 64  # that fit the budget: all of the recording is then one epoch
TILES_A_SLOT = 4  # beyond so many, that not all tasks work at once is no reason for more
STATES_A_RUN = 4  # a run reads at least so many times the bytes of its state


class Tile(NamedTuple):
    """Sums of some units and channels (counted from the first one that the recording has)."""

    units: Span
    channels: Span


@dataclass(frozen=True)
class WindowPlan:
    """The fold, or, where ``tiles`` are given, what the tasks that make one each take.

    ``in_time``: each tile is a fold of its own instead, one after another, and ``fold`` is that of the largest.
    """

    fold: FoldPlan
    tiles: tuple[Tile, ...] = ()
    in_time: bool = False


def part_of(statistic: SpikeTriggered, tile: Tile) -> SpikeTriggered:
    """The statistic of a tile alone."""
    columns = Span(statistic.columns.start + tile.channels.start, statistic.columns.start + tile.channels.stop)
    shift = None if statistic.shift is None else statistic.shift[tile.channels.slice]
    return replace(statistic, windows=statistic.windows.of_units(tile.units), columns=columns, shift=shift)


def plan_windows(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    slots: int,
    reserved: int,
    chunk_length: int | None = None,
) -> WindowPlan:
    """In time if several runs fit, else in tiles; MemoryPlanError if nothing fits.

    ``reserved`` bytes are held on the driver besides: the result, and the spikes.
    """
    epoch = epoch_rows(statistic, matrix, host)
    before = statistic.state_nbytes(*matrix.shape) if epoch < matrix.shape[0] else 0  # of the epochs that are done
    try:
        fold = plan_in_time(title, statistic, matrix, host, reserved + before, chunk_length, Span(0, epoch))
        # Not by the blocks asked for: they change no bit.
        if len(fold.runs) >= LEAST_RUNS or epoch <= _chunk_length(statistic, matrix, host):
            return WindowPlan(replace(fold, bytes_read=matrix.nbytes).doing(times=matrix.shape[0] / epoch))
    except MemoryPlanError:
        pass
    apart = plan_in_tiles(title, statistic, matrix, host, slots, reserved, chunk_length)
    if host.shared or not statistic.is_exact:
        return apart
    together = plan_tiles_in_time(title, statistic, matrix, host, slots, reserved, chunk_length)
    rounds = -(-len(apart.tiles) // slots)  # times that a worker reads the recording
    if together is None or len(together.tiles) >= min(len(apart.tiles), rounds * _busy(together.fold, slots)):
        return apart
    return together


def plan_tiles_in_time(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    slots: int,
    reserved: int,
    chunk_length: int | None = None,
) -> WindowPlan | None:
    """Tiles that are folded one after another, each in one epoch, so many that a worker reads least; None if none fit.

    Each fold sends the spikes to every worker, so that many epochs would cost more than they save.
    """
    best: WindowPlan | None = None
    for grid in _grids(statistic, 1):
        tiles = _tiles(statistic, *grid)
        if best is not None and len(tiles) * _busy(best.fold, slots) >= len(best.tiles) * slots:
            break  # even if all workers were busy
        part = part_of(statistic, _largest(tiles))
        if epoch_rows(part, matrix, host) < matrix.shape[0]:
            continue
        try:
            fold = plan_in_time(title, part, matrix, host, reserved, chunk_length)
        except MemoryPlanError:
            continue
        if best is None or len(tiles) * _busy(best.fold, slots) < len(best.tiles) * _busy(fold, slots):
            fold = replace(fold, bytes_read=matrix.nbytes * len(tiles))
            best = WindowPlan(fold.doing(times=len(tiles)), tiles, in_time=True)
    return best


def _busy(fold: FoldPlan, slots: int) -> int:
    """Workers that a fold keeps busy."""
    return min(slots, len(fold.runs))


def epoch_rows(statistic: SpikeTriggered, matrix: Matrix, host: Host) -> int:
    """Rows of the recording that are cut into runs at a time: all of them, or fewer where few states fit.

    Then as many as make so many runs. Epochs are folded one after another into one state, which is what can be saved.
    """
    state = statistic.state_nbytes(*matrix.shape)
    n_runs = runs_that_fit(MAX_RUNS, state, host.memory // 2)
    if n_runs >= MANY_RUNS:
        return matrix.shape[0]
    nbytes = n_runs * max(plans.RUN_NBYTES, STATES_A_RUN * state)
    return between(nbytes // _row_nbytes(statistic), 1, matrix.shape[0])


def plan_saved(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    reserved: int,
    chunk_length: int | None = None,
) -> WindowPlan:
    """For a fold that is saved: tiles, one after another, each cut in time.

    The state as it was saved and a copy of it are held on the driver besides.
    """

    def plan(part: SpikeTriggered, n_tiles: int) -> FoldPlan:
        held = reserved + 2 * part.state_nbytes(*matrix.shape)
        return plan_in_time(title, part, matrix, host, held, chunk_length, Span(0, epoch_rows(part, matrix, host)))

    return _first_that_fits(statistic, matrix, 1, plan)


def plan_in_time(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    reserved: int,
    chunk_length: int | None = None,
    span: Span | None = None,
) -> FoldPlan:
    """Runs of blocks. Where a run ends depends on data, state and budget alone, and not on ``chunk_length``."""
    span = span or Span(0, matrix.shape[0])
    step = chunk_length or _chunk_length(statistic, matrix, host)
    state = statistic.state_nbytes(*matrix.shape)
    total = len(span) * _row_nbytes(statistic)
    n_runs = between(total // plans.RUN_NBYTES, LEAST_RUNS, MAX_RUNS)
    n_runs = runs_that_fit(between(total // (STATES_A_RUN * state), 1, n_runs), state, host.memory // 2)
    parts = [part for part in evenly(span, n_runs) if len(part)]
    runs = tuple(Run(i, part.start, part.stop, step) for i, part in enumerate(parts))
    return _fitting(title, statistic, matrix, host, runs, state, live_states_of(n_runs), reserved)


def plan_in_tiles(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    slots: int,
    reserved: int,
    chunk_length: int | None = None,
    shares: bool = True,
) -> WindowPlan:
    """As few tiles as fit, and as many as there are tasks at once: each reads the recording.

    ``shares`` where tasks of one process put their sums in the memory of the result, which is ``reserved``: there a
    tile of all channels is contiguous, one of some is not.
    """
    step = chunk_length or _chunk_length(statistic, matrix, host)

    def plan(part: SpikeTriggered, n_tiles: int) -> FoldPlan:
        runs = tuple(Run(i, 0, matrix.shape[0], step) for i in range(n_tiles))
        in_result = shares and host.shared and part.columns == statistic.columns
        return _fitting(title, part, matrix, host, runs, 0, 1, reserved, part.held_nbytes(in_result))

    def keeps_busy(fold: FoldPlan) -> bool:
        n_tiles = len(fold.runs)
        return fold.concurrency >= min(host.threads, n_tiles) or n_tiles >= TILES_A_SLOT * slots

    return _first_that_fits(statistic, matrix, slots, plan, keeps_busy)


def _first_that_fits(
    statistic: SpikeTriggered,
    matrix: Matrix,
    slots: int,
    plan: Callable[[SpikeTriggered, int], FoldPlan],
    is_good: Callable[[FoldPlan], bool] = lambda fold: True,
) -> WindowPlan:
    """The fewest tiles whose fold is good, else the most that fit; MemoryPlanError if no number of them does.

    ``plan`` makes a fold for the largest of so many tiles.
    """
    plan(part_of(statistic, Tile(Span(0, 1), Span(0, 1 if not statistic.omits else len(statistic.columns)))), 1)
    found: WindowPlan | None = None
    error: MemoryPlanError | None = None
    for grid in _grids(statistic, slots):
        tiles = _tiles(statistic, *grid)
        try:
            fold = plan(part_of(statistic, _largest(tiles)), len(tiles))
        except MemoryPlanError as refused:
            error = refused
            continue
        found = WindowPlan(replace(fold, bytes_read=matrix.nbytes * len(tiles)), tiles)
        if is_good(fold):
            return found
    if found is not None:
        return found
    assert error is not None
    raise error


def _grids(statistic: SpikeTriggered, slots: int) -> Iterator[tuple[int, int]]:
    """Numbers of unit groups and of channel slices to try, from few tiles to many.

    Where a NaN leaves a window out, all channels have to be looked at: there is one slice.
    """
    n_units, n_channels = statistic.windows.n_units, 1 if statistic.omits else len(statistic.columns)
    groups = min(slots, n_units)
    while groups < n_units:
        yield groups, 1
        groups = min(n_units, groups + slots)  # whole rounds of all tasks
    slices = 1
    while slices < n_channels:
        yield n_units, slices
        slices *= 2
    yield n_units, n_channels


def _tiles(statistic: SpikeTriggered, n_groups: int, n_slices: int) -> tuple[Tile, ...]:
    groups = evenly(Span(0, statistic.windows.n_units), n_groups)
    slices = _wide(len(statistic.columns), n_slices)
    return tuple(Tile(units, channels) for units in groups for channels in slices)


def _largest(tiles: tuple[Tile, ...]) -> Tile:
    return max(tiles, key=lambda tile: len(tile.units) * len(tile.channels))


def _wide(n: int, parts: int) -> tuple[Span, ...]:
    """Spans of one width, but for the last: so that each is a chunk of an array on disk."""
    width = -(-n // parts)
    return tuple(Span(start, min(start + width, n)) for start in range(0, n, width))


def _row_nbytes(statistic: SpikeTriggered) -> int:
    return statistic.reads.width() * np.dtype(statistic.reads.dtype).itemsize


def _chunk_length(statistic: SpikeTriggered, matrix: Matrix, host: Host) -> int:
    """Rows a block: as many bytes as a share of the budget, more where windows are long."""
    row = _row_nbytes(statistic)
    chunk = between(host.memory // 32, 256 * KIB, CHUNK_NBYTES)
    if statistic.panel:
        chunk = between(host.memory // (32 if statistic.spread else 12), 256 * KIB, PANELS_NBYTES)
    return between(max(chunk // row, min(4 * statistic.reads.before, host.memory // 8 // row)), 1, matrix.shape[0])


def _fitting(
    title: str,
    statistic: SpikeTriggered,
    matrix: Matrix,
    host: Host,
    runs: tuple[Run, ...],
    state: int,
    live: int,
    reserved: int,
    task_state: int = 0,
) -> FoldPlan:
    """The plan with as many tasks at once as fit; MemoryPlanError if one does not."""
    step = min(runs[0].step, max(run.stop - run.start for run in runs))
    rows, columns = step + statistic.reads.before, statistic.reads.width()
    itemsize = np.dtype(statistic.reads.dtype).itemsize
    task = task_state + rows * columns * itemsize + statistic.scratch_nbytes(rows, columns, itemsize)
    nbytes = matrix.nbytes * (runs[-1].stop - runs[0].start) // matrix.shape[0]
    task += (
        matrix.reader_nbytes(rows, len(statistic.columns))
        + (SLAB_NBYTES if statistic.panel else 0)
        + (0 if host.shared else statistic.windows.nbytes)
    )

    work = _work(statistic, matrix, runs, state)
    plan = FoldPlan(
        title, "rows", runs[0].step, runs, 0, state, live, task, reserved, 1, nbytes, host.shared, work=work
    )  # fmt: skip
    return fitted(plan, matrix.uri, host)


def _work(statistic: SpikeTriggered, matrix: Matrix, runs: tuple[Run, ...], state: int) -> Work:
    """Of a fold with that state, or of tasks (0) that each hold the sums of their own units and channels."""
    n_rows, windows = matrix.shape[0], statistic.windows
    covered = sum(run.stop - run.start for run in runs)  # again and again by tasks
    n_blocks = sum(-(-(run.stop - run.start) // run.step) for run in runs)
    values = float(windows.n_units) * windows.length * statistic.reads.width()  # of sums
    added = float(len(windows.first)) * windows.length * statistic.reads.width() * covered / n_rows
    arrays = 2 if statistic.spread else 1
    sums = 8.0 * arrays * values
    # Blocks are looked through for their largest value, or for NaN, and copied where they are read in panels.
    seen = (2 if statistic.panel else 1) * float(covered) * statistic.reads.width()
    seen *= np.dtype(statistic.reads.dtype).itemsize
    return Work(
        Operations(additions=arrays * added, memory=sums * len(runs) + seen),  # cleared, and in tasks finished
        read_nbytes=matrix.nbytes / n_rows * (covered + n_blocks * statistic.reads.before),
        pieces=n_blocks,
        sent_nbytes=windows.nbytes,
        returned_nbytes=None if state else np.dtype(statistic.result).itemsize * arrays * values * len(runs),
        on_driver=Operations(memory=2 * sums) if state else NOTHING,
    )
