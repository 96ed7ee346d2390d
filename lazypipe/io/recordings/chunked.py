"""Chunked arrays of one to three dimensions, read as rows: every axis but the first is flattened.

Chunks are decoded in bands, all that hold the same rows. A band of which a block takes only a part is kept
for the next block, which mostly begins where this one ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Dense, Piece, Unmapped
from lazypipe.io.raw_rows import SCRATCH_NBYTES
from lazypipe.io.recordings.shapes import flat_shape
from lazypipe.io.sources import checked_rectangle, fingerprint_files, one_line
from lazypipe.sizes import MIB
from lazypipe.stores import RANGES_NBYTES, is_remote

KEPT_NBYTES = 64 * MIB  # a longer band is decoded again by the next block rather than kept
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of h5py and zarr at damaged chunks


@dataclass(frozen=True)
class ChunkedMatrix(Dense):
    """An array of ``stored_shape`` (n, ...) as rows (n, everything else); ``chunks`` is the shape decoded at once.

    A format has to say how to open it, ``array``, and which ``files`` hold it.
    """

    uri: str
    name: str  # of the array within the file or group
    stored_shape: tuple[int, ...]
    stored: str
    chunks: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return flat_shape(self.stored_shape, self.uri)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored).newbyteorder("=")

    @property
    def reads_columns(self) -> bool:
        return len(self.chunks) > 1 and self.chunks[1] < self.stored_shape[1]

    def array(self) -> AbstractContextManager[Any]:
        """The open array: sliced, it gives an ndarray."""
        raise NotImplementedError

    def files(self) -> tuple[str, ...]:
        """Every file of the array."""
        raise NotImplementedError

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[ChunkedReader]:
        """A reader for one thread, whatever ``mapped``."""
        with self.array() as array:
            yield ChunkedReader(self, array)

    @property
    def rows_at_once(self) -> int:
        """As many whole bands as scratch holds, one at least."""
        row_nbytes = self.shape[1] * self.dtype.itemsize
        return max(1, SCRATCH_NBYTES // (row_nbytes * self.chunks[0])) * self.chunks[0]

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """What is decoded at once, twice (the library assembles it from its chunks), and the band kept."""
        rows = min(self.rows_at_once, n_rows + 2 * self.chunks[0], self.shape[0] + self.chunks[0])
        row_nbytes = self._decoded_columns(n_columns) * self.dtype.itemsize
        band = self.chunks[0] * row_nbytes
        on_its_way = RANGES_NBYTES if is_remote(self.uri) else 0
        return 2 * max(rows * row_nbytes, band) + min(band, KEPT_NBYTES) + on_its_way

    def _decoded_columns(self, n_columns: int) -> int:
        """Columns of the chunks that a stripe touches, at most."""
        if len(self.stored_shape) == 1:
            return 1
        height, width = (*self.stored_shape[1:], 1)[:2]
        n_across = min(-(-n_columns // width) + 1, height)
        touched = min(-(-n_across // self.chunks[1]) + 1, -(-height // self.chunks[1])) * self.chunks[1]
        return touched * (-(-width // self.chunks[2]) * self.chunks[2] if len(self.chunks) == 3 else 1)

    def pieces(self) -> tuple[Piece, ...]:
        """Each file, as holding all rows."""
        return tuple(Piece(file, Span(0, self.shape[0])) for file in self.files())

    def fingerprint(self) -> str:
        """Hash of name, shape, dtype, and path, size and modification time of each file."""
        files = fingerprint_files(self.files(), self.shape, self.dtype)
        return hashlib.sha256(f"{files} {self.name}".encode()).hexdigest()[:16]


class ChunkedReader(Unmapped):
    """Reads rectangles of a ChunkedMatrix."""

    def __init__(self, source: ChunkedMatrix, array: Any):
        self._source = source
        self._array = array
        self._kept: tuple[Span, Span, np.ndarray] | None = None  # rows, columns, values

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``. DataError at a damaged chunk."""
        source = self._source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        band, start = source.chunks[0], rows.start
        if not out.size:
            return
        while start < rows.stop:
            first = start - start % band
            if start > first or rows.stop < min(first + band, source.shape[0]):
                stop = min(first + band, rows.stop)
                values = self._part_of_band(first, Span(start, stop), columns)
            else:
                stop = min(first + source.rows_at_once, rows.stop)
                if stop < source.shape[0]:
                    stop -= stop % band
                values = self._decoded(Span(start, stop), columns)
            np.copyto(out[start - rows.start : stop - rows.start], values, casting="unsafe")
            start = stop

    def _part_of_band(self, first: int, rows: Span, columns: Span) -> np.ndarray:
        whole = Span(first, min(first + self._source.chunks[0], self._source.shape[0]))
        if len(whole) * len(columns) * self._source.dtype.itemsize > KEPT_NBYTES:
            return self._decoded(rows, columns)
        if self._kept is None or self._kept[:2] != (whole, columns):
            self._kept = None  # let go before taking more
            self._kept = (whole, columns, self._decoded(whole, columns))
        return self._kept[2][rows.start - first : rows.stop - first]

    def _decoded(self, rows: Span, columns: Span) -> np.ndarray:
        """That rectangle (len(rows), len(columns)), in the dtype stored."""
        source = self._source
        n_dims, width = len(source.stored_shape), source.stored_shape[-1]
        try:
            if n_dims == 1:
                return self._array[rows.slice].reshape(-1, 1)
            if n_dims == 2:
                return self._array[rows.slice, columns.slice]
            top, bottom = columns.start // width, -(-columns.stop // width)
            values = self._array[rows.slice, top:bottom].reshape(len(rows), -1)
            return values[:, columns.start - top * width : columns.stop - top * width]
        except UNREADABLE as error:
            raise DataError(
                f"{source.uri}: samples {rows.start:,}:{rows.stop:,} cannot be decoded ({one_line(error)}). "
                f"Write or copy it again."
            ) from error
