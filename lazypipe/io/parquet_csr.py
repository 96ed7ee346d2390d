"""Sparse rows in Parquet: a file or a directory of parts with list columns ``indices`` and ``values``.

Parquet has to be decoded: its indices once when it is opened, all of it at each pass. Convert it to .arrow
before reading it many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lazypipe.errors import DataError
from lazypipe.io.csr import ROW_NBYTES, EntryCounter, RowsReader, checked_sparse_shape
from lazypipe.io.csr_tables import (
    COLUMNS,
    Group,
    GroupedCsrMatrix,
    GroupedEntries,
    count_rows,
    is_csr,
    stated_columns,
    stored_dtypes,
)
from lazypipe.io.parquet_file import damaged, parquet_file
from lazypipe.stores import RANGES_NBYTES, AnyPath, is_remote

COUNTED_AT_ONCE = 1_000_000  # indices decoded together when a file is opened


@dataclass(frozen=True)
class ParquetCsrMatrix(GroupedCsrMatrix):
    """Sparse rows of Parquet files, decoded a row group at a time."""

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader for one thread; it keeps one decoded row group, whatever ``mapped``."""
        with ExitStack() as files:
            yield RowsReader(self, GroupedEntries(self, RowGroups(files).decode).read)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Three times the largest decoded row group, its pages and its table, and 48 bytes a row of the block."""
        return 3 * self.group_nbytes + ROW_NBYTES * n_rows + (RANGES_NBYTES if is_remote(self.uri) else 0)


class RowGroups:
    """Decodes row groups; keeps the last file open."""

    def __init__(self, files: ExitStack):
        self._files = files
        self._open: tuple[str, pq.ParquetFile] | None = None

    def decode(self, group: Group) -> pa.Table:
        if self._open is None or self._open[0] != group.path:
            self._files.close()
            self._open = (group.path, self._files.enter_context(parquet_file(group.path)))
        try:
            return self._open[1].read_row_group(group.number, columns=list(COLUMNS), use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(group.path, error) from error


def open_source(uri: str, parts: list[AnyPath]) -> ParquetCsrMatrix:
    """Open the files ``parts``, whose rows follow one another; ``uri`` names them all.

    Decodes all indices once, about a million at a time, to count the entries of the rows. Raises DataError
    for damaged files, parts of different types or numbers of columns, and dtypes that a matrix cannot have.
    """
    dtypes: tuple[np.dtype, np.dtype] | None = None
    stated: int | None = None
    counter, found = EntryCounter(), 0
    groups: list[Group] = []
    for part in parts:
        with parquet_file(str(part)) as file:
            schema = file.schema_arrow
            if not is_csr(schema) or stored_dtypes(schema, str(part)) != (dtypes or stored_dtypes(schema, str(part))):
                raise DataError(
                    f"{part}: its columns or types differ from those of {parts[0].name}. "
                    f"Write all parts with one schema."
                )
            dtypes = stored_dtypes(schema, str(part))
            said = stated_columns(file.metadata.metadata or schema.metadata, str(part))
            if None not in (said, stated) and said != stated:
                raise DataError(
                    f"{part}: its metadata say {said:,} columns, those of another part {stated:,}. "
                    f"Write all parts with one n_columns."
                )
            stated = stated if said is None else said
            for index in range(file.metadata.num_row_groups):
                row, nnz = counter.n_rows, counter.nnz
                for indices in _batches(file, index, str(part)):
                    found = max(found, count_rows(indices, counter, said))
                if counter.n_rows > row:
                    groups.append(Group(str(part), index, row, counter.n_rows - row, counter.nnz - nnz))
    assert dtypes is not None  # there is a part
    shape = checked_sparse_shape(counter.n_rows, found if stated is None else stated, uri)
    indices_dtype, values_dtype = dtypes
    return ParquetCsrMatrix(uri, shape, values_dtype.str, indices_dtype.str, counter.counts(), tuple(groups))


def _batches(file: pq.ParquetFile, index: int, uri: str) -> Iterator[pa.ListArray]:
    """The indices of a row group, a part at a time."""
    group = file.metadata.row_group(index)
    leaf = next(i for i in range(group.num_columns) if group.column(i).path_in_schema.startswith("indices."))
    n_rows = max(1, group.num_rows * COUNTED_AT_ONCE // max(1, group.column(leaf).num_values))
    try:
        for batch in file.iter_batches(n_rows, row_groups=[index], columns=["indices"], use_threads=False):
            yield batch.column(0)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(uri, error) from error
