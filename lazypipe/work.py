"""What a pass does beside the memory that it takes: counted where it is planned, for a model of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from lazypipe.blocks import Run, compute_dtype
from lazypipe.io.matrix import Matrix
from lazypipe.operations import NOTHING, Operations
from lazypipe.stats.base import Statistic


@dataclass(frozen=True)
class Work:
    """One pass of a kind that is made ``times`` times."""

    operations: Operations | None = None  # of all tasks; None where nothing counts them
    read_nbytes: float = 0.0
    pieces: float = 0.0  # that lie apart on disk, each read by a call of its own
    sent_nbytes: float = 0.0  # to every worker, before the tasks
    returned_nbytes: float | None = None  # to the driver, of all tasks; None where states merge in a tree
    written_nbytes: float = 0.0  # by the tasks
    on_driver: Operations = NOTHING  # after the tasks
    times: float = 1.0  # expected; 0 where the data decide whether it is made at all
    as_dense: bool = False  # of sparse rows: no more than these operations, and most often far fewer


NO_WORK = Work()  # that nothing is known of


def work_of_fold(statistic: Statistic, matrix: Matrix, runs: Sequence[Run], step: int, in_place: bool) -> Work:
    """Of folding ``statistic`` over runs of blocks of ``step``; ``in_place`` where stripes are read as they lie.

    A statistic counts its ``operations`` for a block of a shape, of sparse rows as if they were dense; of one that does
    not they are None.
    """
    n_rows, n_columns = matrix.shape
    by_rows = statistic.axis == "rows"
    whole, line = (n_rows, n_columns) if by_rows else (n_columns, n_rows)
    length = runs[-1].stop - runs[0].start
    n_blocks = sum(-(-(run.stop - run.start) // run.step) for run in runs)
    shape = (step, line) if by_rows else (line, step)
    operations = None
    if hasattr(statistic, "operations"):
        one: Operations = statistic.operations(*shape, compute_dtype(matrix.dtype).itemsize)
        added = n_blocks * statistic.state_nbytes(n_rows, n_columns)
        operations = one.times(length / step).plus(Operations(memory=added))
    width = matrix.panel_columns
    apart = not by_rows and not in_place and (width is None or step % width > 0)
    return Work(
        operations,
        read_nbytes=matrix.nbytes * length / whole,
        pieces=n_blocks * (line if apart else 1),
        sent_nbytes=arrays_nbytes(statistic),
        as_dense=matrix.sparse,
    )


def arrays_nbytes(statistic: Any) -> int:
    """Bytes of the arrays among the fields of a statistic, which are what is sent of it."""
    return sum(getattr(getattr(statistic, field.name), "nbytes", 0) for field in fields(statistic))
