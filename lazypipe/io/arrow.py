"""Arrow IPC files (.arrow, Feather v2): one list column of features, or one numeric column a feature.

An uncompressed fixed-size list, or a single numeric column without nulls, lies in the file as contiguous
rows, one segment a record batch, and is read like .npy through raw_rows. Everything else is decoded record
batch by record batch. Sparse rows, two list columns ``indices`` and ``values``, are arrow_csr's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lazypipe.blocks import Span
from lazypipe.io import arrow_csr
from lazypipe.io.arrow_layout import batches_of, columns_of
from lazypipe.io.csr_tables import is_csr
from lazypipe.io.ipc_file import ipc_file, record_batch
from lazypipe.io.matrix import Dense, Matrix, Piece, Unmapped
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.sources import checked_rectangle, checked_shape, fingerprint_files, touched
from lazypipe.io.tables import Layout, choose_layout, fill, list_values
from lazypipe.stores import RANGES_NBYTES, AnyPath, Place, is_remote


@dataclass(frozen=True)
class ArrowMatrix(Dense):
    """A table in an Arrow IPC file, decoded a record batch at a time; ``edges`` are their first rows."""

    uri: str
    shape: tuple[int, int]
    layout: Layout
    edges: tuple[int, ...]
    batch_nbytes: int
    fields: tuple[int, ...] = ()  # the numbers of the columns to read, where the table has others too
    reads_columns: bool = False

    @property
    def dtype(self) -> np.dtype:
        return self.layout.dtype

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[ArrowReader]:
        """A reader for one thread; it keeps one decoded record batch, whatever ``mapped``."""
        with ipc_file(self.uri, self.fields) as file:
            yield ArrowReader(self, file)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Two decoded record batches: the kept one, and that which takes its place; from a store what is on its way."""
        return 2 * self.batch_nbytes + (RANGES_NBYTES if is_remote(self.uri) else 0)

    def pieces(self) -> tuple[Piece, ...]:
        """The one file."""
        return (Piece(self.uri, Span(0, self.shape[0])),)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of the file."""
        return fingerprint_files([self.uri], self.shape, self.dtype)


class ArrowReader(Unmapped):
    """Reads rectangles of an ArrowMatrix."""

    def __init__(self, source: ArrowMatrix, file: pa.RecordBatchFileReader):
        self._source = source
        self._file = file
        self._held: tuple[int, pa.RecordBatch] | None = None

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``. Raises DataError at a null."""
        source = self._source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        for index, part, start in touched(rows, source.edges):
            batch = self._batch(index).slice(part.start, len(part))
            fill(batch, source.layout, columns, out[start - rows.start :][: len(part)], source.uri, start)

    def _batch(self, index: int) -> pa.RecordBatch:
        if self._held is None or self._held[0] != index:
            self._held = None
            self._held = (index, record_batch(self._file, index, self._source.uri))
        return self._held[1]


def open_source(path: AnyPath, column: str | None) -> Matrix:
    """Open an Arrow IPC *file*; ``column`` chooses among several list columns.

    Raises DataError for the stream format, damaged files, nulls in a list column stored as plain rows,
    and tables with no suitable column.
    """
    uri = str(path)
    with ipc_file(uri) as file:
        if column is None and is_csr(file.schema):
            return arrow_csr.open_source(uri, file.schema)
        layout = choose_layout(file.schema, column, uri)
        fields = tuple(file.schema.names.index(name) for name in layout.names)
        schema = file.schema
    is_raw = layout.is_fixed_list or (not layout.is_list and layout.n_columns == 1)
    if isinstance(path, Place):
        edges, segments, layout = _stored(path, schema, layout, fields[0], is_raw)
    else:
        edges, segments, layout = _mapped(uri, layout, fields[0], is_raw)
    shape = checked_shape((edges[-1], layout.n_columns), uri)
    if segments is not None:
        return RawRowsMatrix(uri, shape, layout.dtype.str, tuple(segments))
    batch_nbytes = max(np.diff(edges).tolist()) * (shape[1] * layout.dtype.itemsize + 8)
    others = fields if len(fields) < len(schema.names) else ()
    return ArrowMatrix(uri, shape, layout, tuple(edges), batch_nbytes, others)


def _mapped(uri: str, layout: Layout, field: int, is_raw: bool) -> tuple[list[int], list[Segment] | None, Layout]:
    """The first row of each record batch, and the end; where the rows lie, if they do so raw; and the width."""
    edges = [0]
    segments: list[Segment] | None = [] if is_raw else None
    # Mapped, so that only the metadata are read, and addresses tell where in the file the values lie.
    # A choice of fields makes Arrow copy them, so it is made only where the addresses do not matter.
    options = pa.ipc.IpcReadOptions(included_fields=[] if is_raw else [field])
    with pa.memory_map(uri, "r") as source:
        base, size = source.read_buffer(1).address, source.size()
        source.seek(0)
        with pa.ipc.open_file(source, options=options) as mapped:
            for number in range(mapped.num_record_batches):
                batch = record_batch(mapped, number, uri)
                if layout.width is None and batch.num_rows:
                    values = list_values(batch.column(layout.names[0]), uri, layout.names[0], 0, None)
                    layout = layout.with_width(len(values) // batch.num_rows)
                if segments is not None:
                    found = _segment(batch, layout, uri, base, size, edges[-1])
                    segments = None if found is None else segments + found
                edges.append(edges[-1] + batch.num_rows)
                del batch
    return edges, segments, layout


def _stored(
    place: Place, schema: pa.Schema, layout: Layout, field: int, is_raw: bool
) -> tuple[list[int], list[Segment] | None, Layout]:
    """The same of an object of a store, of which the heads of the record batches are read, and nothing else."""
    columns, edges = columns_of(schema), [0]
    segments: list[Segment] | None = [] if is_raw and columns is not None and layout.dtype != np.bool_ else None
    for batch in batches_of(place):
        if layout.width is None and batch.n_rows:
            if columns is None:
                with ipc_file(str(place), (field,)) as file:
                    values = list_values(file.get_batch(len(edges) - 1).column(0), str(place), layout.names[0], 0, None)
                    n_values = len(values)
            else:
                n_values = int(batch.nodes["first"][columns.nodes[field] + 1])
            layout = layout.with_width(n_values // batch.n_rows)
        if segments is not None and batch.n_rows:
            assert columns is not None
            depth = int(layout.is_list)
            nodes = batch.nodes[columns.nodes[field] :][: 1 + depth]
            offset = int(batch.buffers["first"][columns.buffers[field] + 1 + depth])
            whole = not batch.compressed and not nodes["second"].any()
            segments = [*segments, Segment(str(place), offset, batch.n_rows)] if whole else None
        edges.append(edges[-1] + batch.n_rows)
    return edges, segments, layout


def _segment(
    batch: pa.RecordBatch, layout: Layout, uri: str, base: int, size: int, first_row: int
) -> list[Segment] | None:
    """Where the rows of ``batch`` lie in the file; None if they were decompressed into memory, or miss some."""
    if batch.num_rows == 0:
        return []
    if layout.dtype == np.bool_:  # Arrow packs them in bits
        return None
    values = batch.column(layout.names[0])
    if layout.is_list:
        values = list_values(values, uri, layout.names[0], first_row, layout.width)
    if values.null_count:  # of a plain column: told when it is read
        return None
    buffer = values.buffers()[1]
    offset = buffer.address - base + values.offset * layout.dtype.itemsize
    if not 0 <= offset <= size - len(values) * layout.dtype.itemsize:
        return None
    return [Segment(uri, offset, batch.num_rows)]
