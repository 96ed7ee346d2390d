"""What a worker runs, whatever the engine: fold a run of blocks, merge a group of states."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lazypipe.blocks import Block, Run, Span, compute_dtype
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FAN_IN
from lazypipe.stats.base import Axis, Statistic


@lru_cache(maxsize=1)
def use_one_blas_thread() -> None:
    """Give a worker process, which is ours alone, one BLAS thread a task."""
    threadpool_limits(1)


def blocks_of(matrix: Matrix, axis: Axis, run: Run, mapped: bool) -> Iterable[Block]:
    """The blocks of a run, one after another in the same memory."""
    n_rows, n_columns = matrix.shape
    line = n_columns if axis == "rows" else n_rows
    buffer = np.empty(min(run.step, run.stop - run.start) * line, compute_dtype(matrix.dtype))
    with matrix.open(mapped) as reader:
        for span in run.spans():
            rows, columns = (span, Span(0, n_columns)) if axis == "rows" else (Span(0, n_rows), span)
            values = buffer[: len(span) * line].reshape(len(rows), len(columns))
            reader.read(rows, columns, values)
            yield Block(values, rows, columns, matrix.uri)


def fold_run(statistic: Statistic, matrix: Matrix, run: Run, mapped: bool) -> Any:
    """The state of one run."""
    total = None
    with np.errstate(over="ignore", invalid="ignore"):  # the statistics look for it themselves
        for block in blocks_of(matrix, statistic.axis, run, mapped):
            state = statistic.measure(block)
            total = state if total is None else statistic.merge(total, state)
    return total


def merge_group(statistic: Statistic, group: list[Any]) -> Any:
    """Merge up to ``FAN_IN`` neighbours, leaving them as they are: a task may run twice."""
    total = copy.deepcopy(group[0]) if len(group) > 1 else group[0]
    for state in group[1:]:
        total = statistic.merge(total, state)
    return total


def merge_in_order(statistic: Statistic, states: Iterable[Any]) -> Any:
    """Merge a stream of states in the same tree that ``merge_group`` builds level by level.

    Holds at most ``FAN_IN - 1`` states a level.
    """
    levels: list[list[Any]] = [[]]

    def push(level: int, state: Any) -> None:
        if level == len(levels):
            levels.append([])
        levels[level].append(state)
        if len(levels[level]) == FAN_IN:
            group, levels[level] = levels[level], []
            push(level + 1, merge_group(statistic, group))

    for state in states:
        push(0, state)
    level = 0
    while level < len(levels):
        group, levels[level] = levels[level], []
        if group:
            if len(group) == 1 and not any(levels[level + 1 :]):
                return group[0]
            push(level + 1, merge_group(statistic, group))
        level += 1
    raise ValueError("no states to merge")
