"""Sparse rows (CSR): the bound on the entries of a block, the checks at each read, the assembled array.

What all sources of sparse rows share, whatever file they lie in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.sources import checked_rows, checked_shape

WINDOWS = (1, 16, 256, 4096, 65536)  # of rows, whose fullest are kept
CHECKED_AT_ONCE = 256 * 1024  # entries whose comparison stays in the caches
ROW_NBYTES = 48  # held for a row while it is read: its ends as stored, its lengths, and what checks them
INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class EntryCounts:
    """``nnz`` entries in all, at most ``largest[k]`` in any ``WINDOWS[k]`` rows that start at a multiple of it."""

    nnz: int
    largest: tuple[int, ...]

    def most(self, n_rows: int) -> int:
        """The most entries that ``n_rows`` neighbouring rows can hold: never too few, often a little too many."""
        if n_rows <= 0:
            return 0
        # Rows that start anywhere lie in one window more than rows that start with a window.
        touched = (-(-(n_rows - 1) // window) + 1 for window in WINDOWS)
        return min(self.nnz, *(n * largest for n, largest in zip(touched, self.largest, strict=True)))


class EntryCounter:
    """EntryCounts of rows whose lengths come in any number of parts."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.nnz = 0
        self._largest = [0] * len(WINDOWS)
        self._begun = [0] * len(WINDOWS)  # entries of the window that the last part has begun

    def add(self, lengths: np.ndarray) -> None:
        """Count the next rows, of ``lengths`` (n_rows,) entries each."""
        if not len(lengths):
            return
        for k, window in enumerate(WINDOWS):
            rest = -self.n_rows % window  # rows until the next window starts
            starts = np.arange(rest, len(lengths), window)
            if rest:
                starts = np.concatenate(([0], starts))
            sums = np.add.reduceat(lengths, starts, dtype=np.int64)
            if rest:
                sums[0] += self._begun[k]
            self._largest[k] = max(self._largest[k], int(sums.max()))
            self._begun[k] = int(sums[-1])
        self.n_rows += len(lengths)
        self.nnz += int(lengths.sum(dtype=np.int64))

    def counts(self) -> EntryCounts:
        return EntryCounts(self.nnz, tuple(self._largest))


class Entries(NamedTuple):
    """The entries of some rows: those of row ``i`` are at ``ends[i]:ends[i + 1]``; ``ends[0]`` is 0."""

    ends: np.ndarray  # (n_rows + 1,)
    indices: np.ndarray  # (n_entries,), the column of each
    values: np.ndarray  # (n_entries,)


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix stored by rows; a format adds where its rows lie.

    ``stored`` and ``stored_indices`` are the dtypes on disk with their byte order ("<f4"). Small and cheap
    to pickle: the counts bound the entries of any rows without their lengths being kept.
    """

    uri: str
    shape: tuple[int, int]
    stored: str
    stored_indices: str
    counts: EntryCounts

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored).newbyteorder("=")

    @property
    def nnz(self) -> int:
        """Stored entries, among them zeros that were stored."""
        return self.counts.nnz

    @property
    def nbytes(self) -> int:
        """Bytes of values, indices, and 8 a row: what one pass reads, where nothing is compressed."""
        return self.nnz * self.entry_nbytes + 8 * self.shape[0]

    @property
    def entry_nbytes(self) -> int:
        """Bytes of one entry on disk: its value and its index."""
        return self.dtype.itemsize + np.dtype(self.stored_indices).itemsize

    @property
    def sparse(self) -> bool:
        return True

    @property
    def reads_columns(self) -> bool:
        return False

    @property
    def panel_columns(self) -> int | None:
        return None

    @property
    def mapped_nbytes(self) -> int:
        return 0

    def open(self, mapped: bool = False) -> AbstractContextManager[Any]:
        """A SparseReader for one thread; typed Any, because the reader of a Matrix is of one kind or the other."""
        raise NotImplementedError

    def block_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """Bytes of any ``n_rows`` neighbouring rows as a csr_array with values of ``itemsize``, at most.

        ``n_columns`` makes no difference: rows are read whole.
        """
        n_entries = self.counts.most(n_rows)
        index = index_dtype(self.shape[1], n_entries).itemsize
        return n_entries * (itemsize + index) + (n_rows + 1) * index


class RowsReader:
    """The SparseReader of a source, from what reads the entries of some rows as they are stored."""

    def __init__(self, source: SparseRows, read_entries: Callable[[Span, np.dtype], Entries]):
        self._source = source
        self._read_entries = read_entries

    def read_rows(self, rows: Span, dtype: np.dtype) -> csr_array:
        """Those rows (len(rows), n_columns) in ``dtype``; fresh arrays, which the caller may change.

        Ask for float16 only to look at the arrays: scipy does not compute with it.

        Raises DataError, with row and entry, for an index out of range, indices that are not sorted or
        name a column twice, and for nulls. NaN is a value like another.
        """
        return self._assembled(self._entries(rows, dtype), rows)

    def read_sorted(self, rows: Span, dtype: np.dtype) -> csr_array:
        """As ``read_rows``, but unsorted rows are sorted, in 16 bytes an entry and a second block."""
        return self._assembled(sorted_rows(self._entries(rows, dtype)), rows)

    def _entries(self, rows: Span, dtype: np.dtype) -> Entries:
        checked_rows(rows, self._source.shape, self._source.uri)
        return self._read_entries(rows, np.dtype(dtype))

    def _assembled(self, entries: Entries, rows: Span) -> csr_array:
        ends, indices, values = entries
        n_columns = self._source.shape[1]
        check_indices(ends, indices, n_columns, self._source.uri, rows.start)
        array = csr_array((values, indices, ends), shape=(len(rows), n_columns))
        array.has_canonical_format = True  # checked above: scipy need not look again
        return array


def index_dtype(n_columns: int, n_entries: int) -> np.dtype:
    """The dtype that scipy gives to indices and ends of such rows; both have the same."""
    return np.dtype(np.int32 if max(n_columns, n_entries) <= INT32_MAX else np.int64)


def sorted_rows(entries: Entries) -> Entries:
    """The same entries, by rising index within each row; as they are where they rise already.

    Holds beside the two sets of entries 16 bytes an entry. Values are moved, never added up.
    """
    ends, indices, values = entries
    if len(indices) < 2:
        return entries
    starts = ends[1:-1][(ends[1:-1] > 0) & (ends[1:-1] < len(indices))]
    falls = indices[1:] < indices[:-1]
    falls[starts - 1] = False
    if not falls.any():
        return entries
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    order = np.lexsort((indices, rows))
    return Entries(ends, indices[order], values[order])


def cast_indices(stored: np.ndarray, out: np.ndarray) -> None:
    """Copy indices into ``out``; those that it cannot hold stay out of range, so that the check finds them."""
    if stored.dtype.itemsize > out.dtype.itemsize:
        limits = np.iinfo(out.dtype)
        np.clip(stored, limits.min, limits.max, out=out, casting="unsafe")
    else:
        np.copyto(out, stored)


def check_indices(ends: np.ndarray, indices: np.ndarray, n_columns: int, uri: str, row: int) -> None:
    """DataError at the first index outside ``0:n_columns``, or not above the one before it in its row.

    ``row`` is the number of the first row. Holds one byte for each of 256 Ki entries.
    """
    if not len(indices):
        return
    filled = ends[1:] > ends[:-1]
    firsts, lasts = ends[:-1][filled], ends[1:][filled] - 1
    for start in range(0, len(indices) - 1, CHECKED_AT_ONCE):
        stop = min(start + CHECKED_AT_ONCE, len(indices) - 1)
        rises = indices[start + 1 : stop + 1] > indices[start:stop]
        a, b = np.searchsorted(firsts, (start + 1, stop + 1))
        rises[firsts[a:b] - (start + 1)] = True  # the last of a row and the first of the next may be in any order
        if not rises.all():
            _refuse_range(ends, indices, n_columns, uri, row)
            raise _not_rising(ends, indices, start + 1 + int(np.argmin(rises)), uri, row)
    # In rising rows the first and the last index bound the others.
    if int(indices[firsts].min()) < 0 or int(indices[lasts].max()) >= n_columns:
        _refuse_range(ends, indices, n_columns, uri, row)


def _refuse_range(ends: np.ndarray, indices: np.ndarray, n_columns: int, uri: str, row: int) -> None:
    for start in range(0, len(indices), CHECKED_AT_ONCE):
        part = indices[start : start + CHECKED_AT_ONCE]
        outside = (part < 0) | (part >= n_columns)
        if outside.any():
            at = start + int(np.argmax(outside))
            raise DataError(
                f"{uri}: {place(ends, at, row)} has index {int(indices[at]):,}, outside the {n_columns:,} columns. "
                f"Indices count from 0: correct them, or the number of columns, where it was written."
            )


def _not_rising(ends: np.ndarray, indices: np.ndarray, at: int, uri: str, row: int) -> DataError:
    if indices[at] == indices[at - 1]:
        return DataError(
            f"{uri}: {place(ends, at, row)} has index {int(indices[at]):,} a second time. "
            f"Call sum_duplicates() of the scipy array and save it again."
        )
    return DataError(
        f"{uri}: {place(ends, at, row)} has index {int(indices[at]):,} after {int(indices[at - 1]):,}: not sorted. "
        f"Call sort_indices() of the scipy array and save it again, or convert it, which sorts."
    )


def place(ends: np.ndarray, at: int, row: int) -> str:
    """Where entry ``at`` of rows from ``row`` on is, in words."""
    local = int(np.searchsorted(ends, at, side="right")) - 1
    return f"row {row + local:,}, entry {at - int(ends[local]):,},"


def checked_ends(ends: np.ndarray, n_entries: int, uri: str, row: int) -> np.ndarray:
    """Lengths (n_rows,) of rows stored at ``ends[i]:ends[i + 1]`` of ``n_entries``; DataError if they are none."""
    lengths = np.diff(ends)
    bad = np.flatnonzero((lengths < 0) | (ends[:-1] < 0) | (ends[1:] > n_entries))
    if len(bad):
        i = int(bad[0])
        raise DataError(
            f"{uri}: row {row + i:,} is said to be entries {int(ends[i]):,}:{int(ends[i + 1]):,} of {n_entries:,}. "
            f"The file is damaged: write or copy it again."
        )
    return lengths


def check_equal_lengths(lengths: np.ndarray, n_values: np.ndarray, uri: str, row: int) -> None:
    """DataError at the first row that has not as many indices as values."""
    differs = np.flatnonzero(lengths != n_values)
    if len(differs):
        i = int(differs[0])
        first = min(int(lengths[i]), int(n_values[i]))
        raise DataError(
            f"{uri}: row {row + i:,} has {int(lengths[i]):,} indices and {int(n_values[i]):,} values: entry {first:,} "
            f"lacks one of them. Write both lists with one length."
        )


def checked_sparse_shape(n_rows: int, n_columns: int, uri: str) -> tuple[int, int]:
    """The shape; DataError where it has no rows, no columns, or more columns than an index can name."""
    if n_columns > np.iinfo(np.int64).max:
        raise DataError(f"{uri}: has {n_columns:,} columns, more than int64 can count. Check what wrote it.")
    return checked_shape((n_rows, max(0, n_columns)), uri)
