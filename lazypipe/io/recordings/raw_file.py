"""Raw binary files as matrices: all bytes after a header are whole samples, or the file is refused."""

from __future__ import annotations

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath


def raw_matrix(path: AnyPath, n_columns: int, dtype: np.dtype, offset_bytes: int = 0) -> RawRowsMatrix:
    """All of the file after ``offset_bytes`` as rows (n_samples, n_columns); DataError unless they are whole."""
    try:
        with path.open("rb") as file:
            n_bytes = file.seek(0, 2) - offset_bytes
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check path and rights.") from error
    after = f" after offset_bytes={offset_bytes}" if offset_bytes else ""
    if n_bytes <= 0:
        raise DataError(f"{path}: is empty: no samples{after}. Check what wrote it.")
    n_rows, rest = divmod(n_bytes, n_columns * dtype.itemsize)
    if rest:
        raise DataError(
            f"{path}: its {n_bytes:,} bytes{after} are no whole number of samples: {n_columns} channels of "
            f"{dtype.name} take {n_columns * dtype.itemsize:,} bytes, {rest:,} are left over. "
            f"Check n_channels and dtype, or copy the file again."
        )
    return RawRowsMatrix(str(path), (n_rows, n_columns), dtype.str, (Segment(str(path), offset_bytes, n_rows),))
