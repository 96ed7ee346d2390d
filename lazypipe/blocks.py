"""Spans, blocks and runs: how a matrix is cut, and what a statistic is given to measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

SUPPORTED_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "uint8", "bool")


@dataclass(frozen=True, order=True)
class Span:
    """The half-open range ``[start, stop)`` of rows or of columns."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def evenly(span: Span, n: int) -> tuple[Span, ...]:
    """``span`` in n parts of equal length, but for one."""
    edges = [span.start + len(span) * i // n for i in range(n)] + [span.stop]
    return tuple(Span(a, b) for a, b in pairwise(edges))


@dataclass
class Block:
    """A rectangle of a matrix in memory, in the dtype it is computed in.

    ``values`` (rows, columns), an array or CSR rows, belongs to whoever holds the block and may be
    overwritten; but a column stripe may be a view of its file, to be read only: ``own`` it first.
    ``halo`` rows before ``rows`` come first in ``values``, for windows that reach back.
    """

    values: Any
    rows: Span
    columns: Span
    uri: str
    halo: int = 0

    def own(self) -> np.ndarray:
        """The values to overwrite: a copy, once, of a view of a file."""
        if not self.values.flags.writeable:
            self.values = self.values.copy()
        return self.values


def is_sparse(values: Any) -> bool:
    """Whether the values of a block are CSR rows: SciPy, which takes 20 MiB, is not loaded to tell."""
    return not isinstance(values, np.ndarray)


@dataclass(frozen=True)
class Reads:
    """How a statistic of windows wants its blocks: which columns, so many rows before each, in this dtype.

    With ``panel`` they come as (n_panels, rows, panel) columns, zeros where the last panel has fewer; else as
    (rows, columns).
    """

    columns: Span
    before: int
    dtype: str
    panel: int = 0

    def width(self) -> int:
        """Values a row, with those that fill the last panel up."""
        n = len(self.columns)
        return n if not self.panel else -(-n // self.panel) * self.panel


@dataclass(frozen=True)
class Run:
    """Neighbouring blocks that one task folds: ``[start, stop)`` in steps of ``step``."""

    index: int
    start: int
    stop: int
    step: int

    def spans(self) -> Iterator[Span]:
        for start in range(self.start, self.stop, self.step):
            yield Span(start, min(start + self.step, self.stop))


def runs(span: Span, step: int, n_runs: int) -> tuple[Run, ...]:
    """Cut ``span`` into blocks of ``step`` and give them to about ``n_runs`` runs evenly."""
    n_blocks = -(-len(span) // step)
    n_runs = max(1, min(n_runs, n_blocks))
    edges = [span.start + i * n_blocks // n_runs * step for i in range(n_runs)] + [span.stop]
    return tuple(Run(i, edges[i], edges[i + 1], step) for i in range(n_runs))


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """float32 where it holds every value of ``dtype`` exactly, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, "safe") else np.float64)


def apart(width: int) -> int:
    """An odd multiple of 32 columns, ``width`` at most where that is 32 or more.

    32 float32 are two lines of the cache; rows a power of two apart would all fall on the same ones.
    """
    return max(width // 32 - 1, 0) // 2 * 64 + 32 if width >= 32 else width
