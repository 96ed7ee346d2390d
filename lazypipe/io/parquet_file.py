"""Parquet files: opening them, and the error for a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from lazypipe.errors import DataError
from lazypipe.io.ipc_file import seekable
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath, Place, is_remote, stands


def part_paths(path: AnyPath) -> list[AnyPath]:
    """``path``, or the parts in it where it is a directory, in the order of their names."""
    if not path.is_dir():
        return [path]
    parts: list[AnyPath] = sorted(part for pattern in ("*.parquet", "*.pq") for part in path.glob(pattern))
    if isinstance(path, Place) and not stands(path):
        raise DataError(f"{path}: was not uploaded to its end. Write it again.")
    if not parts:
        raise DataError(f"{path}: is a directory without data. Put .parquet parts into it.")
    return parts


def damaged(uri: str, error: Exception) -> DataError:
    """What to raise for ``error`` of a file that is no good."""
    return DataError(f"{uri}: is a damaged Parquet file ({one_line(error)}). Write or copy it again.")


@contextmanager
def parquet_file(path: str) -> Iterator[pq.ParquetFile]:
    """The open file, neither mapped nor read ahead; DataError where it is damaged.

    From a store, the columns of a row group that lie together are read together.
    """
    remote = is_remote(path)
    try:
        file = pq.ParquetFile(seekable(path) if remote else path, memory_map=False, pre_buffer=remote)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error
    with file:
        yield file
