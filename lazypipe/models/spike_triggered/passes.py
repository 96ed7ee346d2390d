"""Plans of passes over chosen channels: folds of runs, and maps of tasks that each hold their own state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Run, Span, evenly, runs
from lazypipe.engines import Engine
from lazypipe.engines.tasks import fold_windows
from lazypipe.io.matrix import Matrix
from lazypipe.plan import RUN_NBYTES, FoldPlan, Host, between, fitted, live_states_of, runs_that_fit
from lazypipe.sizes import KIB, MIB
from lazypipe.stats.base import Windowed

CHUNK_NBYTES = 8 * MIB  # of a block in float64, which products go over again and again
LEAST_RUNS, MOST_RUNS = 8, 256
TASKS = 16
REMEDY = "or ask for fewer units, channels or lags."


def chunk_length(matrix: Matrix, before: int, host: Host) -> int:
    """Rows a block, as the budget and the columns have it: the same for every engine."""
    row = 8 * matrix.shape[1]
    chunk = between(host.memory // 64, 256 * KIB, CHUNK_NBYTES)
    return between(max(chunk // row, min(4 * before, host.memory // 32 // row)), 1, matrix.shape[0])


def fold_in_time(title: str, statistic: Any, matrix: Matrix, host: Host, reserved: int) -> FoldPlan:
    """A fold over runs of blocks; MemoryPlanError if one task does not fit."""
    step = chunk_length(matrix, statistic.reads.before, host)
    state = statistic.state_nbytes(*matrix.shape)
    n_runs = between(matrix.nbytes // RUN_NBYTES, LEAST_RUNS, MOST_RUNS)
    n_runs = runs_that_fit(n_runs, state, host.memory // 4)
    return fold_of_runs(title, statistic, matrix, host, runs(Span(0, matrix.shape[0]), step, n_runs), reserved)


def fold_of_runs(
    title: str, statistic: Any, matrix: Matrix, host: Host, cut: tuple[Run, ...], reserved: int
) -> FoldPlan:
    """The same for runs that are cut already."""
    state = statistic.state_nbytes(*matrix.shape)
    task = block_nbytes(statistic, matrix, max(min(run.step, run.stop - run.start) for run in cut))
    task += 0 if host.shared else statistic.nbytes
    return fitting(title, matrix, host, cut, task, reserved, state, live_states_of(len(cut)))


def block_nbytes(statistic: Any, matrix: Matrix, step: int) -> int:
    """Of a block of so many rows with its halo, what its statistic takes beside it, and its reader."""
    reads, n_columns = statistic.reads, matrix.shape[1]
    rows, itemsize = step + reads.before, np.dtype(statistic.reads.dtype).itemsize
    nbytes: int = rows * n_columns * itemsize + statistic.scratch_nbytes(rows, n_columns, itemsize)
    return nbytes + matrix.reader_nbytes(rows, n_columns)


def fitting(
    title: str,
    matrix: Matrix,
    host: Host,
    cut: tuple[Run, ...],
    task: int,
    reserved: int,
    state: int = 0,
    live: int = 0,
    bytes_read: int | None = None,
) -> FoldPlan:
    """The plan with as many tasks at once as fit; MemoryPlanError if one does not."""
    read = matrix.nbytes if bytes_read is None else bytes_read
    plan = FoldPlan(title, "rows", cut[0].step, cut, 0, state, live, task, reserved, 1, read, host.shared)
    return fitted(plan, matrix.uri, host)


def time_blocks(n_rows: int, n_blocks: int, step: int) -> tuple[Run, ...]:
    """Equal parts of the recording, each a run of its own."""
    step = min(step, -(-n_rows // n_blocks))
    return tuple(Run(i, part.start, part.stop, step) for i, part in enumerate(evenly(Span(0, n_rows), n_blocks)))


def as_tasks(blocks: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Neighbouring blocks in ``TASKS`` tasks or fewer: a thousand tasks cost a cluster more than their work."""
    return [tuple(blocks[span.slice]) for span in evenly(Span(0, len(blocks)), min(TASKS, len(blocks)))]


def fold_of_blocks(
    title: str, statistic: Any, matrix: Matrix, host: Host, blocks: tuple[Run, ...], reserved: int
) -> FoldPlan:
    """The map that sums each of ``blocks`` apart; all sums are ``reserved`` by the caller."""
    tasks = as_tasks(blocks)
    cut = tuple(Run(i, task[0].start, task[-1].stop, blocks[0].step) for i, task in enumerate(tasks))
    own = statistic.state_nbytes(*matrix.shape) * (1 + max(len(task) for task in tasks)) + (
        0 if host.shared else statistic.nbytes
    )
    return fitting(title, matrix, host, cut, own + block_nbytes(statistic, matrix, blocks[0].step), reserved)


def sums_of_blocks(engine: Engine, statistic: Windowed, matrix: Matrix, blocks: Sequence[Run], plan: FoldPlan) -> Any:
    """A list of the finished sums of the windows that belong to each block."""
    return [sums for task in engine.map(SumBlocks(statistic, matrix), as_tasks(blocks), plan) for sums in task]


@dataclass(frozen=True, eq=False)
class SumBlocks:
    """A task: the sums of the windows that belong to each of some blocks, finished."""

    statistic: Windowed
    matrix: Matrix

    def __call__(self, blocks: tuple[Run, ...]) -> list[Any]:
        return [self.statistic.finish(fold_windows(self.statistic, self.matrix, block)) for block in blocks]
