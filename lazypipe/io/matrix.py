"""What a matrix source is: a recipe that is cheap to pickle, opened where it is read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from lazypipe.blocks import Span


class Reader(Protocol):
    """An open source. Used by one thread; holds no more than ``Matrix.reader_nbytes`` says."""

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""


class Matrix(Protocol):
    """A matrix on disk (or in memory): ``shape`` (n_rows, n_columns), never its data.

    ``reads_columns`` is True where a column stripe can be read without reading the whole file.
    """

    @property
    def uri(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def reads_columns(self) -> bool: ...

    @property
    def mapped_nbytes(self) -> int:
        """Bytes that a map of the files keeps resident in each process; 0 where the format maps nothing."""

    def open(self, mapped: bool = False) -> AbstractContextManager[Reader]:
        """Open for reading; ``mapped`` allows the files to be mapped whole, ``mapped_nbytes`` of them."""

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Bytes the reader holds beside ``out`` while it reads such a block (scratch, decoded groups)."""

    def fingerprint(self) -> str:
        """A short hash of what the data are: uri, shape, dtype, sizes and modification times."""
