"""Recordings in NumPy's .npy files: (n,), (n, channels), or a movie (n, height, width)."""

from __future__ import annotations

from lazypipe.errors import DataError
from lazypipe.io.npy import header, require_whole
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import flat_shape, frame_shape, sample_dtype
from lazypipe.stores import AnyPath


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open a ``.npy`` file; it tells no rate. DataError for a damaged file, or a movie in Fortran order."""
    uri = str(path)
    options.refuse(uri, "a .npy file", "column", "offset_bytes")
    shape, fortran, stored, offset, size = header(path)
    dtype = sample_dtype(stored, uri)
    n_rows, n_columns = flat_shape(shape, uri)
    if fortran and len(shape) == 3:
        raise DataError(
            f"{uri}: is in Fortran order, in which each frame is scattered over the file. "
            f"Save it again with numpy.ascontiguousarray."
        )
    require_whole(uri, size, offset + n_rows * n_columns * dtype.itemsize)
    transposed = fortran and len(shape) == 2
    segment = Segment(uri, offset, n_columns if transposed else n_rows)
    matrix = RawRowsMatrix(uri, (n_rows, n_columns), stored.str, (segment,), transposed)
    return Recording(matrix, sample_shape=frame_shape(shape))
