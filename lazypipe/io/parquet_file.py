"""Parquet files: opening them, and the error for a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line


def part_paths(path: Path) -> list[Path]:
    """``path``, or the parts in it where it is a directory, in the order of their names."""
    if not path.is_dir():
        return [path]
    parts = sorted(part for pattern in ("*.parquet", "*.pq") for part in path.glob(pattern))
    if not parts:
        raise DataError(f"{path}: is a directory without data. Put .parquet parts into it.")
    return parts


def damaged(uri: str, error: Exception) -> DataError:
    """What to raise for ``error`` of a file that is no good."""
    return DataError(f"{uri}: is a damaged Parquet file ({one_line(error)}). Write or copy it again.")


@contextmanager
def parquet_file(path: str) -> Iterator[pq.ParquetFile]:
    """The open file, neither mapped nor read ahead; DataError where it is damaged."""
    try:
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error
    with file:
        yield file
