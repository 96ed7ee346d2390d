"""What a worker runs, whatever the engine: fold a run of blocks, merge a group of states."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from lazypipe.blocks import Block, Reads, Run, Span, compute_dtype
from lazypipe.engines import resident
from lazypipe.errors import DiskFullError
from lazypipe.io.kept import release_kept
from lazypipe.io.matrix import Matrix, Reader
from lazypipe.plan import FAN_IN
from lazypipe.stats.base import Axis, Statistic, Windowed

SLAB_NBYTES = 2**18  # of rows on their way into panels


def settle_worker() -> None:
    """Give a worker process, which is ours alone, one BLAS thread a task, and no hoard of freed arrays."""
    _settle("scipy.linalg" in sys.modules)  # which brings a BLAS of its own, whenever it comes


@lru_cache(maxsize=2)
def _settle(with_scipy: bool) -> None:
    threadpool_limits(1)
    resident.return_large_arrays()


def emptied_base(threads: int) -> int:
    """What the interpreter and its libraries take in a process that lets go of what runs before this one kept.

    What tasks of others are reading stays.
    """
    release_kept()
    return resident.base_nbytes(threads)


@contextmanager
def disk_named(worker: str) -> Iterator[None]:
    """Name the worker whose disk is full: the path alone does not tell which machine's it is."""
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(f"the worker {worker}: {error}") from error


class Scratch(threading.local):
    """Memory for the blocks of one thread, kept between its runs.

    Fresh pages for every run cost 5% of a pass over stripes of 64 MiB.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, size: int, dtype: np.dtype) -> np.ndarray:
        """An array of that size in the thread's memory, in place of the one given before."""
        if self._bytes.nbytes < size * dtype.itemsize:
            self._bytes = np.empty(0, np.uint8)  # let go before taking more
            self._bytes = np.empty(size * dtype.itemsize, np.uint8)
        return self._bytes[: size * dtype.itemsize].view(dtype)

    def release(self) -> None:
        """Give the memory of this thread back."""
        self._bytes = np.empty(0, np.uint8)


SCRATCH = Scratch()


def blocks_of(matrix: Matrix, axis: Axis, run: Run, mapped: bool) -> Iterable[Block]:
    """The blocks of a run, one after another in the same memory, or where they lie in their files."""
    n_rows, n_columns = matrix.shape
    line = n_columns if axis == "rows" else n_rows
    dtype = compute_dtype(matrix.dtype)
    if matrix.sparse:
        with matrix.open() as reader:
            for span in run.spans():
                yield Block(reader.read_rows(span, dtype), span, Span(0, n_columns), matrix.uri)
        return
    with matrix.open(mapped) as reader:
        for span in run.spans():
            rows, columns = (span, Span(0, n_columns)) if axis == "rows" else (Span(0, n_rows), span)
            values = reader.view(columns, dtype) if axis == "columns" else None
            if values is None:
                buffer = SCRATCH.array(min(run.step, run.stop - run.start) * line, dtype)
                values = buffer[: len(span) * line].reshape(len(rows), len(columns))
                reader.read(rows, columns, values)
            yield Block(values, rows, columns, matrix.uri)
            del values  # a view holds its pages


def fold_run(statistic: Statistic, matrix: Matrix, run: Run, mapped: bool) -> Any:
    """The state of one run."""
    total = None
    if getattr(statistic, "reads", None) is not None:
        return fold_windows(cast(Windowed, statistic), matrix, run)
    with np.errstate(over="ignore", invalid="ignore"):  # the statistics look for it themselves
        for block in blocks_of(matrix, statistic.axis, run, mapped):
            state = statistic.measure(block)
            total = state if total is None else statistic.merge(total, state)
    return total


def fold_windows(statistic: Windowed, matrix: Matrix, run: Run, total: Any = None) -> Any:
    """The state of the windows that belong to one run; of its rows only those that windows need are read.

    ``total``, a state of no window, lends its memory where it is given.
    """
    reads, dtype = statistic.reads, np.dtype(statistic.reads.dtype)
    total = statistic.empty() if total is None else total
    most = (min(run.step, run.stop - run.start) + reads.before) * reads.width()
    with matrix.open() as reader:
        for span in run.spans():
            if not statistic.wants(span):
                continue
            rows = Span(max(span.start - reads.before, 0), span.stop)
            values = read_rows(reader, rows, reads, SCRATCH.array(most, dtype))
            total = statistic.add(total, Block(values, span, reads.columns, matrix.uri, span.start - rows.start))
    return total


def read_rows(reader: Reader, rows: Span, reads: Reads, buffer: np.ndarray) -> np.ndarray:
    """Those rows as ``reads`` wants them, in ``buffer``."""
    if not reads.panel:
        values = buffer[: len(rows) * len(reads.columns)].reshape(len(rows), -1)
        reader.read(rows, reads.columns, values)
        return values
    from lazypipe.stats.window_kernel import to_panels

    n_panels = reads.width() // reads.panel
    panels = buffer[: len(rows) * reads.width()].reshape(n_panels, len(rows), reads.panel)
    # Rows pass through a buffer that stays in the caches: their panels are then written once, and read in place.
    step = max(1, SLAB_NBYTES // (len(reads.columns) * buffer.itemsize))
    slab = np.empty((min(step, len(rows)), len(reads.columns)), buffer.dtype)
    for start in range(rows.start, rows.stop, step):
        part = Span(start, min(start + step, rows.stop))
        reader.read(part, reads.columns, slab[: len(part)])
        to_panels(slab[: len(part)], panels[:, part.start - rows.start : part.stop - rows.start])
    return panels


def merge_group(statistic: Statistic, group: list[Any]) -> Any:
    """Merge up to ``FAN_IN`` neighbours, leaving them as they are: a task may run twice."""
    total = copy.deepcopy(group[0]) if len(group) > 1 else group[0]
    for state in group[1:]:
        total = statistic.merge(total, state)
    return total


class MergeTree:
    """States merged as they come, in the same tree that ``merge_group`` builds level by level.

    Holds at most ``FAN_IN - 1`` states a level; ``levels`` are those that wait, and begin a tree that
    goes on where another stopped.
    """

    def __init__(self, statistic: Statistic, levels: list[list[Any]] | None = None):
        self.statistic = statistic
        self.levels: list[list[Any]] = levels or [[]]

    def push(self, state: Any, level: int = 0) -> None:
        """Add the next state in order."""
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(state)
        if len(self.levels[level]) == FAN_IN:
            group, self.levels[level] = self.levels[level], []
            self.push(merge_group(self.statistic, group), level + 1)

    def total(self) -> Any:
        """All of it merged; the tree is empty afterwards."""
        level = 0
        while level < len(self.levels):
            group, self.levels[level] = self.levels[level], []
            if group:
                if len(group) == 1 and not any(self.levels[level + 1 :]):
                    return group[0]
                self.push(merge_group(self.statistic, group), level + 1)
            level += 1
        raise ValueError("no states to merge")


def merge_in_order(statistic: Statistic, states: Iterable[Any]) -> Any:
    """Merge a stream of states in the tree of ``merge_group``."""
    tree = MergeTree(statistic)
    for state in states:
        tree.push(state)
    return tree.total()
