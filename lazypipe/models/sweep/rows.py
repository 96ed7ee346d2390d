"""The rows of a prefix as a model reads them: float32, divided and centred, by blocks; held where memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import numpy as np

from lazypipe.blocks import Block, Span, compute_dtype
from lazypipe.io.examples import Examples
from lazypipe.io.matrix import Reader, SparseReader
from lazypipe.sizes import KIB, MIB
from lazypipe.stats import row_kernel
from lazypipe.stats.base import require_finite
from lazypipe.stats.provisional import provisional_shift

BLOCK_NBYTES = 2 * MIB  # of a block in float32: it stays in the caches between two products
LEAST_BLOCK_ROWS, MOST_BLOCK_ROWS = 8, 2048
SKIP_NBYTES = 64 * KIB  # rows apart by more are read apart


def shift_of(examples: Examples) -> np.ndarray:
    """About the mean of the divided rows (D,) float64; found from some of them, the same for every prefix."""
    if examples.matrix.sparse:
        return np.zeros(examples.n_features)
    return provisional_shift(examples.matrix).astype(np.float64) / examples.divide_by


def block_rows(n_features: int) -> int:
    """Rows a block: of the width of the data alone, since sums of other blocks round otherwise."""
    n = BLOCK_NBYTES // (4 * n_features)
    return max(LEAST_BLOCK_ROWS, min(MOST_BLOCK_ROWS, n // 64 * 64 or n))


class Prefix:
    """The first ``size`` rows of ``examples``, as given or in the order of ``seed``.

    A model of the sums over rows does not depend on their order, so a shuffled prefix is read in the order of
    the file. With ``hold`` the rows stay in memory, 4 bytes an entry, once they were read.
    """

    def __init__(
        self, examples: Examples, size: int, seed: int | None, shift: np.ndarray, *, hold: bool, step: int | None = None
    ):
        self.examples, self.size, self.shift, self.hold = examples, size, shift, hold
        self.n_features = examples.n_features
        self.step = step or block_rows(self.n_features)
        self.index = None if seed is None else np.sort(shuffled(examples.n_rows, seed)[:size])
        self.targets = examples.targets[:size] if self.index is None else examples.targets[self.index]
        self._held: np.ndarray | None = None
        self._raw = np.empty(0)
        self._shift = shift.astype(np.result_type(self._dtype, np.float32))

    @property
    def _dtype(self) -> np.dtype:
        return compute_dtype(self.examples.matrix.dtype)

    def blocks(self, every: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """(rows, values (len, D) float32) of every so many-th block; values last until the next one.

        Read from the file each time, unless they are held.
        """
        if self.hold:
            held = self.all()
            for rows in self._cut(every):
                yield rows, held[rows]
            return
        buffer = np.empty((min(self.step, self.size), self.n_features), np.float32)
        with self.examples.matrix.open() as reader:
            for rows in self._cut(every):
                values = buffer[: rows.stop - rows.start]
                self.read(reader, rows, values)
                yield rows, values
        self._raw = np.empty(0)

    def all(self) -> np.ndarray:
        """All rows (size, D) float32, of a prefix that holds them."""
        assert self.hold, "asked for rows that are not held"
        if self._held is None:
            held = np.empty((self.size, self.n_features), np.float32)
            with self.examples.matrix.open() as reader:
                for rows in self._cut(1):
                    self.read(reader, rows, held[rows])
            self._held, self._raw = held, np.empty(0)
        return self._held

    def _cut(self, every: int) -> Iterator[slice]:
        for start in range(0, self.size, self.step * every):
            yield slice(start, min(start + self.step, self.size))

    def stripes(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """(columns, values (size, len) float32) of every stripe of so many columns; values last until the next one."""
        held = self.all() if self.hold else None
        with self.examples.matrix.open() as reader:
            for start in range(0, self.n_features, width):
                columns = Span(start, min(start + width, self.n_features))
                if held is not None:
                    yield columns.slice, held[:, columns.slice]
                    continue
                values = np.empty((self.size, len(columns)), np.float32)
                for rows in self._cut(1):
                    self.read(reader, rows, values[rows], columns)
                yield columns.slice, values

    def read(self, reader: Reader, rows: slice, values: np.ndarray, columns: Span | None = None) -> None:
        """Fill ``values`` with rows of the prefix, counted from its first."""
        columns = columns or Span(0, self.n_features)
        if self.index is None:
            self._read_all(reader, Span(rows.start, rows.stop), columns, values)
            return
        wanted = self.index[rows]
        far = max(1, SKIP_NBYTES // (self.n_features * self._dtype.itemsize))
        edges = [0, *(np.flatnonzero(np.diff(wanted) > far) + 1).tolist(), len(wanted)]
        for a, b in pairwise(edges):
            self._read_some(reader, wanted[a:b], columns, values[a:b])

    def _read_all(self, reader: Reader, rows: Span, columns: Span, values: np.ndarray) -> None:
        for start in range(rows.start, rows.stop, self.step):
            part = Span(start, min(start + self.step, rows.stop))
            raw = self._raw_rows(reader, part, columns)
            self._prepare(part, raw, columns, values[start - rows.start : part.stop - rows.start])

    def _read_some(self, reader: Reader, wanted: np.ndarray, columns: Span, values: np.ndarray) -> None:
        """Rows of the file by their numbers, with all that lie between them."""
        for start in range(int(wanted[0]), int(wanted[-1]) + 1, self.step):
            first, last = np.searchsorted(wanted, (start, start + self.step))
            if first == last:
                continue
            part = Span(int(wanted[first]), int(wanted[last - 1]) + 1)
            raw = self._raw_rows(reader, part, columns)
            if last - first < len(part):
                raw = raw[wanted[first:last] - part.start]
            self._prepare(part, raw, columns, values[first:last])

    def _raw_rows(self, reader: Reader | SparseReader, rows: Span, columns: Span) -> np.ndarray:
        """Entries as they lie in the source, in the dtype that holds them exactly; of sparse rows the zeros too."""
        if self.examples.matrix.sparse:
            return cast(SparseReader, reader).read_rows(rows, self._dtype)[:, columns.slice].toarray()
        size = len(rows) * len(columns)
        if self._raw.size < size or self._raw.dtype != self._dtype:
            self._raw = np.empty(size, self._dtype)
        raw = self._raw[:size].reshape(len(rows), len(columns))
        cast(Reader, reader).read(rows, columns, raw)
        return raw

    def _prepare(self, rows: Span, raw: np.ndarray, columns: Span, out: np.ndarray) -> None:
        """Divide, centre, and cast in that order: of float64, what is left of large means keeps its digits."""
        shift = self._shift[columns.slice]
        if row_kernel.prepare(raw, raw.dtype.type(self.examples.divide_by), shift, out):
            return
        examples = self.examples
        with examples.matrix.open() as reader:  # in memory that was overwritten, the value itself may be gone
            raw = self._raw_rows(reader, rows, columns)
        require_finite(np.full(len(raw), np.nan), Block(raw, rows, columns, examples.matrix.uri))


def shuffled(n_rows: int, seed: int) -> np.ndarray:
    """The rows in the order of a seed (n_rows,): its first n are the prefix of size n."""
    kind = np.int32 if n_rows <= np.iinfo(np.int32).max else np.int64
    return np.random.default_rng(seed).permutation(np.arange(n_rows, dtype=kind))
