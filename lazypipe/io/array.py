"""A matrix that is already in memory, for tests, small data, and other people's arrays."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Dense, Piece
from lazypipe.io.sources import checked_dtype, checked_rectangle, checked_shape
from lazypipe.sizes import MIB

HASHED_NBYTES = 16 * MIB  # at once


@dataclass(frozen=True, eq=False)
class ArrayMatrix(Dense):
    """An ndarray (n_rows, n_columns) as a source. Pickling it copies the data: save large ones as .npy."""

    array: np.ndarray
    uri: str = "<array>"
    reads_columns: bool = True

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.array.shape[0], self.array.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype.newbyteorder("=")

    def open(self, mapped: bool = False) -> AbstractContextManager[ArrayReader]:
        """A reader; ``mapped`` does not matter."""
        return nullcontext(ArrayReader(self))

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Nothing beside the array itself, which is the caller's."""
        return 0

    def pieces(self) -> tuple[Piece, ...]:
        """None: there are no files."""
        return ()

    def fingerprint(self) -> str:
        """Hash of shape, dtype and all of the content: an array may be changed in place. About 1 s per 1 to 2 GB."""
        digest = hashlib.sha256(f"{self.shape} {self.dtype.str}".encode())
        step = max(1, HASHED_NBYTES // max(1, self.shape[1] * self.array.itemsize))
        for row in range(0, self.shape[0], step):
            digest.update(np.ascontiguousarray(self.array[row : row + step]).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Copies rectangles out of an array, and shows its stripes."""

    source: ArrayMatrix

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``."""
        checked_rectangle(rows, columns, self.source.shape, out, self.source.uri)
        np.copyto(out, self.source.array[rows.slice, columns.slice], casting="unsafe")

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        """The stripe in the array itself, read-only, where rows are contiguous and of ``dtype``."""
        array = self.source.array
        if array.dtype != dtype or array.strides[1] != array.itemsize:
            return None
        stripe = array[:, columns.slice]
        stripe.flags.writeable = False
        return stripe


def require_unmasked(values: object, uri: str) -> None:
    """DataError for a masked array, of which NumPy would give what lies under its mask."""
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{uri}: is masked. Fill what is missing with NaN: array.filled(np.nan).")


def from_array(array: np.ndarray) -> ArrayMatrix:
    """``array`` (n_rows, n_columns) as a source; DataError if its shape or dtype is not a matrix's, or it is masked."""
    require_unmasked(array, "<array>")
    checked_shape(array.shape, "<array>")
    checked_dtype(array.dtype, "<array>")
    return ArrayMatrix(array)
