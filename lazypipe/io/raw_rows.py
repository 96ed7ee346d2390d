"""Rows stored contiguously at known offsets of files (npy, Arrow IPC): the fast reader of both.

Whole rows are read with ``preadv`` straight into the block, and so are column stripes, a row at a time:
11 GB/s warm where a stripe holds 64 KiB of each row, 4 where it holds 8. Through a memory map stripes are
not read at all, but the kernel maps up to 2 MiB around each touch, and these pages count as resident
memory: so a file is mapped only where the plan has room for all of it.
"""

from __future__ import annotations

import mmap
import os
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.kept import Kept
from lazypipe.io.matrix import Dense, Piece
from lazypipe.io.sources import checked_rectangle, fingerprint_files, one_line, touched
from lazypipe.sizes import KIB, MIB
from lazypipe.stores import RANGES_NBYTES, Place, RemoteFile, is_remote, path_of

SCRATCH_NBYTES = 4 * MIB  # stays in the caches while it is cast
NARROW_ROW_NBYTES = 16 * KIB  # below this, reading whole rows costs less than a call for each


class Maps(Kept[mmap.mmap]):
    """Files mapped whole, shared by all readers of this process.

    The last one stays mapped for the next pass: faulting 4 GB in anew costs half a second of work.
    """

    def of(self, descriptor: int) -> mmap.mmap:
        """The map of an open file; closed once neither this nor a reader holds it."""
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return self.get(key, lambda: mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


MAPS = Maps()


class Scratch:
    """Bytes that are cast from, kept from one read to the next: fresh pages would cost as much as the copy."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, nbytes: int) -> np.ndarray:
        """The first ``nbytes`` bytes, in place of those given before."""
        if self._bytes.nbytes < nbytes:
            self._bytes = np.empty(0, np.uint8)  # let go before taking more
            self._bytes = np.empty(nbytes, np.uint8)
        return self._bytes[:nbytes]


@dataclass(frozen=True)
class Segment:
    """``n_rows`` whole rows, back to back from byte ``offset`` of the file ``path``."""

    path: str
    offset: int
    n_rows: int


@dataclass(frozen=True)
class RawRowsMatrix(Dense):
    """A matrix whose rows lie uncompressed in files, as ``segments`` in row order.

    ``stored`` is the dtype on disk with its byte order ("<f4"). With ``transposed`` the files hold the
    columns of the matrix instead of its rows (Fortran order). Pickles to its segments alone.
    """

    uri: str
    shape: tuple[int, int]
    stored: str
    segments: tuple[Segment, ...]
    transposed: bool = False
    reads_columns: bool = True

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored).newbyteorder("=")

    @property
    def _stored_columns(self) -> int:
        return self.shape[0] if self.transposed else self.shape[1]

    @property
    def mapped_nbytes(self) -> int:  # type: ignore[override]
        """Bytes of all rows on disk: what stays resident where stripes are read through a map; no store is mapped."""
        return 0 if self._is_remote else self.nbytes

    @property
    def _is_remote(self) -> bool:
        return any(is_remote(path) for path in dict.fromkeys(segment.path for segment in self.segments))

    def open(self, mapped: bool = False) -> AbstractContextManager[RawRowsReader]:
        """A reader for one thread; ``mapped`` lets it read column stripes through a map of the files."""
        return closing(RawRowsReader(self, mapped))

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Scratch for casting: 4 MiB, or one stored row where that is longer; from a store what is on its way, too."""
        row_nbytes = self._stored_columns * np.dtype(self.stored).itemsize
        return max(SCRATCH_NBYTES, row_nbytes) + (RANGES_NBYTES if self._is_remote else 0)

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a segment."""
        if self.transposed:
            return tuple(Piece(segment.path, Span(0, self.shape[0])) for segment in self.segments)
        edges = np.cumsum([0] + [segment.n_rows for segment in self.segments]).tolist()
        return tuple(Piece(s.path, Span(a, b)) for s, a, b in zip(self.segments, edges, edges[1:], strict=False))

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each file."""
        return fingerprint_files(dict.fromkeys(s.path for s in self.segments), self.shape, self.dtype)


class RawRowsReader:
    """Reads rectangles of a RawRowsMatrix. For one thread; ``close`` frees its files and maps.

    ``scratch`` may be shared with readers of the same thread.
    """

    def __init__(self, source: RawRowsMatrix, maps: bool, scratch: Scratch | None = None):
        self._source = source
        self._maps_stripes = maps and not source._is_remote
        self._dtype = np.dtype(source.stored)
        self._n_columns = source._stored_columns
        self._row_nbytes = self._n_columns * self._dtype.itemsize
        self._edges = np.cumsum([0] + [segment.n_rows for segment in source.segments])
        self._files = ExitStack()
        self._descriptors: dict[str, int] = {}
        self._remote: dict[str, RemoteFile] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._scratch = scratch or Scratch()

    def close(self) -> None:
        """Let go of files and maps; the reader cannot be used afterwards."""
        self._maps.clear()
        self._files.close()
        self._descriptors.clear()
        self._remote.clear()
        self._scratch = Scratch()

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``.

        Raises DataError if a file has become shorter since the source was opened.
        """
        checked_rectangle(rows, columns, self._source.shape, out, self._source.uri)
        if self._source.transposed:
            rows, columns, out = columns, rows, out.T
        nbytes = len(columns) * self._dtype.itemsize
        whole = len(columns) == self._n_columns
        if not nbytes:
            return
        for index, part, start in touched(rows, self._edges):
            target = out[start - rows.start :][: len(part)]
            if whole or self._row_nbytes <= NARROW_ROW_NBYTES:
                self._read_whole_rows(index, part, columns, target)
            elif self._maps_stripes:
                self._read_mapped(index, part, columns, target)
            else:
                self._read_row_by_row(index, part, columns, target)

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        """The stripe in the map of the file, read-only, where one file that may be mapped holds all its rows."""
        source = self._source
        if not self._maps_stripes or source.transposed or len(source.segments) != 1 or self._dtype != dtype:
            return None
        return self._mapped(0)[:, columns.slice]

    def _read_whole_rows(self, index: int, rows: Span, columns: Span, out: np.ndarray) -> None:
        segment = self._source.segments[index]
        offset = segment.offset + rows.start * self._row_nbytes
        whole = len(columns) == self._n_columns
        if whole and out.dtype == self._dtype and out.flags.c_contiguous:
            self._pread(segment.path, offset, out.reshape(-1).view(np.uint8))
            return
        step = max(1, SCRATCH_NBYTES // self._row_nbytes)
        for start in range(0, len(rows), step):
            n = min(step, len(rows) - start)
            raw = self._scratch.of(n * self._row_nbytes)
            self._pread(segment.path, offset + start * self._row_nbytes, raw)
            values = raw.view(self._dtype).reshape(n, self._n_columns)
            np.copyto(out[start : start + n], values[:, columns.slice], casting="unsafe")

    def _read_row_by_row(self, index: int, rows: Span, columns: Span, out: np.ndarray) -> None:
        segment = self._source.segments[index]
        nbytes = len(columns) * self._dtype.itemsize
        offset = segment.offset + rows.start * self._row_nbytes + columns.start * self._dtype.itemsize
        if out.dtype == self._dtype and out.strides[1] == out.itemsize and out.strides[0] >= nbytes:
            self._gather(segment.path, offset, out)
            return
        step = max(1, SCRATCH_NBYTES // nbytes)
        for start in range(0, len(rows), step):
            n = min(step, len(rows) - start)
            values = self._scratch.of(n * nbytes).view(self._dtype).reshape(n, -1)
            self._gather(segment.path, offset + start * self._row_nbytes, values)
            np.copyto(out[start : start + n], values, casting="unsafe")

    def _gather(self, path: str, offset: int, out: np.ndarray) -> None:
        """Fill each row of ``out`` from ``offset`` on, a row of the file further each time."""
        distance, nbytes = self._row_nbytes, out.shape[1] * out.itemsize
        if is_remote(path):
            self._remote_file(path).gather([(offset + i * distance, row.view(np.uint8)) for i, row in enumerate(out)])
            return
        descriptor = self._descriptor(path)
        for i, row in enumerate(out):
            if os.preadv(descriptor, [row.data], offset + i * distance) != nbytes:
                self._pread(path, offset + i * distance, row.view(np.uint8))  # cut short by a signal, or the end

    def _read_mapped(self, index: int, rows: Span, columns: Span, out: np.ndarray) -> None:
        np.copyto(out, self._mapped(index)[rows.slice, columns.slice], casting="unsafe")

    def _mapped(self, index: int) -> np.ndarray:
        """All rows of a segment in the map of its file, read-only."""
        segment = self._source.segments[index]
        if segment.path not in self._maps:
            self._maps[segment.path] = MAPS.of(self._descriptor(segment.path))
        return np.ndarray((segment.n_rows, self._n_columns), self._dtype, self._maps[segment.path], segment.offset)

    def _descriptor(self, path: str) -> int:
        """The open file; checked once for its length, because a map beyond the end kills the process."""
        if path not in self._descriptors:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DataError(f"{path}: cannot be opened ({one_line(error)}). Check path and rights.") from error
            self._files.callback(os.close, descriptor)
            if os.fstat(descriptor).st_size < self._needed(path):
                raise self._shorter(path)
            self._descriptors[path] = descriptor
        return self._descriptors[path]

    def _pread(self, path: str, offset: int, buffer: np.ndarray) -> None:
        """Fill the bytes ``buffer``; the kernel gives at most 2 GiB a call."""
        if is_remote(path):
            self._remote_file(path).read(offset, buffer)
            return
        descriptor = self._descriptor(path)
        done = 0
        while done < buffer.nbytes:
            n = os.preadv(descriptor, [buffer[done:].data], offset + done)
            if n == 0:
                raise self._shorter(path)
            done += n

    def _remote_file(self, path: str) -> RemoteFile:
        """The open object of a store, checked once for its length."""
        if path not in self._remote:
            place = path_of(path)
            assert isinstance(place, Place)
            file = RemoteFile(place)
            if file.nbytes < self._needed(path):
                raise self._shorter(path)
            self._remote[path] = file
        return self._remote[path]

    def _needed(self, path: str) -> int:
        """Bytes that a file has at least."""
        return max(s.offset + s.n_rows * self._row_nbytes for s in self._source.segments if s.path == path)

    def _shorter(self, path: str) -> DataError:
        return DataError(f"{path}: has become shorter since it was opened. Open the matrix again.")
