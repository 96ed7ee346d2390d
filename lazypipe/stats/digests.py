"""Which values are in a state: a hash of every block, taken as the block is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import xxhash

from lazypipe.blocks import Block, Reads, Span, is_sparse
from lazypipe.stats.base import Axis, Statistic, Windowed

RECORD = np.dtype([("start", np.int64), ("stop", np.int64), ("digest", np.uint64, (2,))])


class DigestedState(NamedTuple):
    """A state, and which blocks are in it."""

    blocks: np.ndarray  # (n_blocks,) of RECORD, in order
    inner: Any  # None where only the blocks were asked for


@dataclass(frozen=True)
class Digested:
    """Another statistic, unfinished, with the XXH3 hash (128 bits) of each block that is in it.

    Without an ``inner`` one, the hashes alone. ``finish`` gives the state itself.
    """

    inner: Statistic | None
    axis: Axis
    State: ClassVar[type] = DigestedState

    def measure(self, block: Block) -> DigestedState:
        return DigestedState(_record(block, self.axis), None if self.inner is None else self.inner.measure(block))

    def merge(self, left: DigestedState, right: DigestedState) -> DigestedState:
        inner = None if self.inner is None else self.inner.merge(left.inner, right.inner)
        return DigestedState(np.concatenate([left.blocks, right.blocks]), inner)

    def finish(self, total: DigestedState) -> DigestedState:
        return total

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 0 if self.inner is None else self.inner.state_nbytes(n_rows, n_columns)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return 0 if self.inner is None else self.inner.scratch_nbytes(n_rows, n_columns, itemsize)


@dataclass(frozen=True)
class DigestedWindows(Digested):
    """The same of a statistic of windows; without an inner one, of all blocks that it is given."""

    reads: Reads

    @property
    def _windows(self) -> Windowed:
        return cast(Windowed, self.inner)

    def wants(self, rows: Span) -> bool:
        return self.inner is None or self._windows.wants(rows)

    def empty(self) -> DigestedState:
        return DigestedState(np.zeros(0, RECORD), None if self.inner is None else self._windows.empty())

    def add(self, total: DigestedState, block: Block) -> DigestedState:
        blocks = np.concatenate([total.blocks, _record(block, self.axis)])
        return DigestedState(blocks, None if self.inner is None else self._windows.add(total.inner, block))


def digested(statistic: Statistic) -> Digested:
    """``statistic`` with the hashes of its blocks."""
    reads = getattr(statistic, "reads", None)
    return Digested(statistic, statistic.axis) if reads is None else DigestedWindows(statistic, statistic.axis, reads)


def blocks_alone(statistic: Statistic) -> Digested:
    """The hashes of the blocks that ``statistic`` would be given."""
    return replace(digested(statistic), inner=None)


def _record(block: Block, axis: Axis) -> np.ndarray:
    span = block.rows if axis == "rows" else block.columns
    return np.array([(span.start, span.stop, digest(block.values))], RECORD)


def digest(values: Any) -> tuple[int, int]:
    """XXH3 of a block's values; of its three arrays where it is sparse. 20 GB/s: a fiftieth of a product."""
    hashed = xxhash.xxh3_128()
    for part in (values.data, values.indices, values.indptr) if is_sparse(values) else (values,):
        hashed.update(np.ascontiguousarray(part).data.cast("B"))
    number = hashed.intdigest()
    return number >> 64, number & (2**64 - 1)
