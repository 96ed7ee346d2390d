"""Arrow IPC files: opening them, and reading their record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.stores import Place, path_of


def record_batch(file: pa.RecordBatchFileReader, index: int, uri: str) -> pa.RecordBatch:
    """Record batch ``index``; DataError where it is damaged."""
    try:
        return file.get_batch(index)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{uri}: record batch {index} cannot be read ({one_line(error)}). Write or copy it again."
        ) from error


def seekable(uri: str) -> pa.NativeFile:
    """A file, or an object of a store, as Arrow reads it; nothing of it is mapped."""
    path = path_of(uri)
    if not isinstance(path, Place):
        return pa.OSFile(uri, "rb")
    from lazypipe.stores.file import RangedFile

    return pa.PythonFile(RangedFile(path), "r")


@contextmanager
def ipc_file(uri: str, fields: tuple[int, ...] = ()) -> Iterator[pa.RecordBatchFileReader]:
    """The open file, read through ``pread`` so that no page of it stays mapped; only ``fields``, by number, if any.

    Raises DataError for the stream format, version 1 of Feather, and damaged files.
    """
    try:
        with path_of(uri).open("rb") as start:
            magic = start.read(6)
    except OSError as error:
        raise DataError(f"{uri}: cannot be read ({one_line(error)}). Check its rights.") from error
    if magic[:4] == b"FEA1":
        raise DataError(f"{uri}: is Feather version 1. Write it again with pyarrow.feather, version 2.")
    if magic != b"ARROW1":
        raise _not_a_file(uri)
    try:
        source = seekable(uri)
    except OSError as error:
        raise DataError(f"{uri}: cannot be read ({one_line(error)}). Check its rights.") from error
    with source:
        try:
            file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=list(fields)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{uri}: is a damaged or truncated Arrow file ({one_line(error)}). Write or copy it again."
            ) from error
        with file:
            yield file


def _not_a_file(uri: str) -> DataError:
    try:
        with seekable(uri) as source, pa.ipc.open_stream(source):
            pass
    except (pa.ArrowException, OSError, ValueError) as error:
        return DataError(f"{uri}: is not an Arrow IPC file ({one_line(error)}). Check what wrote it.")
    return DataError(
        f"{uri}: is in Arrow's stream format, which cannot be read from the middle. "
        f"Write it in the file format, with pyarrow.ipc.new_file."
    )
