"""NumPy's .npy files: the header here, the data through raw_rows (C and Fortran order)."""

from __future__ import annotations

from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from lazypipe.errors import DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.sources import checked_dtype, checked_shape, one_line
from lazypipe.stores import AnyPath, path_of


def open_source(path: AnyPath, column: str | None) -> RawRowsMatrix:
    """Open a 2-D ``.npy`` file; either order of axes, either byte order.

    Raises DataError for a damaged or truncated file, another number of dimensions, or a dtype that
    a matrix cannot have.
    """
    uri = str(path)
    if column is not None:
        raise DataError(f"{uri}: a .npy file has no named columns. Leave out column={column!r}.")
    shape, fortran, stored, offset, size = header(path)
    dtype = checked_dtype(stored, uri)
    n_rows, n_columns = checked_shape(shape, uri)
    require_whole(uri, size, offset + n_rows * n_columns * dtype.itemsize)
    segment = Segment(uri, offset, n_columns if fortran else n_rows)
    return RawRowsMatrix(uri, (n_rows, n_columns), stored.str, (segment,), transposed=fortran)


def open_vector(source: str | AnyPath) -> RawRowsMatrix | None:
    """A 1-D ``.npy`` file (n,) as a matrix of one column (n, 1); None for all that is not such a file."""
    path = path_of(source)
    if path.suffix.lower() != ".npy" or not path.is_file():
        return None
    shape, _, stored, offset, size = header(path)
    if len(shape) != 1:
        return None
    uri = str(path)
    dtype = checked_dtype(stored, uri)
    n_rows, _ = checked_shape((*shape, 1), uri)
    require_whole(uri, size, offset + n_rows * dtype.itemsize)
    return RawRowsMatrix(uri, (n_rows, 1), stored.str, (Segment(uri, offset, n_rows),))


def require_whole(uri: str, size: int, expected: int) -> None:
    """DataError where a file of ``size`` bytes is shorter than its header says."""
    if size < expected:
        raise DataError(f"{uri}: is truncated: {size:,} bytes, its header says {expected:,}. Write or copy it again.")


def header(path: AnyPath) -> tuple[tuple[int, ...], bool, np.dtype, int, int]:
    """(shape, Fortran order, dtype, offset of the data, size of the file); DataError for a damaged header."""
    try:
        with path.open("rb") as file:
            return (*read_header(file), file.tell(), file.seek(0, 2))
    except DAMAGED as error:
        raise DataError(f"{path}: is not a readable .npy file ({one_line(error)}). Write it again.") from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of an open ``.npy``, which then stands where its data begin.

    Raises what NumPy raises of a damaged one, and ValueError for a version that is for structured records.
    """
    version = npy_format.read_magic(file)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(file)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format, which is for structured records")
