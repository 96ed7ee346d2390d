"""The rows of a prefix as a model reads them: float32, divided and centred, by blocks; held where memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lazypipe.blocks import Block, Span, compute_dtype
from lazypipe.io.matrix import Matrix, Reader
from lazypipe.sizes import KIB, MIB
from lazypipe.stats.base import require_finite
from lazypipe.stats.provisional import provisional_shift

BLOCK_NBYTES = 2 * MIB  # of a block in float32: it stays in the caches between two products
MOST_BLOCK_ROWS = 2048
SKIP_NBYTES = 64 * KIB  # rows apart by more are read apart


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of a source and what is to be learnt of them.

    ``targets`` (n_rows,): the class of each row as a number from 0, int32; in a regression its value, float64.
    Entries are divided by ``divide_by``.
    """

    matrix: Matrix
    targets: np.ndarray
    divide_by: float = 1.0

    @property
    def n_rows(self) -> int:
        return self.matrix.shape[0]

    @property
    def n_features(self) -> int:
        return self.matrix.shape[1]

    def shift(self) -> np.ndarray:
        """About the mean of the divided rows (D,) float64; found from some of them, the same for every prefix."""
        return provisional_shift(self.matrix).astype(np.float64) / self.divide_by


def block_rows(n_features: int) -> int:
    """Rows a block: of the width of the data alone, since sums of other blocks round otherwise."""
    n = BLOCK_NBYTES // (4 * n_features)
    return max(1, min(MOST_BLOCK_ROWS, n // 64 * 64 or n))


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
                self._read(reader, rows, values)
                yield rows, values
        self._raw = np.empty(0)

    def all(self) -> np.ndarray:
        """All rows (size, D) float32, of a prefix that holds them."""
        assert self.hold, "asked for rows that are not held"
        if self._held is None:
            held = np.empty((self.size, self.n_features), np.float32)
            with self.examples.matrix.open() as reader:
                for rows in self._cut(1):
                    self._read(reader, rows, held[rows])
            self._held, self._raw = held, np.empty(0)
        return self._held

    def _cut(self, every: int) -> Iterator[slice]:
        for start in range(0, self.size, self.step * every):
            yield slice(start, min(start + self.step, self.size))

    def _read(self, reader: Reader, rows: slice, values: np.ndarray) -> None:
        for at, part in self._pieces(rows):
            self._read_rows(reader, part, values[at], None if self.index is None else self.index[rows][at])

    def _pieces(self, rows: slice) -> Iterator[tuple[slice, Span]]:
        """Where in the block they go, and which rows of the file to read, all that lie between them included."""
        if self.index is None:
            yield slice(0, rows.stop - rows.start), Span(rows.start, rows.stop)
            return
        wanted = self.index[rows]
        far = max(1, SKIP_NBYTES // (self.n_features * self._dtype.itemsize))
        edges = [0, *(np.flatnonzero(np.diff(wanted) > far) + 1).tolist(), len(wanted)]
        for a, b in pairwise(edges):
            yield slice(a, b), Span(int(wanted[a]), int(wanted[b - 1]) + 1)

    def _read_rows(self, reader: Reader, span: Span, values: np.ndarray, wanted: np.ndarray | None) -> None:
        columns = Span(0, self.n_features)
        for start in range(span.start, span.stop, self.step):
            part = Span(start, min(start + self.step, span.stop))
            if wanted is None:
                at, raw = slice(part.start - span.start, part.stop - span.start), self._rows(len(part))
                reader.read(part, columns, raw)
                self._prepare(part, raw, values[at])
                continue
            first, last = np.searchsorted(wanted, (part.start, part.stop))
            if first == last:
                continue
            raw = self._rows(len(part))
            reader.read(part, columns, raw)
            chosen = raw if last - first == len(part) else raw[wanted[first:last] - part.start]
            self._prepare(part, chosen, values[first:last])

    def _rows(self, n: int) -> np.ndarray:
        """Memory for rows as they are read, in the dtype that holds them exactly."""
        if len(self._raw) < n or self._raw.dtype != self._dtype:
            self._raw = np.empty((n, self.n_features), self._dtype)
        return self._raw[:n]

    def _prepare(self, part: Span, raw: np.ndarray, out: np.ndarray) -> None:
        """Divide, centre, and cast in that order: of float64, what is left of large means keeps its digits."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.examples.divide_by != 1:
                np.divide(raw, raw.dtype.type(self.examples.divide_by), out=raw)
            np.subtract(raw, self._shift, out=out, casting="same_kind")
            sums = np.ones(len(out), np.float32) @ out
        if not np.isfinite(sums).all():
            whole = np.empty((len(part), self.n_features), self._dtype)
            with self.examples.matrix.open() as reader:
                reader.read(part, Span(0, self.n_features), whole)
            require_finite(sums, Block(whole, part, Span(0, self.n_features), self.examples.matrix.uri))


def shuffled(n_rows: int, seed: int) -> np.ndarray:
    """The rows in the order of a seed (n_rows,): its first n are the prefix of size n."""
    kind = np.int32 if n_rows <= np.iinfo(np.int32).max else np.int64
    return np.random.default_rng(seed).permutation(np.arange(n_rows, dtype=kind))
