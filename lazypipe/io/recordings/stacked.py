"""Matrices one below the other, read as one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.io.matrix import Dense, Matrix, Piece, Unmapped
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.io.sources import checked_rectangle, touched

MAX_OPEN_FILES = 100  # a reader of raw rows keeps its files open; a process may have 1,024


@dataclass(frozen=True, eq=False)
class Stacked(Dense):
    """The rows of ``parts``, which have the same columns and dtype, in their order."""

    uri: str
    parts: tuple[Matrix, ...]

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """The first row of each part, and the end."""
        return tuple(np.cumsum([0] + [part.shape[0] for part in self.parts]).tolist())

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.edges[-1], self.parts[0].shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.parts[0].dtype

    @property
    def reads_columns(self) -> bool:
        return all(part.reads_columns for part in self.parts)

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[StackedReader]:
        """A reader for one thread, which has one part open at a time; nothing is mapped."""
        with ExitStack() as stack:
            yield StackedReader(self, stack)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """That of the part which takes most."""
        return max(part.reader_nbytes(n_rows, n_columns) for part in self.parts)

    def pieces(self) -> tuple[Piece, ...]:
        """Those of each part, their rows counted through."""
        return tuple(
            Piece(piece.path, Span(base + piece.rows.start, base + piece.rows.stop))
            for base, part in zip(self.edges, self.parts, strict=False)
            for piece in part.pieces()
        )

    def fingerprint(self) -> str:
        """Hash of those of the parts."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part.fingerprint().encode())
        return digest.hexdigest()[:16]


class StackedReader(Unmapped):
    """Reads rectangles of a Stacked matrix."""

    def __init__(self, source: Stacked, stack: ExitStack):
        self._source = source
        self._stack = stack
        self._open: tuple[int, Any] | None = None

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""
        source = self._source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        for index, part, start in touched(rows, source.edges):
            self._reader(index).read(part, columns, out[start - rows.start :][: len(part)])

    def _reader(self, index: int) -> Any:
        if self._open is None or self._open[0] != index:
            self._open = None
            self._stack.close()
            self._open = (index, self._stack.enter_context(self._source.parts[index].open()))
        return self._open[1]


def stack(matrices: list[Matrix]) -> Matrix:
    """One matrix of all rows; as raw rows where all are stored as such. They have the same columns and dtype."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    uri = f"{first.uri} and {len(matrices) - 1} more"
    raw = [matrix for matrix in matrices if isinstance(matrix, RawRowsMatrix) and not matrix.transposed]
    segments = tuple(segment for matrix in raw for segment in matrix.segments)
    alike = len(raw) == len(matrices) and len({matrix.stored for matrix in raw}) == 1
    if alike and len({segment.path for segment in segments}) <= MAX_OPEN_FILES:
        shape = sum(matrix.shape[0] for matrix in raw), first.shape[1]
        return RawRowsMatrix(uri, shape, raw[0].stored, segments)
    return Stacked(uri, tuple(matrices))
