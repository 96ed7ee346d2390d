"""Two sources side by side: the columns of one after those of another, as features and their target are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.array import require_unmasked
from lazypipe.io.matrix import Dense, Matrix, Piece, Reader, Unmapped
from lazypipe.io.npy import open_vector
from lazypipe.io.sources import checked_rectangle
from lazypipe.stores import Place


@dataclass(frozen=True, eq=False)
class Beside(Dense):
    """``left`` (n_rows, a) and ``right`` (n_rows, b) as one matrix (n_rows, a + b); nothing is copied.

    Raises DataError where the numbers of rows differ, or where a source is sparse. Its dtype holds the
    values of both exactly, so float32 columns beside float64 ones are computed in float64.
    """

    left: Matrix
    right: Matrix
    reads_columns: bool = False

    def __post_init__(self) -> None:
        for part in (self.left, self.right):
            if part.sparse:
                raise DataError(
                    f"{part.uri}: is sparse, and cannot be read beside {self._other(part).uri}. "
                    f"Convert it to a dense format first."
                )
        n_left, n_right = self.left.shape[0], self.right.shape[0]
        if n_left != n_right:
            raise DataError(
                f"{self.right.uri}: has {n_right:,} rows, {self.left.uri} has {n_left:,}. "
                f"Give two sources with the same rows."
            )

    def _other(self, part: Matrix) -> Matrix:
        return self.right if part is self.left else self.left

    @property
    def uri(self) -> str:
        """Both sources and their columns, so that an error in column j tells whose it is."""
        n_left, n_columns = self.left.shape[1], self.shape[1]
        return f"{self.left.uri} ({_columns(0, n_left)}) beside {self.right.uri} ({_columns(n_left, n_columns)})"

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.left.shape[0], self.left.shape[1] + self.right.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(self.left.dtype, self.right.dtype)

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    @contextmanager
    def _both(self, mapped: bool) -> Iterator[BesideReader]:
        with self.left.open(mapped) as left, self.right.open(mapped) as right:
            yield BesideReader(self, left, right)

    def open(self, mapped: bool = False) -> AbstractContextManager[BesideReader]:
        """A reader for one thread; ``mapped`` goes to both sources."""
        return self._both(mapped)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """What both readers hold."""
        n_left, n_right = (min(n_columns, part.shape[1]) for part in (self.left, self.right))
        return self.left.reader_nbytes(n_rows, n_left) + self.right.reader_nbytes(n_rows, n_right)

    def pieces(self) -> tuple[Piece, ...]:
        """The files of both."""
        return self.left.pieces() + self.right.pieces()

    def fingerprint(self) -> str:
        """Hash of the fingerprints of both, in their order."""
        return hashlib.sha256(f"{self.left.fingerprint()} {self.right.fingerprint()}".encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class BesideReader(Unmapped):
    """Reads rectangles that may lie across both sources."""

    source: Beside
    left: Reader
    right: Reader

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""
        checked_rectangle(rows, columns, self.source.shape, out, self.source.uri)
        edge = self.source.left.shape[1]
        n_left = max(0, min(columns.stop, edge) - columns.start)
        if n_left:
            self.left.read(rows, Span(columns.start, min(columns.stop, edge)), out[:, :n_left])
        if n_left < len(columns):
            self.right.read(rows, Span(max(columns.start, edge) - edge, columns.stop - edge), out[:, n_left:])


def open_column(source: Any, name: str = "y") -> Matrix:
    """A target as a matrix of one column: a path (a 1-D .npy, too), a Matrix, or an array (n,) or (n, 1).

    Arrays of integers of 32 and 64 bits become float64. DataError for more columns than one, or other contents.
    """
    if isinstance(source, (str, Path, Place)):
        matrix = open_vector(source) or open_matrix(source)
    elif hasattr(source, "reader_nbytes"):
        matrix = open_matrix(source)
    else:
        require_unmasked(source, f"<{name}>")
        values = np.asarray(source)
        if values.dtype.kind in "iu" and values.dtype.itemsize >= 4:
            values = values.astype(np.float64)  # exact below 2^53; int32 is computed in float64 anyway
        matrix = open_matrix(values.reshape(-1, 1) if values.ndim == 1 else np.atleast_2d(values))
    if matrix.shape[1] != 1:
        raise DataError(
            f"{matrix.uri}: has {matrix.shape[1]:,} columns, {name} must have one. "
            f"Select it, or pass the index of a column of X."
        )
    return matrix


def _columns(start: int, stop: int) -> str:
    return f"column {start:,}" if stop - start == 1 else f"columns {start:,} to {stop - 1:,}"
