"""Arrow IPC files (.arrow, Feather v2): one list column of features, or one numeric column a feature.

An uncompressed fixed-size list, or a single numeric column without nulls, lies in the file as contiguous
rows, one segment a record batch, and is read like .npy through raw_rows. Everything else is decoded record
batch by record batch. Sparse rows, two list columns ``indices`` and ``values``, are arrow_csr's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lazypipe.blocks import Span
from lazypipe.io import arrow_csr
from lazypipe.io.csr_tables import is_csr
from lazypipe.io.ipc_file import ipc_file, record_batch
from lazypipe.io.matrix import Dense, Matrix, Piece, Unmapped
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.sources import checked_rectangle, checked_shape, fingerprint_files
from lazypipe.io.tables import Layout, choose_layout, fill, list_values


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
        """Two decoded record batches: the kept one, and that which takes its place."""
        return 2 * self.batch_nbytes

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
        first = int(np.searchsorted(source.edges, rows.start, side="right")) - 1
        for index in range(first, len(source.edges) - 1):
            base, end = source.edges[index], source.edges[index + 1]
            if base >= rows.stop:
                return
            start, stop = max(rows.start, base), min(rows.stop, end)
            if start >= stop:
                continue
            target = out[start - rows.start : stop - rows.start]
            part = self._batch(index).slice(start - base, stop - start)
            fill(part, source.layout, columns, target, source.uri, start)

    def _batch(self, index: int) -> pa.RecordBatch:
        if self._held is None or self._held[0] != index:
            self._held = None
            self._held = (index, record_batch(self._file, index, self._source.uri))
        return self._held[1]


def open_source(path: Path, column: str | None) -> Matrix:
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
        n_fields = len(file.schema.names)
    edges, largest = [0], 0
    is_raw = layout.is_fixed_list or (not layout.is_list and layout.n_columns == 1)
    segments: list[Segment] | None = [] if is_raw else None
    # Mapped, so that only the metadata are read, and addresses tell where in the file the values lie.
    # A choice of fields makes Arrow copy them, so it is made only where the addresses do not matter.
    options = pa.ipc.IpcReadOptions(included_fields=[] if is_raw else [fields[0]])
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
                largest = max(largest, batch.num_rows)
                del batch
    shape = checked_shape((edges[-1], layout.n_columns), uri)
    if segments is not None:
        return RawRowsMatrix(uri, shape, layout.dtype.str, tuple(segments))
    batch_nbytes = largest * (shape[1] * layout.dtype.itemsize + 8)
    return ArrowMatrix(uri, shape, layout, tuple(edges), batch_nbytes, fields if len(fields) < n_fields else ())


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
