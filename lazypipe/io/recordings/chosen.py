"""Some columns of a matrix, in any order, as a matrix of their own: never a copy of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.io.matrix import Dense, Matrix, OverMatrix, Unmapped
from lazypipe.sizes import MIB

SLAB_NBYTES = 4 * MIB  # of rows read at once to pick columns from: they stay in the caches


@dataclass(frozen=True, eq=False)
class ChosenColumns(OverMatrix, Dense):
    """The ``columns`` of ``matrix`` in that order; what lies between the first and the last is read with them."""

    matrix: Matrix
    columns: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.matrix.shape[0], len(self.columns)

    @property
    def dtype(self) -> np.dtype:
        return self.matrix.dtype

    @property
    def around(self) -> Span:
        """The columns of the matrix that are read."""
        return Span(min(self.columns), max(self.columns) + 1)

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[ChosenReader]:
        """A reader for one thread; nothing is mapped."""
        with self.matrix.open() as reader:
            yield ChosenReader(self, reader)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """That of the matrix, and a slab of whole rows."""
        width = len(self.around)
        return self.matrix.reader_nbytes(n_rows, width) + max(SLAB_NBYTES, 8 * width)

    def fingerprint(self) -> str:
        """Of the matrix and of which columns."""
        return hashlib.sha256(f"{self.matrix.fingerprint()} {self.columns}".encode()).hexdigest()[:16]


class ChosenReader(Unmapped):
    """Reads rectangles of the chosen columns, a slab of rows at a time."""

    def __init__(self, source: ChosenColumns, reader: Any):
        self._source = source
        self._reader = reader

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""
        wanted = self._source.columns[columns.slice]
        around = Span(min(wanted), max(wanted) + 1)
        if wanted == tuple(range(around.start, around.stop)):
            self._reader.read(rows, around, out)
            return
        step = max(1, SLAB_NBYTES // (len(around) * out.itemsize))
        slab = np.empty((min(step, len(rows)), len(around)), out.dtype)
        places = np.array(wanted) - around.start
        for start in range(rows.start, rows.stop, step):
            part = Span(start, min(start + step, rows.stop))
            values = slab[: len(part)]
            self._reader.read(part, around, values)
            out[start - rows.start : part.stop - rows.start] = values[:, places]


def chosen_columns(matrix: Matrix, columns: np.ndarray) -> Matrix:
    """Those columns of ``matrix``; itself where they are all of them, in order."""
    wanted = tuple(int(column) for column in columns)
    return matrix if wanted == tuple(range(matrix.shape[1])) else ChosenColumns(matrix, wanted)
