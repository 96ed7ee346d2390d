"""Neighbouring rows of a matrix as a matrix of their own, read in place: those to learn from, those to validate on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix, OverStored, Piece
from lazypipe.io.sources import checked_rectangle, checked_rows


@dataclass(frozen=True, eq=False)
class RowRange(OverStored):
    """The ``rows`` of ``matrix``, counted from 0 again. Use ``row_range``, which checks them."""

    matrix: Matrix
    rows: Span

    @property
    def uri(self) -> str:
        """As Python would slice it."""
        start, stop = self.rows.start or "", self.rows.stop if self.rows.stop < self.matrix.shape[0] else ""
        return f"{self.matrix.uri}[{start}:{stop}]"

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.matrix.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.matrix.dtype

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes * len(self.rows) // self.matrix.shape[0]

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader of those rows, for one thread."""
        with self.matrix.open(mapped) as reader:
            yield (SparseRangeReader if self.sparse else RangeReader)(self, reader)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        return self.matrix.reader_nbytes(n_rows, n_columns)

    def pieces(self) -> tuple[Piece, ...]:
        """The files that hold some of the rows."""
        cut = [
            (path, max(rows.start, self.rows.start), min(rows.stop, self.rows.stop))
            for path, rows in self.matrix.pieces()
        ]
        first = self.rows.start
        return tuple(Piece(path, Span(start - first, stop - first)) for path, start, stop in cut if start < stop)

    def fingerprint(self) -> str:
        text = f"{self.matrix.fingerprint()} {self.rows.start}:{self.rows.stop}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RangeReader:
    """Reads rectangles and stripes of the rows."""

    source: RowRange
    reader: Any

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""
        checked_rectangle(rows, columns, self.source.shape, out, self.source.uri)
        self.reader.read(_within(self.source, rows), columns, out)

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        """The part of the whole stripe, where that is in memory."""
        stripe = self.reader.view(columns, dtype)
        return None if stripe is None else stripe[self.source.rows.slice]


@dataclass(frozen=True)
class SparseRangeReader:
    """Reads whole rows of a sparse matrix."""

    source: RowRange
    reader: Any

    def read_rows(self, rows: Span, dtype: np.dtype) -> Any:
        """Those rows (len(rows), n_columns) as CSR, in ``dtype``."""
        checked_rows(rows, self.source.shape, self.source.uri)
        return self.reader.read_rows(_within(self.source, rows), dtype)


def row_range(matrix: Matrix, start: int, stop: int) -> RowRange:
    """Rows ``start`` to ``stop``, which is not among them; DataError unless the matrix has them, and one at least."""
    if not 0 <= start < stop <= matrix.shape[0]:
        raise DataError(f"{matrix.uri}: has no rows {start:,}:{stop:,}. Give a part of 0:{matrix.shape[0]:,}.")
    return RowRange(matrix, Span(start, stop))


def first_rows(matrix: Matrix, n: int) -> np.ndarray:
    """The first ``n`` rows (n, D), or as many as there are, in the dtype of the source; of sparse rows dense."""
    rows, columns = Span(0, min(n, matrix.shape[0])), Span(0, matrix.shape[1])
    with matrix.open() as reader:
        if matrix.sparse:
            return np.asarray(reader.read_rows(rows, matrix.dtype).toarray())
        out = np.empty((len(rows), len(columns)), matrix.dtype)
        reader.read(rows, columns, out)
    return out


def _within(source: RowRange, rows: Span) -> Span:
    """Rows of the range as rows of the matrix."""
    return Span(source.rows.start + rows.start, source.rows.start + rows.stop)
