"""Sparse rows in an Arrow IPC file: list columns ``indices`` and ``values``.

Uncompressed record batches are read in place through raw_csr; others are decoded one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lazypipe.io.arrow_layout import batches_of, columns_of
from lazypipe.io.csr import ROW_NBYTES, EntryCounter, RowsReader, checked_sparse_shape
from lazypipe.io.csr_tables import (
    COLUMNS,
    Group,
    GroupedCsrMatrix,
    GroupedEntries,
    count_rows,
    stated_columns,
    stored_dtypes,
)
from lazypipe.io.ipc_file import ipc_file, record_batch
from lazypipe.io.raw_csr import CsrSegment, RawCsrMatrix, Stretch, count_entries, largest_index
from lazypipe.io.tables import Array
from lazypipe.stores import RANGES_NBYTES, Place, is_remote, path_of


@dataclass(frozen=True)
class ArrowCsrMatrix(GroupedCsrMatrix):
    """Sparse rows of an Arrow IPC file whose record batches are compressed, or hold nulls or bits.

    ``fields`` are the numbers of the two columns: no others are read.
    """

    fields: tuple[int, ...]

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader for one thread; it keeps one decoded record batch, whatever ``mapped``."""
        with ipc_file(self.uri, self.fields) as file:
            entries = GroupedEntries(self, lambda group: record_batch(file, group.number, self.uri))
            yield RowsReader(self, entries.read)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """A decoded record batch, as much again while it is decompressed, and 48 bytes a row of the block."""
        return 2 * self.group_nbytes + ROW_NBYTES * n_rows + (RANGES_NBYTES if is_remote(self.uri) else 0)


def open_source(uri: str, schema: pa.Schema) -> RawCsrMatrix | ArrowCsrMatrix:
    """Open the file at ``uri``, whose ``schema`` is that of sparse rows.

    Reads where the rows end (4 or 8 bytes a row); where ``n_columns`` is not in the metadata, also all
    indices; and of a compressed file all indices in any case. Raises DataError for damaged files, and
    dtypes that a matrix cannot have.
    """
    indices, values = stored_dtypes(schema, uri)
    n_columns = stated_columns(schema.metadata, uri)
    path = path_of(uri)
    segments = _stored(path, schema, values) if isinstance(path, Place) else _segments(uri, values)
    if segments is not None:
        counter = count_entries(segments, uri)
        n_columns = largest_index(segments) + 1 if n_columns is None else n_columns
        shape = checked_sparse_shape(counter.n_rows, n_columns, uri)
        return RawCsrMatrix(uri, shape, values.str, indices.str, counter.counts(), segments)
    fields = tuple(schema.names.index(name) for name in COLUMNS)
    counter, found, groups = EntryCounter(), 0, []
    with ipc_file(uri, fields[:1]) as file:
        for number in range(file.num_record_batches):
            row, nnz = counter.n_rows, counter.nnz
            batch = record_batch(file, number, uri)
            found = max(found, count_rows(batch.column(0), counter, n_columns))
            if batch.num_rows:
                groups.append(Group(uri, number, row, batch.num_rows, counter.nnz - nnz))
    shape = checked_sparse_shape(counter.n_rows, found if n_columns is None else n_columns, uri)
    return ArrowCsrMatrix(uri, shape, values.str, indices.str, counter.counts(), tuple(groups), fields)


def _segments(uri: str, values: np.dtype) -> tuple[CsrSegment, ...] | None:
    """Where the rows lie in the file; None if it is compressed, or has nulls, or values packed in bits."""
    if values == np.bool_:
        return None
    segments: list[CsrSegment] = []
    # Mapped, so that only the metadata are read, and addresses tell where in the file the numbers lie.
    with pa.memory_map(uri, "r") as source:
        base, size = source.read_buffer(1).address, source.size()
        source.seek(0)
        with pa.ipc.open_file(source) as mapped:
            for number in range(mapped.num_record_batches):
                batch = record_batch(mapped, number, uri)
                if batch.num_rows == 0:
                    continue
                found: list[Stretch] = []
                for name in COLUMNS:
                    column = batch.column(name)
                    # A null has no place among raw numbers: the decoding reader names its row.
                    if column.null_count or column.values.null_count:
                        return None
                    for numbers in (column.offsets, column.values):
                        stretch = _stretch(numbers, base, size)
                        if stretch is None:
                            return None
                        found.append(stretch)
                ends, indices, value_ends, entries = found
                segments.append(CsrSegment(uri, batch.num_rows, ends, indices, value_ends, entries))
                del batch, column, numbers
    return tuple(segments)


def _stored(place: Place, schema: pa.Schema, values: np.dtype) -> tuple[CsrSegment, ...] | None:
    """The same of an object of a store, from the heads of its record batches."""
    columns = columns_of(schema)
    if columns is None or values == np.bool_:
        return None
    segments: list[CsrSegment] = []
    for batch in batches_of(place):
        if batch.n_rows == 0:
            continue
        if batch.compressed:
            return None
        found: list[Stretch] = []
        for name in COLUMNS:
            field = schema.names.index(name)
            kind = schema.types[field]
            nodes = batch.nodes[columns.nodes[field] :][:2]
            _, ends, _, numbers = batch.buffers["first"][columns.buffers[field] :][:4].tolist()
            if nodes["second"].any():
                return None
            dtype = np.dtype(kind.value_type.to_pandas_dtype())
            found.append(Stretch(ends, "<i8" if pa.types.is_large_list(kind) else "<i4", batch.n_rows + 1))
            found.append(Stretch(numbers, dtype.str, int(nodes["first"][1])))
        first, indices, value_ends, entries = found
        segments.append(CsrSegment(str(place), batch.n_rows, first, indices, value_ends, entries))
    return tuple(segments)


def _stretch(numbers: Array, base: int, size: int) -> Stretch | None:
    """Where ``numbers`` lie in the file mapped at ``base``; None if they were decompressed into memory."""
    dtype = np.dtype(numbers.type.to_pandas_dtype())
    if not len(numbers):
        return Stretch(0, dtype.str, 0)
    offset = numbers.buffers()[1].address - base + numbers.offset * dtype.itemsize
    inside = 0 <= offset <= size - len(numbers) * dtype.itemsize
    return Stretch(offset, dtype.str, len(numbers)) if inside else None
