"""Rows stored contiguously at known offsets of files (npy, Arrow IPC): the fast reader of both.

Whole rows are read with ``preadv`` straight into the block: no page of the file is ever mapped.
A column stripe of wide rows is read through a memory map, because neighbouring stripes share the
64 KiB units that the kernel maps at a fault: 13 GB/s warm, against 2 GB/s when each stripe is unmapped.
Mapped pages count as resident memory, so their bytes are counted, and the map is closed in time.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.sources import checked_rectangle, fingerprint_files, one_line

FAULT_NBYTES = 64 * 1024  # what Linux maps around one fault (fault_around_bytes)
SCRATCH_NBYTES = 4 * 1024**2  # stays in the second-level cache while it is cast
NARROW_ROW_NBYTES = FAULT_NBYTES  # below this a map would touch every page anyway


@dataclass(frozen=True)
class Segment:
    """``n_rows`` whole rows, back to back from byte ``offset`` of the file ``path``."""

    path: str
    offset: int
    n_rows: int


@dataclass(frozen=True)
class RawRowsMatrix:
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

    def open(self, window: int) -> AbstractContextManager[RawRowsReader]:
        """A reader for one thread. A stripe reads fastest with ``window`` ≥ n_rows x 128 KiB."""
        return closing(RawRowsReader(self, window))

    def reader_nbytes(self, n_rows: int, n_columns: int, window: int) -> int:
        """Scratch, and the mapped pages where such a block is read through a map. Never above
        ``window`` + 4 MiB (or one row, where a row is longer)."""
        if self.transposed:
            n_rows, n_columns = n_columns, n_rows
        row_nbytes = self._stored_columns * np.dtype(self.stored).itemsize
        nbytes = n_columns * np.dtype(self.stored).itemsize
        scratch = max(SCRATCH_NBYTES, nbytes if row_nbytes > NARROW_ROW_NBYTES else row_nbytes)
        maps = _maps_stripe(n_rows, n_columns, self._stored_columns, row_nbytes, nbytes, window)
        return scratch + (window if maps else 0)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each file."""
        return fingerprint_files(dict.fromkeys(s.path for s in self.segments), self.shape, self.dtype)


def _maps_stripe(
    n_rows: int, n_columns: int, stored_columns: int, row_nbytes: int, nbytes: int, window: int
) -> bool:
    """Whether a stripe is read through a map: rows are wide, and the pages it touches fit the window."""
    whole = n_columns == stored_columns
    return not whole and row_nbytes > NARROW_ROW_NBYTES and n_rows * (nbytes + FAULT_NBYTES) <= window


class RawRowsReader:
    """Reads rectangles of a RawRowsMatrix. For one thread; ``close`` frees its files and maps."""

    def __init__(self, source: RawRowsMatrix, window: int):
        self._source = source
        self._window = window
        self._dtype = np.dtype(source.stored)
        self._n_columns = source._stored_columns
        self._row_nbytes = self._n_columns * self._dtype.itemsize
        self._edges = np.cumsum([0] + [segment.n_rows for segment in source.segments])
        self._files = ExitStack()
        self._descriptors: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}
        self._touched: dict[int, tuple[int, int, int, int]] = {}  # segment -> hull of rows and bytes
        self._scratch = np.empty(0, np.uint8)

    def close(self) -> None:
        """Unmap and close everything; the reader cannot be used afterwards."""
        self._unmap()
        self._files.close()
        self._descriptors.clear()
        self._scratch = np.empty(0, np.uint8)

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)) with that rectangle, cast to ``out.dtype``.

        Raises DataError if a file has become shorter since the source was opened.
        """
        checked_rectangle(rows, columns, self._source.shape, out, self._source.uri)
        if self._source.transposed:
            rows, columns, out = columns, rows, out.T
        nbytes = len(columns) * self._dtype.itemsize
        whole = len(columns) == self._n_columns
        maps = _maps_stripe(len(rows), len(columns), self._n_columns, self._row_nbytes, nbytes, self._window)
        for index, part, target in self._parts(rows, out):
            if not len(part) or not nbytes:
                continue
            if whole or self._row_nbytes <= NARROW_ROW_NBYTES:
                self._read_whole_rows(index, part, columns, target)
            elif maps:
                self._read_mapped(index, part, columns, target)
            else:
                self._read_row_by_row(index, part, columns, target)

    def _parts(self, rows: Span, out: np.ndarray) -> Iterator[tuple[int, Span, np.ndarray]]:
        """Each segment that ``rows`` touches: its index, the rows within it, and their share of ``out``."""
        first = int(np.searchsorted(self._edges, rows.start, side="right")) - 1
        for index in range(max(first, 0), len(self._source.segments)):
            base, end = int(self._edges[index]), int(self._edges[index + 1])
            if base >= rows.stop:
                return
            start, stop = max(rows.start, base), min(rows.stop, end)
            if start < stop:
                yield index, Span(start - base, stop - base), out[start - rows.start : stop - rows.start]

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
            raw = self._raw(n * self._row_nbytes)
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
            values = self._raw(n * nbytes).view(self._dtype).reshape(n, -1)
            self._gather(segment.path, offset + start * self._row_nbytes, values)
            np.copyto(out[start : start + n], values, casting="unsafe")

    def _gather(self, path: str, offset: int, out: np.ndarray) -> None:
        """Fill each row of ``out`` from ``offset`` on, a row of the file further each time."""
        from lazypipe.io.gather import gather  # numba takes half a second to import

        descriptor = self._descriptor(path)
        nbytes = out.shape[1] * out.itemsize
        n = gather(descriptor, out.ctypes.data, out.strides[0], len(out), nbytes, offset, self._row_nbytes)
        for i in range(n, len(out)):  # a read cut short by a signal, or by the end of the file
            self._pread(path, offset + i * self._row_nbytes, out[i].view(np.uint8))

    def _read_mapped(self, index: int, rows: Span, columns: Span, out: np.ndarray) -> None:
        segment = self._source.segments[index]
        start, stop = columns.start * self._dtype.itemsize, columns.stop * self._dtype.itemsize
        self._count_touched(index, (rows.start, rows.stop, start, stop))
        view = np.ndarray(
            (segment.n_rows, self._n_columns), self._dtype, self._map(segment.path), segment.offset
        )
        np.copyto(out, view[rows.slice, columns.slice], casting="unsafe")

    def _count_touched(self, index: int, hull: tuple[int, int, int, int]) -> None:
        """Close the maps first if the pages they hold and those of this read would exceed the window."""
        old = self._touched.get(index, hull)
        both = (min(old[0], hull[0]), max(old[1], hull[1]), min(old[2], hull[2]), max(old[3], hull[3]))
        after = {**self._touched, index: both}
        if sum((b - a) * (d - c + FAULT_NBYTES) for a, b, c, d in after.values()) > self._window:
            self._unmap()
            after = {index: hull}
        self._touched = after

    def _map(self, path: str) -> mmap.mmap:
        if path not in self._maps:
            self._maps[path] = mmap.mmap(self._descriptor(path), 0, access=mmap.ACCESS_READ)
        return self._maps[path]

    def _unmap(self) -> None:
        for mapped in self._maps.values():
            mapped.close()
        self._maps.clear()
        self._touched = {}

    def _raw(self, nbytes: int) -> np.ndarray:
        if self._scratch.nbytes < nbytes:
            self._scratch = np.empty(nbytes, np.uint8)
        return self._scratch[:nbytes]

    def _descriptor(self, path: str) -> int:
        """The open file; checked once for its length, because a map beyond the end kills the process."""
        if path not in self._descriptors:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be opened ({one_line(error)}). Check path and rights."
                ) from error
            self._files.callback(os.close, descriptor)
            needed = max(
                s.offset + s.n_rows * self._row_nbytes for s in self._source.segments if s.path == path
            )
            if os.fstat(descriptor).st_size < needed:
                raise self._shorter(path)
            self._descriptors[path] = descriptor
        return self._descriptors[path]

    def _pread(self, path: str, offset: int, buffer: np.ndarray) -> None:
        """Fill the bytes ``buffer``; the kernel gives at most 2 GiB a call."""
        descriptor = self._descriptor(path)
        done = 0
        while done < buffer.nbytes:
            n = os.preadv(descriptor, [buffer[done:].data], offset + done)
            if n == 0:
                raise self._shorter(path)
            done += n

    def _shorter(self, path: str) -> DataError:
        return DataError(f"{path}: has become shorter since it was opened. Open the matrix again.")
