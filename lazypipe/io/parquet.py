"""Parquet: a file, or a directory of parts; a list column of features, or one column a feature.

Decoding is slow (0.6-1.1 GB/s): convert to .npy or .arrow before reading a matrix many times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import parquet_csr
from lazypipe.io.csr_tables import is_csr
from lazypipe.io.matrix import Dense, Matrix, Piece, Unmapped
from lazypipe.io.parquet_file import damaged, parquet_file, part_paths
from lazypipe.io.sources import checked_rectangle, checked_shape, fingerprint_files, touched
from lazypipe.io.tables import Layout, choose_layout, fill, list_values
from lazypipe.stores import RANGES_NBYTES, AnyPath, is_remote


@dataclass(frozen=True)
class RowGroup:
    """Row group ``index`` of file ``path``; its first row in the whole matrix is ``row``."""

    path: str
    index: int
    row: int
    n_rows: int


@dataclass(frozen=True)
class ParquetMatrix(Dense):
    """A Parquet table as a matrix, read a row group at a time.

    ``reads_columns`` where each feature is a column of its own, of which only those asked for are read.
    """

    uri: str
    shape: tuple[int, int]
    layout: Layout
    groups: tuple[RowGroup, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.layout.dtype

    @property
    def reads_columns(self) -> bool:
        return not self.layout.is_list

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[ParquetReader]:
        """A reader for one thread; it keeps one decoded row group, whatever ``mapped``."""
        with ExitStack() as files:
            yield ParquetReader(self, files)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Three times the largest decoded row group (the columns asked for): its pages and its table."""
        largest = max(group.n_rows for group in self.groups)
        n_columns = self.shape[1] if self.layout.is_list else n_columns
        return 3 * largest * n_columns * self.dtype.itemsize + (RANGES_NBYTES if is_remote(self.uri) else 0)

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a row group."""
        return tuple(Piece(g.path, Span(g.row, g.row + g.n_rows)) for g in self.groups)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each file."""
        return fingerprint_files(dict.fromkeys(g.path for g in self.groups), self.shape, self.dtype)


class ParquetReader(Unmapped):
    """Reads rectangles of a ParquetMatrix."""

    def __init__(self, source: ParquetMatrix, files: ExitStack):
        self._source = source
        self._files = files
        self._open: tuple[str, pq.ParquetFile] | None = None
        self._held: tuple[tuple[str, int, tuple[str, ...]], pa.Table] | None = None
        self._edges = np.array([group.row for group in source.groups] + [source.shape[0]])

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``.

        Raises DataError at a null, a list of another length, or a damaged page.
        """
        source = self._source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        if not out.size:
            return
        names = source.layout.names if source.layout.is_list else source.layout.names[columns.slice]
        for index, part, start in touched(rows, self._edges):
            table = self._table(source.groups[index], names).slice(part.start, len(part))
            fill(table, source.layout, columns, out[start - rows.start :][: len(part)], source.uri, start)

    def _table(self, group: RowGroup, names: tuple[str, ...]) -> pa.Table:
        key = (group.path, group.index, names)
        if self._held is None or self._held[0] != key:
            self._held = None
            if self._open is None or self._open[0] != group.path:
                self._files.close()
                self._open = (group.path, self._files.enter_context(parquet_file(group.path)))
            try:
                table = self._open[1].read_row_group(group.index, columns=list(names), use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(group.path, error) from error
            self._held = (key, table)
        return self._held[1]


def open_source(path: AnyPath, column: str | None) -> Matrix:
    """Open a ``.parquet`` file or a directory of them, whose parts are rows in the order of their names.

    Two list columns ``indices`` and ``values`` are sparse rows, which are parquet_csr's.

    Raises DataError for damaged files, parts of different schemas, and columns that are no features.
    """
    uri = str(path)
    parts = part_paths(path)
    layout: Layout | None = None
    groups: list[RowGroup] = []
    n_rows = 0
    for part in parts:
        with parquet_file(str(part)) as file:
            if column is None and layout is None and is_csr(file.schema_arrow):
                return parquet_csr.open_source(uri, parts)
            found = choose_layout(file.schema_arrow, column, str(part))
            if layout is None:
                layout = found
            elif _same_width(found, layout) != layout:
                raise DataError(
                    f"{part}: its columns or types differ from those of {parts[0].name}. "
                    f"Write all parts with one schema."
                )
            for index in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(index).num_rows
                if size and layout.width is None:
                    layout = layout.with_width(_first_width(file, index, layout, str(part)))
                if size:
                    groups.append(RowGroup(str(part), index, n_rows, size))
                n_rows += size
    assert layout is not None  # there is a part
    return ParquetMatrix(uri, checked_shape((n_rows, layout.n_columns), uri), layout, tuple(groups))


def _same_width(found: Layout, known: Layout) -> Layout:
    """``found`` with the width of ``known`` where its own is not known before its lists are read."""
    return found if found.width is not None or known.width is None else found.with_width(known.width)


def _first_width(file: pq.ParquetFile, index: int, layout: Layout, uri: str) -> int:
    try:
        batches = file.iter_batches(1, row_groups=[index], columns=list(layout.names), use_threads=False)
        batch = next(batches)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(uri, error) from error
    return len(list_values(batch.column(0), uri, layout.names[0], 0, None))
