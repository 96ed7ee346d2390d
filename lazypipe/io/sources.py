"""What every matrix source shares: checks on shape and dtype, parts that rows touch, the fingerprint of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError
from lazypipe.stores import AnyPath, path_of

NO_OBJECT = "no such object or bucket. Check the address"


def one_line(error: BaseException) -> str:
    """The message of a third-party error on a single line, without its final full stop."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def require_there(path: AnyPath) -> None:
    """DataError for a path that leads nowhere, or to what may not be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "no such file or directory. Check the path" if isinstance(path, Path) else NO_OBJECT
        raise DataError(f"{path}: {what}.") from error
    except DataError:  # a ValueError, too
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check path and rights.") from error
    if isinstance(path, Path) and not os.access(path, os.R_OK):
        raise DataError(f"{path}: cannot be read: no right to. Change its rights, or pass another.")


def checked_dtype(dtype: np.dtype, uri: str) -> np.dtype:
    """``dtype`` in native byte order; DataError if a matrix cannot have it."""
    if dtype.fields is not None or dtype.subdtype is not None:
        found = "structured records"
    elif dtype.kind in "OSUV":
        found = f"text or objects (dtype {dtype.name})"
    elif dtype.name not in SUPPORTED_DTYPES:
        found = f"dtype {dtype.name}"
    else:
        return dtype.newbyteorder("=")
    raise DataError(f"{uri}: holds {found}. Convert it to one of {', '.join(SUPPORTED_DTYPES)}.")


def checked_shape(shape: Sequence[int], uri: str) -> tuple[int, int]:
    """``shape`` as (n_rows, n_columns); DataError if it is not that of a matrix with something in it."""
    if len(shape) == 1:
        raise DataError(
            f"{uri}: has 1 dimension {tuple(shape)}. Reshape it to (n_rows, n_columns), "
            f"for instance with array.reshape(1, -1) or array.reshape(-1, 1)."
        )
    if len(shape) != 2:
        raise DataError(f"{uri}: has {len(shape)} dimensions {tuple(shape)}. Reshape it to (n_rows, n_columns).")
    n_rows, n_columns = int(shape[0]), int(shape[1])
    if n_rows == 0 or n_columns == 0:
        what = "rows" if n_rows == 0 else "columns"
        raise DataError(f"{uri}: is empty: no {what}, shape ({n_rows}, {n_columns}). Check what wrote it.")
    return n_rows, n_columns


def checked_rectangle(rows: Span, columns: Span, shape: tuple[int, int], out: np.ndarray, uri: str) -> None:
    """DataError unless the rectangle lies in the matrix and ``out`` has its shape."""
    inside = 0 <= rows.start <= rows.stop <= shape[0] and 0 <= columns.start <= columns.stop <= shape[1]
    if not inside:
        raise DataError(
            f"{uri}: rows {rows.start}:{rows.stop}, columns {columns.start}:{columns.stop} are not all "
            f"inside its shape {shape}. Ask for a smaller rectangle."
        )
    if out.shape != (len(rows), len(columns)):
        raise DataError(
            f"{uri}: out has shape {out.shape}, the rectangle {(len(rows), len(columns))}. Make them equal."
        )


def checked_rows(rows: Span, shape: tuple[int, int], uri: str) -> None:
    """DataError unless all ``rows`` are in the matrix."""
    if not 0 <= rows.start <= rows.stop <= shape[0]:
        raise DataError(
            f"{uri}: rows {rows.start}:{rows.stop} are not all inside its shape {shape}. Ask for fewer rows."
        )


def touched(rows: Span, edges: Sequence[int] | np.ndarray) -> Iterator[tuple[int, Span, int]]:
    """Each part of a source that ``rows`` touch: its index, the rows within it, and the number of the first of them.

    Part ``i`` holds the rows ``edges[i]`` to ``edges[i + 1]``; it may be empty.
    """
    first = int(np.searchsorted(edges, rows.start, side="right")) - 1
    for index in range(max(first, 0), len(edges) - 1):
        base, end = int(edges[index]), int(edges[index + 1])
        if base >= rows.stop:
            return
        start, stop = max(rows.start, base), min(rows.stop, end)
        if start < stop:
            yield index, Span(start - base, stop - base), start


def fingerprint_files(paths: Iterable[str | AnyPath], shape: tuple[int, int], dtype: np.dtype) -> str:
    """A short hash of shape, dtype, and the absolute path, size and modification time (or ETag) of each file."""
    digest = hashlib.sha256(f"{shape} {np.dtype(dtype).str}".encode())
    for path in paths:
        absolute = path_of(path)
        try:
            stat = absolute.stat()
        except OSError as error:
            raise DataError(f"{absolute}: cannot be read any more ({one_line(error)}). Open it again.") from error
        digest.update(f"\n{absolute} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
