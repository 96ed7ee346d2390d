"""Chunks stored uncompressed, a file each (Zarr without codecs): read with ``preadv``, not decoded.

A chunk file holds its rows back to back, so each is read as a matrix of raw rows. A column stripe that is
one whole chunk, as in a store of panels, is not even read: its file is mapped while the block lasts.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.raw_rows import SCRATCH_NBYTES, RawRowsMatrix, RawRowsReader, Scratch, Segment
from lazypipe.io.sources import checked_rectangle, one_line
from lazypipe.stores import RANGES_NBYTES, is_remote, path_of


@dataclass(frozen=True)
class RawChunks:
    """Where the chunks of an array lie, and how: each in a file of full size, those at the edges padded."""

    folder: str
    key: str  # of a chunk within the folder, with places for its row and its column: "c/{}/{}"
    stored: str  # dtype on disk with its byte order ("<f4")
    shape: tuple[int, int]
    chunks: tuple[int, int]  # (rows, columns) of a chunk
    fill_value: float | None  # of the chunks that have no file; None where each is to have one

    @property
    def chunk_nbytes(self) -> int:
        return self.chunks[0] * self.chunks[1] * np.dtype(self.stored).itemsize

    def path(self, i: int, j: int) -> str:
        """The file of the chunk in row ``i`` and column ``j`` of the grid."""
        return f"{self.folder}/{self.key.format(i, j)}"

    def reader_nbytes(self) -> int:
        """Scratch for casting: 4 MiB or one row of a chunk, at most a chunk; from a store what is on its way, too."""
        row_nbytes = self.chunk_nbytes // self.chunks[0]
        scratch = min(self.chunk_nbytes, max(SCRATCH_NBYTES, row_nbytes))
        return scratch + (min(2 * self.chunk_nbytes, RANGES_NBYTES) if is_remote(self.folder) else 0)


class RawChunksReader:
    """Reads rectangles of RawChunks. For one thread; opens a file at a time."""

    def __init__(self, source: RawChunks, uri: str):
        self._source = source
        self._uri = uri
        self._scratch = Scratch()

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``; DataError at a torn chunk."""
        checked_rectangle(rows, columns, self._source.shape, out, self._uri)
        if not out.size:
            return
        height, width = self._source.chunks
        for i in range(rows.start // height, -(-rows.stop // height)):
            within_rows, down = _shared(rows, i, height)
            for j in range(columns.start // width, -(-columns.stop // width)):
                within_columns, across = _shared(columns, j, width)
                self._read_chunk(self._source.path(i, j), within_rows, within_columns, out[down, across])

    def view(self, columns: Span, dtype: np.dtype) -> np.ndarray | None:
        """A stripe that is one whole chunk of ``dtype``, in a private map of its file: to be overwritten."""
        source = self._source
        (n_rows, n_columns), (height, width) = source.shape, source.chunks
        stop = min(columns.start + width, n_columns)
        if height < n_rows or columns.start % width or columns.stop != stop or np.dtype(source.stored) != dtype:
            return None
        if is_remote(source.folder):
            return None
        path = source.path(0, columns.start // width)
        if not self._is_there(path):
            return None
        with open(path, "rb", buffering=0) as file:
            pages = mmap.mmap(file.fileno(), source.chunk_nbytes, access=mmap.ACCESS_COPY)
        pages.madvise(mmap.MADV_WILLNEED)
        return np.ndarray((n_rows, width), dtype, pages)[:, : len(columns)]

    def _is_there(self, path: str) -> bool:
        """Whether a chunk has a file; DataError where it is torn or cannot be read."""
        try:
            n_bytes = path_of(path).stat().st_size
        except FileNotFoundError as error:
            if self._source.fill_value is None:
                raise DataError(f"{path}: this chunk is missing. Write or copy the array again.") from error
            return False
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({one_line(error)}). Check path and rights.") from error
        if n_bytes != self._source.chunk_nbytes:
            raise DataError(
                f"{path}: holds {n_bytes:,} bytes, a chunk of this array has {self._source.chunk_nbytes:,}: it is "
                f"torn. Write or copy the array again."
            )
        return True

    def _read_chunk(self, path: str, rows: Span, columns: Span, out: np.ndarray) -> None:
        source = self._source
        if not self._is_there(path):
            out[...] = source.fill_value
            return
        chunk = RawRowsMatrix(path, source.chunks, source.stored, (Segment(path, 0, source.chunks[0]),))
        reader = RawRowsReader(chunk, maps=False, scratch=self._scratch)
        try:
            reader.read(rows, columns, out)
        finally:
            reader.close()


def _shared(span: Span, index: int, length: int) -> tuple[Span, slice]:
    """What chunk ``index`` of ``length`` has of ``span``: within the chunk, and within the span."""
    start, stop = max(span.start, index * length), min(span.stop, (index + 1) * length)
    return Span(start - index * length, stop - index * length), slice(start - span.start, stop - span.start)
