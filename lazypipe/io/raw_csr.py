"""Sparse rows stored uncompressed at known offsets of files (Arrow IPC, .npz): the fast reader of both.

Where the rows end is read first, then indices and values straight into the arrays of the block, with
``preadv``: nothing is mapped, and nothing but the rows asked for is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.csr import (
    ROW_NBYTES,
    Entries,
    EntryCounter,
    RowsReader,
    SparseRows,
    cast_indices,
    check_equal_lengths,
    checked_ends,
    index_dtype,
)
from lazypipe.io.matrix import Piece
from lazypipe.io.sources import fingerprint_files, one_line, touched
from lazypipe.sizes import MIB
from lazypipe.stores import RANGES_NBYTES, Place, RemoteFile, is_remote, path_of

SCRATCH_NBYTES = MIB  # stays in the caches while it is cast
ROWS_AT_ONCE = 256 * 1024  # whose ends are read together when a source is opened


class Stretch(NamedTuple):
    """``n`` numbers of dtype ``stored`` ("<i4"), back to back from byte ``offset`` of a file."""

    offset: int
    stored: str
    n: int


class CsrSegment(NamedTuple):
    """``n_rows`` rows of file ``path``. Arrow stores the ends of both lists, scipy those of the rows, once."""

    path: str
    n_rows: int
    ends: Stretch  # (n_rows + 1) of the indices
    indices: Stretch
    value_ends: Stretch | None  # (n_rows + 1) of the values, where they are stored apart
    values: Stretch


@dataclass(frozen=True)
class RawCsrMatrix(SparseRows):
    """Sparse rows that lie uncompressed in files, as ``segments`` in row order. Pickles to its segments alone."""

    segments: tuple[CsrSegment, ...]

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader for one thread; nothing is mapped, whatever ``mapped``."""
        with _files() as files:
            yield RowsReader(self, RawEntries(self, files).read)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Where the rows end, as stored and as lengths (48 bytes a row), and 4 MiB to cast and to check in.

        From a store what is on its way, too.
        """
        remote = any(is_remote(path) for path in dict.fromkeys(segment.path for segment in self.segments))
        ends = ROW_NBYTES * (n_rows + 2 * len(self.segments))
        return ends + 4 * SCRATCH_NBYTES + (RANGES_NBYTES if remote else 0)

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a segment."""
        edges = np.cumsum([0] + [segment.n_rows for segment in self.segments]).tolist()
        return tuple(Piece(s.path, Span(a, b)) for s, a, b in zip(self.segments, edges, edges[1:], strict=False))

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each file."""
        return fingerprint_files(dict.fromkeys(s.path for s in self.segments), self.shape, self.dtype)


class RawEntries:
    """Reads the entries of any rows of a RawCsrMatrix."""

    def __init__(self, source: RawCsrMatrix, files: Files):
        self._source = source
        self._files = files
        self._edges = np.cumsum([0] + [segment.n_rows for segment in source.segments])

    def read(self, rows: Span, dtype: np.dtype) -> Entries:
        """The entries of ``rows`` as stored, values cast to ``dtype``.

        Raises DataError where a row has not as many indices as values, or lies outside of its file.
        """
        uri, files = self._source.uri, self._files
        parts: list[tuple[CsrSegment, int, int, np.ndarray]] = []
        for number, part, row in touched(rows, self._edges):
            segment = self._source.segments[number]
            ends = files.numbers(segment.path, segment.ends, part.start, part.stop + 1)
            lengths = checked_ends(ends, segment.indices.n, uri, row)
            first_value = int(ends[0])
            if segment.value_ends is not None:
                value_ends = files.numbers(segment.path, segment.value_ends, part.start, part.stop + 1)
                first_value = int(value_ends[0])
                check_equal_lengths(lengths, checked_ends(value_ends, segment.values.n, uri, row), uri, row)
            parts.append((segment, int(ends[0]), first_value, lengths))
        n_entries = sum(int(lengths.sum(dtype=np.int64)) for *_, lengths in parts)
        index = index_dtype(self._source.shape[1], n_entries)
        ends = np.zeros(len(rows) + 1, index)
        indices, values = np.empty(n_entries, index), np.empty(n_entries, dtype)
        row = at = 0
        for segment, first_index, first_value, lengths in parts:
            np.cumsum(lengths, out=ends[row + 1 : row + 1 + len(lengths)])
            ends[row + 1 : row + 1 + len(lengths)] += at
            row += len(lengths)
            stop = int(ends[row])
            files.fill(segment.path, segment.indices, first_index, indices[at:stop], is_index=True)
            files.fill(segment.path, segment.values, first_value, values[at:stop])
            at = stop
        return Entries(ends, indices, values)


class Files:
    """Files open for reading at any offset, each once."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._remote: dict[str, RemoteFile] = {}

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def numbers(self, path: str, stretch: Stretch, start: int, stop: int) -> np.ndarray:
        """Numbers ``start:stop`` of ``stretch``, in native byte order."""
        stored = np.empty(stop - start, stretch.stored)
        self._read(path, stretch.offset + start * stored.itemsize, stored)
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)

    def fill(self, path: str, stretch: Stretch, start: int, out: np.ndarray, is_index: bool = False) -> None:
        """Fill ``out`` (n,) with numbers ``start:start + n``, cast to its dtype."""
        stored = np.dtype(stretch.stored)
        offset = stretch.offset + start * stored.itemsize
        if stored == out.dtype:
            self._read(path, offset, out)
            return
        step = SCRATCH_NBYTES // stored.itemsize
        scratch = np.empty(min(step, len(out)), stored)
        for at in range(0, len(out), step):
            part = scratch[: min(step, len(out) - at)]
            self._read(path, offset + at * stored.itemsize, part)
            if is_index:
                cast_indices(part, out[at : at + len(part)])
            else:
                np.copyto(out[at : at + len(part)], part, casting="unsafe")

    def _read(self, path: str, offset: int, out: np.ndarray) -> None:
        """Fill the bytes of ``out``; the kernel gives at most 2 GiB a call."""
        raw = out.view(np.uint8)
        if is_remote(path):
            self._remote_file(path).read(offset, raw)
            return
        done = 0
        while done < raw.nbytes:
            n = os.preadv(self._descriptor(path), [raw[done:].data], offset + done)
            if n == 0:
                raise DataError(f"{path}: has become shorter since it was opened. Open the matrix again.")
            done += n

    def _remote_file(self, path: str) -> RemoteFile:
        if path not in self._remote:
            place = path_of(path)
            assert isinstance(place, Place)
            self._remote[path] = RemoteFile(place)
        return self._remote[path]

    def _descriptor(self, path: str) -> int:
        if path not in self._descriptors:
            try:
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DataError(f"{path}: cannot be opened ({one_line(error)}). Check path and rights.") from error
        return self._descriptors[path]


@contextmanager
def _files() -> Iterator[Files]:
    files = Files()
    try:
        yield files
    finally:
        files.close()


def count_entries(segments: tuple[CsrSegment, ...], uri: str) -> EntryCounter:
    """The entries of all rows, from where they end: one read of 4 or 8 bytes a row, 256 Ki rows at a time."""
    counter = EntryCounter()
    with _files() as files:
        for segment in segments:
            for start in range(0, segment.n_rows, ROWS_AT_ONCE):
                stop = min(start + ROWS_AT_ONCE, segment.n_rows)
                ends = files.numbers(segment.path, segment.ends, start, stop + 1)
                counter.add(checked_ends(ends, segment.indices.n, uri, counter.n_rows))
    return counter


def largest_index(segments: tuple[CsrSegment, ...]) -> int:
    """The largest index; -1 where there are no entries. One read of all indices, 1 MiB at a time."""
    largest = -1
    with _files() as files:
        for segment in segments:
            step = SCRATCH_NBYTES // np.dtype(segment.indices.stored).itemsize
            for start in range(0, segment.indices.n, step):
                stop = min(start + step, segment.indices.n)
                largest = max(largest, int(files.numbers(segment.path, segment.indices, start, stop).max()))
    return largest
