"""Sparse rows in tables (Arrow, Parquet): two list columns, ``indices`` and ``values``, a row a sample.

What both formats share: how such a table is recognised, and the reader of rows that have to be decoded
in groups (record batches, row groups), of which it keeps one. The number of columns is the schema
metadata ``n_columns``, a decimal number; without it, one more than the largest index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.csr import (
    Entries,
    EntryCounter,
    SparseRows,
    cast_indices,
    check_equal_lengths,
    index_dtype,
)
from lazypipe.io.matrix import Piece
from lazypipe.io.sources import fingerprint_files, touched
from lazypipe.io.tables import Array, chunks_of, feature_dtype, first_null, list_item

COLUMNS = ("indices", "values")


def is_csr(schema: pa.Schema) -> bool:
    """Whether the list columns of a table are exactly ``indices`` and ``values``, of any lengths."""
    lists = {field.name: item for field in schema if (item := list_item(field.type)) is not None}
    return set(lists) == set(COLUMNS) and all(width is None for _, width in lists.values())


def stored_dtypes(schema: pa.Schema, uri: str) -> tuple[np.dtype, np.dtype]:
    """The dtypes of the indices and of the values; DataError where a matrix cannot have them."""
    indices, values = (schema.field(name) for name in COLUMNS)
    if indices.type.value_type not in (pa.int32(), pa.int64()):
        raise DataError(f"{uri}: column 'indices' has type {indices.type}. Convert it to lists of int32 or of int64.")
    return np.dtype(indices.type.value_type.to_pandas_dtype()), feature_dtype(values.type.value_type, values, uri)


def stated_columns(metadata: dict[bytes, bytes] | None, uri: str) -> int | None:
    """``n_columns`` of a table's metadata, None where they do not say; DataError if that is no number."""
    text = (metadata or {}).get(b"n_columns")
    if text is None:
        return None
    if not text.isdigit():
        raise DataError(f"{uri}: its metadata say n_columns={text.decode(errors='replace')!r}. Write a whole number.")
    return int(text)


class Group(NamedTuple):
    """Rows decoded together: ``number`` of file ``path``, ``n_rows`` from ``row`` on with ``n_entries``."""

    path: str
    number: int
    row: int
    n_rows: int
    n_entries: int


@dataclass(frozen=True)
class GroupedCsrMatrix(SparseRows):
    """Sparse rows of a table, decoded a group at a time; ``groups`` in row order, none of them empty."""

    groups: tuple[Group, ...]

    @property
    def group_nbytes(self) -> int:
        """Bytes of the largest group decoded: its entries, and 16 a row for where its two lists end."""
        return max(group.n_entries * self.entry_nbytes + 16 * group.n_rows for group in self.groups)

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a group."""
        return tuple(Piece(g.path, Span(g.row, g.row + g.n_rows)) for g in self.groups)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each file."""
        return fingerprint_files(dict.fromkeys(g.path for g in self.groups), self.shape, self.dtype)


class GroupedEntries:
    """Reads the entries of any rows of a GroupedCsrMatrix; keeps the last group that ``decode`` gave."""

    def __init__(self, source: GroupedCsrMatrix, decode: Callable[[Group], pa.RecordBatch | pa.Table]):
        self._source = source
        self._decode = decode
        self._held: tuple[Group, pa.RecordBatch | pa.Table] | None = None
        self._edges = np.array([group.row for group in source.groups] + [source.shape[0]])

    def read(self, rows: Span, dtype: np.dtype) -> Entries:
        """The entries of ``rows`` as stored, values cast to ``dtype``.

        Raises DataError at a null, and where a row has not as many indices as values.
        """
        source = self._source
        parts = [(source.groups[number], part, start) for number, part, start in touched(rows, self._edges)]
        n_entries = min(source.counts.most(len(rows)), sum(group.n_entries for group, *_ in parts))
        index = index_dtype(source.shape[1], n_entries)
        ends = np.zeros(len(rows) + 1, index)
        indices, values = np.empty(n_entries, index), np.empty(n_entries, dtype)
        at = 0
        for group, part, start in parts:
            table = self._group(group).slice(part.start, len(part))
            chunks = {name: chunks_of(table.column(name)) for name in COLUMNS}
            lengths, n_values = (_lengths(chunks[name], source.uri, name, start) for name in COLUMNS)
            check_equal_lengths(lengths, n_values, source.uri, start)
            row = start - rows.start
            np.cumsum(lengths, out=ends[row + 1 : row + 1 + len(lengths)])
            ends[row + 1 : row + 1 + len(lengths)] += at
            end = at + int(lengths.sum(dtype=np.int64))
            if end > n_entries:
                raise DataError(f"{group.path}: has been changed since it was opened. Open the matrix again.")
            for name, out in zip(COLUMNS, (indices[at:end], values[at:end]), strict=True):
                _fill(chunks[name], out, source.uri, name, start)
            at = end
        # The room was for the fullest such rows; what they do not fill is given back, and was never touched.
        indices.resize(at, refcheck=False)
        values.resize(at, refcheck=False)
        return Entries(ends, indices, values)

    def _group(self, group: Group) -> pa.RecordBatch | pa.Table:
        if self._held is None or self._held[0] != group:
            self._held = None
            self._held = (group, self._decode(group))
        return self._held[1]


def count_rows(column: Array | pa.ChunkedArray, counter: EntryCounter, known: int | None) -> int:
    """Add the rows of a list column of indices to ``counter``; one more than the largest of them.

    Where the number of columns is ``known`` the indices themselves are not looked at, and it is returned.
    """
    n_columns = known or 0
    for chunk in chunks_of(column):
        counter.add(np.diff(chunk.offsets.to_numpy()))
        if known is None and len(chunk):
            largest = pc.max(_flat(chunk)).as_py()
            n_columns = max(n_columns, 0 if largest is None else largest + 1)
    return n_columns


def _lengths(chunks: list[Array], uri: str, name: str, row: int) -> np.ndarray:
    """Entries of each row's list; DataError at a row without one."""
    lengths = [np.zeros(0, np.int64)]
    for chunk in chunks:
        if chunk.null_count:
            raise DataError(
                f"{uri}: missing value (null) at row {row + first_null(chunk):,}, column {name!r}. "
                f"Write an empty list instead."
            )
        lengths.append(np.diff(chunk.offsets.to_numpy()))
        row += len(chunk)
    return np.concatenate(lengths)


def _fill(chunks: list[Array], out: np.ndarray, uri: str, name: str, row: int) -> None:
    """Fill ``out`` with the entries of a list column; DataError at the first null among them."""
    at = 0
    for chunk in chunks:
        flat = _flat(chunk)
        if flat.null_count:
            bad = first_null(flat)
            ends = chunk.offsets.to_numpy()
            local = int(np.searchsorted(ends - ends[0], bad, side="right")) - 1
            raise DataError(
                f"{uri}: missing value (null) at row {row + local:,}, entry {bad - int(ends[local] - ends[0]):,}, of "
                f"column {name!r}. Leave the entry out of both lists, or fill it."
            )
        stored = flat.to_numpy(zero_copy_only=False)
        target = out[at : at + len(stored)]
        if name == "indices":
            cast_indices(stored, target)
        else:
            np.copyto(target, stored, casting="unsafe")
        at += len(stored)
        row += len(chunk)


def _flat(chunk: Array) -> Array:
    """The entries of a chunk's lists, back to back."""
    ends = chunk.offsets
    if not len(chunk):
        return chunk.values.slice(0, 0)
    return chunk.values.slice(ends[0].as_py(), ends[-1].as_py() - ends[0].as_py())
