"""IDX files, in which MNIST comes: a type, the dimensions, then the numbers in big-endian order.

A plain file is read in place through raw_rows. A gzipped one cannot be read from the middle: ``convert`` reads it
once, from its beginning. The format: https://www.fon.hum.uva.nl/praat/manual/IDX_file_format.html.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Dense, Piece, Unmapped
from lazypipe.io.npy import require_whole
from lazypipe.io.raw_rows import RawRowsMatrix, Segment
from lazypipe.io.sources import checked_rectangle, checked_shape, fingerprint_files, one_line
from lazypipe.sizes import MIB
from lazypipe.stores import AnyPath, Place, path_of

DTYPES = {0x08: "|u1", 0x09: "|i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAGIC_NBYTES = 4  # two zeros, the dtype, the number of dimensions
GZIP = b"\x1f\x8b"
GZIP_RATIO = 1032  # deflate puts so many bytes into one, at most
READ_NBYTES = 4 * MIB  # decompressed at once
UNREADABLE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Header:
    """What an IDX file says of itself; ``stored`` is its dtype with the byte order."""

    stored: str
    dims: tuple[int, ...]

    @property
    def offset(self) -> int:
        """Where the numbers begin."""
        return MAGIC_NBYTES + 4 * len(self.dims)

    @property
    def expected_nbytes(self) -> int:
        """Bytes of the whole file, decompressed."""
        return self.offset + math.prod(self.dims) * np.dtype(self.stored).itemsize


@dataclass(frozen=True)
class GzippedIdx(Dense):
    """A gzipped IDX file as a matrix; rows are read in order, going back decompresses from the beginning."""

    uri: str
    shape: tuple[int, int]
    header: Header
    reads_columns: bool = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.header.stored).newbyteorder("=")

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[GzippedIdxReader]:
        """A reader for one thread, whatever ``mapped``."""
        try:
            file = _unzipped(path_of(self.uri))  # what the caller does inside is not the file's fault
        except OSError as error:
            raise _unreadable(self.uri, error) from error
        with file:
            yield GzippedIdxReader(self, file)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Twice the bytes decompressed at once: 4 MiB, or one row where that is longer."""
        return 2 * max(READ_NBYTES, self.shape[1] * self.dtype.itemsize)

    def pieces(self) -> tuple[Piece, ...]:
        """The one file."""
        return (Piece(self.uri, Span(0, self.shape[0])),)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of the file."""
        return fingerprint_files([self.uri], self.shape, self.dtype)


class GzippedIdxReader(Unmapped):
    """Reads rectangles of a GzippedIdx."""

    def __init__(self, source: GzippedIdx, file: IO[bytes]):
        self._source = source
        self._file = file

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``; with the last row the file's end is checked.

        Raises DataError for a file that is damaged, or shorter or longer than its header says.
        """
        source = self._source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        stored = np.dtype(source.header.stored)
        row_nbytes = source.shape[1] * stored.itemsize
        step = max(1, READ_NBYTES // row_nbytes)
        try:
            self._file.seek(source.header.offset + rows.start * row_nbytes)
            for start in range(0, len(rows), step):
                n = min(step, len(rows) - start)
                raw = self._file.read(n * row_nbytes)
                if len(raw) < n * row_nbytes:
                    require_whole(source.uri, self._file.tell(), source.header.expected_nbytes)
                values = np.frombuffer(raw, stored).reshape(n, -1)
                np.copyto(out[start : start + n], values[:, columns.slice], casting="unsafe")
            if rows.stop == source.shape[0] and self._file.read(1):  # reading the end checks its sums, too
                raise _too_long(source.uri, source.header)
        except UNREADABLE as error:
            raise _unreadable(source.uri, error) from error


def is_idx(path: AnyPath) -> bool:
    """Whether a file begins as an IDX file does, also under gzip, whatever its name."""
    try:
        with _opened(path) as file:
            magic = file.read(MAGIC_NBYTES)
    except UNREADABLE:
        return False
    return _known(magic)


def open_source(path: AnyPath, column: str | None) -> RawRowsMatrix:
    """Open a plain IDX file; the axes after the first are the columns, of which one axis alone has one.

    Raises DataError for a gzipped file, and as ``open_idx``.
    """
    matrix = open_idx(path, column)
    if isinstance(matrix, GzippedIdx):
        raise DataError(f"{path}: is gzipped IDX, and cannot be read in place. Convert it to .npy, and open that.")
    return matrix


def open_idx(path: AnyPath, column: str | None = None) -> RawRowsMatrix | GzippedIdx:
    """Open an IDX file, plain or gzipped. Raises DataError for a damaged one, or of another length than it says."""
    uri = str(path)
    if column is not None:
        raise DataError(f"{uri}: an IDX file has no named columns. Leave out column={column!r}.")
    header, gzipped = _header(path), _is_gzipped(path)
    shape = checked_shape((header.dims[0], math.prod(header.dims[1:])), uri)
    size = path.stat().st_size
    if gzipped and header.expected_nbytes > size * GZIP_RATIO:
        raise DataError(
            f"{uri}: is truncated: its header says {header.expected_nbytes:,} bytes, more than {size:,} bytes of "
            f"gzip can hold. Copy or download it again."
        )
    if gzipped:
        return GzippedIdx(uri, shape, header)
    require_whole(uri, size, header.expected_nbytes)
    if size > header.expected_nbytes:
        raise _too_long(uri, header)
    return RawRowsMatrix(uri, shape, header.stored, (Segment(uri, header.offset, shape[0]),))


def _header(path: AnyPath) -> Header:
    try:
        with _opened(path) as file:
            magic = file.read(MAGIC_NBYTES)
            if not _known(magic):
                raise DataError(
                    f"{path}: is no IDX file: it begins with 0x{magic.hex()}, not with two zeros, a dtype and the "
                    f"number of dimensions. Check what wrote it."
                )
            raw = file.read(4 * magic[3])
    except UNREADABLE as error:
        raise _unreadable(str(path), error) from error
    require_whole(str(path), MAGIC_NBYTES + len(raw), MAGIC_NBYTES + 4 * magic[3])
    return Header(DTYPES[magic[2]], tuple(np.frombuffer(raw, ">u4").tolist()))


def _known(magic: bytes) -> bool:
    return len(magic) == MAGIC_NBYTES and magic[:2] == b"\0\0" and magic[2] in DTYPES and magic[3] > 0


def _opened(path: AnyPath) -> IO[bytes]:
    """The file, decompressed where its first bytes are gzip's."""
    return _unzipped(path) if _is_gzipped(path) else path.open("rb")


def _unzipped(path: AnyPath) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path.open("rb") if isinstance(path, Place) else path, "rb"))


def _is_gzipped(path: AnyPath) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def _too_long(uri: str, header: Header) -> DataError:
    return DataError(f"{uri}: goes on after the {header.expected_nbytes:,} bytes its header says. Check what wrote it.")


def _unreadable(uri: str, error: Exception) -> DataError:
    return DataError(f"{uri}: cannot be read ({one_line(error)}). Check its rights, or copy it again.")
