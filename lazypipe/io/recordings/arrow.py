"""Recordings in Arrow IPC files: a list column of samples, or one numeric column a channel."""

from __future__ import annotations

from lazypipe.errors import DataError
from lazypipe.io import arrow
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.recording import Recording
from lazypipe.stores import AnyPath


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open an Arrow IPC file; it tells no rate. DataError as ``open_matrix`` raises it, and for sparse rows."""
    options.refuse(str(path), "an Arrow file", "offset_bytes")
    matrix = arrow.open_source(path, options.column)
    if matrix.sparse:
        raise DataError(f"{path}: holds sparse rows. A recording is dense: convert it.")
    return Recording(matrix)
