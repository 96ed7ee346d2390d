"""What a matrix source is: a recipe that is cheap to pickle, opened where it is read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lazypipe.blocks import Span

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Piece(NamedTuple):
    """A file that holds ``rows`` of a matrix, whole or in part."""

    path: str
    rows: Span


class Reader(Protocol):
    """An open source. Used by one thread; holds no more than ``Matrix.reader_nbytes`` says."""

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        """That column stripe (n_rows, len(columns)) where it lies, in ``dtype``; None where it is to be read.

        Writeable only where what is written stays with the caller. Takes no more memory than the stripe,
        or than what ``Matrix.mapped_nbytes`` counts.
        """


class SparseReader(Protocol):
    """An open sparse source: whole rows only."""

    def read_rows(self, rows: Span, dtype: np.dtype) -> csr_array:
        """Those rows (len(rows), n_columns), sorted, without duplicates; the caller may change its values."""


class Matrix(Protocol):
    """A matrix on disk (or in memory): ``shape`` (n_rows, n_columns), never its data.

    ``reads_columns`` is True where a column stripe can be read without reading the whole file;
    ``sparse`` where ``open`` gives a SparseReader in place of a Reader.
    """

    @property
    def uri(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def nbytes(self) -> int:
        """Bytes of the data: what one pass reads."""

    @property
    def reads_columns(self) -> bool: ...

    @property
    def sparse(self) -> bool: ...

    @property
    def panel_columns(self) -> int | None:
        """Width of the column stripes that lie contiguous on disk; None where rows do."""

    @property
    def mapped_nbytes(self) -> int:
        """Bytes that a map of the files keeps resident in each process; 0 where the format maps nothing."""

    def open(self, mapped: bool = False) -> AbstractContextManager[Any]:
        """A Reader, or a SparseReader of a sparse matrix.

        ``mapped`` allows the files to be mapped whole, ``mapped_nbytes`` of them.
        """

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Bytes the reader holds beside the block while it reads such a block (scratch, decoded groups)."""

    def block_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """Bytes of a block of that shape in memory, at most, with entries of ``itemsize`` bytes."""

    def pieces(self) -> tuple[Piece, ...]:
        """The files and the rows that each holds; empty for a matrix in memory."""

    def fingerprint(self) -> str:
        """A short hash of what the data are: uri, shape, dtype, sizes and modification times."""


class Unmapped:
    """A Reader all of whose stripes are to be read."""

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        return None


class OverMatrix:
    """What a matrix that reads another one, ``matrix``, has of it."""

    matrix: Matrix

    @property
    def uri(self) -> str:
        return self.matrix.uri

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    @property
    def reads_columns(self) -> bool:
        return self.matrix.reads_columns

    def pieces(self) -> tuple[Piece, ...]:
        return self.matrix.pieces()


class OverStored(OverMatrix):
    """The same, where all columns are read as ``matrix`` stores them, dense or sparse."""

    @property
    def sparse(self) -> bool:
        return self.matrix.sparse

    @property
    def panel_columns(self) -> int | None:
        return self.matrix.panel_columns

    @property
    def mapped_nbytes(self) -> int:
        return self.matrix.mapped_nbytes

    def block_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return self.matrix.block_nbytes(n_rows, n_columns, itemsize)


class Dense:
    """What formats of dense entries have in common, unless they say otherwise."""

    shape: tuple[int, int]
    sparse = False
    panel_columns: int | None = None
    mapped_nbytes = 0

    @property
    def dtype(self) -> np.dtype:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def block_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return n_rows * n_columns * itemsize
