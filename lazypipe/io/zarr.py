"""Zarr (v2 and v3): an array, or a group that holds exactly one 2-D array.

Chunks stored uncompressed are read straight from their files; all others are decoded by the zarr library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Dense, Piece, Reader, Unmapped
from lazypipe.io.raw_chunks import RawChunks, RawChunksReader
from lazypipe.io.sources import checked_dtype, checked_rectangle, checked_shape, fingerprint_files, one_line
from lazypipe.stores import RANGES_NBYTES, AnyPath, Place, is_remote, path_of

WHOLE = "lazypipe_whole"  # an attribute of arrays whose chunks were all written: none may be missing


@dataclass(frozen=True)
class ZarrMatrix(Dense):
    """A chunked array; ``chunks`` (rows, columns) is what a single read decodes at least, unless ``raw``."""

    uri: str
    shape: tuple[int, int]
    stored: str
    name: str  # path of the array within the group, "" for the root
    chunks: tuple[int, int]
    raw: RawChunks | None = None  # where chunks are stored uncompressed

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored)

    @property
    def reads_columns(self) -> bool:
        return self.raw is not None or self.chunks[1] < self.shape[1]

    @property
    def panel_columns(self) -> int | None:  # type: ignore[override]
        """The width of a chunk where chunks hold every row, and there are several."""
        return self.chunks[1] if self.chunks[0] >= self.shape[0] and self.chunks[1] < self.shape[1] else None

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Reader]:
        """A reader for one thread; it keeps no data between reads, whatever ``mapped``."""
        if self.raw is not None:
            yield RawChunksReader(self.raw, self.uri)
        else:
            yield ZarrReader(self, array_at(path_of(self.uri), self.name))

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """Raw: scratch for casting. Else the rectangle in the stored dtype, and the decoded chunks it touches."""
        if self.raw is not None:
            return self.raw.reader_nbytes()
        touched = 1
        for n, chunk, whole in zip((n_rows, n_columns), self.chunks, self.shape, strict=True):
            touched *= min(-(-n // chunk) + 1, -(-whole // chunk)) * chunk
        decoded = (n_rows * n_columns + touched) * self.dtype.itemsize
        return decoded + (RANGES_NBYTES if is_remote(self.uri) else 0)

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a chunk file."""
        return pieces_of(self.uri, self.name, self.chunks, self.shape[0])

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of every file of the array."""
        return fingerprint_files(files_of(self.uri, self.name), self.shape, self.dtype)


class ZarrReader(Unmapped):
    """Reads rectangles of a ZarrMatrix."""

    def __init__(self, source: ZarrMatrix, array: Any):
        self._source = source
        self._array = array

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``. DataError at a damaged chunk."""
        checked_rectangle(rows, columns, self._source.shape, out, self._source.uri)
        if not out.size:
            return
        try:
            values = self._array[rows.slice, columns.slice]
        except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._source.uri}: rows {rows.start}:{rows.stop} cannot be decoded "
                f"({one_line(error)}). Write or copy the array again."
            ) from error
        np.copyto(out, values, casting="unsafe")


def files_of(uri: str, name: str) -> list[AnyPath]:
    """Every file of the array ``name`` of the group at ``uri``, those of the metadata, too."""
    return sorted(file for file in (path_of(uri) / name).rglob("*") if file.is_file())


def pieces_of(uri: str, name: str, chunks: tuple[int, ...], n_rows: int) -> tuple[Piece, ...]:
    """A piece a chunk file of that array: the last numbers of its path count ``chunks`` along each axis."""
    pieces = []
    for file in files_of(uri, name):
        numbers = re.findall(r"\d+", str(file).removeprefix(f"{uri}/{name}"))
        if len(numbers) >= len(chunks) and file.name[-1].isdigit():
            first = int(numbers[-len(chunks)]) * chunks[0]
            pieces.append(Piece(str(file), Span(first, min(first + chunks[0], n_rows))))
    return tuple(sorted(pieces, key=lambda piece: (piece.rows, piece.path)))


def open_source(path: AnyPath, column: str | None) -> ZarrMatrix:
    """Open a Zarr directory; ``column`` names the array of a group that holds several.

    Raises DataError for damaged metadata, groups without exactly one 2-D array, and unfit dtypes.
    """
    uri = str(path)
    name = _array_name(path, column)
    array = array_at(path, name)
    dtype = checked_dtype(np.dtype(array.dtype), uri)
    return matrix_of(path, name, array, dtype, checked_shape(array.shape, uri))


def matrix_of(path: AnyPath, name: str, array: Any, dtype: np.dtype, shape: tuple[int, int]) -> ZarrMatrix:
    """The 2-D ``array``, called ``name`` within the group ``path``, as a matrix; ``dtype`` in native byte order."""
    n_down, n_across = array.shards or array.chunks  # without partial reads a shard is decoded whole
    chunks = int(n_down), int(n_across)
    return ZarrMatrix(str(path), shape, dtype.name, name, chunks, _raw_chunks(path / name, array, shape, chunks))


def _raw_chunks(folder: AnyPath, array: Any, shape: tuple[int, int], chunks: tuple[int, int]) -> RawChunks | None:
    """How the chunks of an array lie in their files; None where they have to be decoded."""
    metadata = array.metadata
    if metadata.zarr_format == 2:
        plain = metadata.compressor is None and not metadata.filters and metadata.order == "C"
        stored = np.dtype(array.dtype)
    else:
        plain = len(metadata.codecs) == 1 and isinstance(metadata.codecs[0], BytesCodec)
        big = plain and metadata.codecs[0].endian is not None and metadata.codecs[0].endian.value == "big"
        stored = np.dtype(array.dtype).newbyteorder(">" if big else "<")
    if not plain:
        return None
    key = metadata.encode_chunk_key((0, 0)).replace("0", "{}")
    fill_value = None if array.attrs.get(WHOLE) else array.fill_value or 0
    return RawChunks(str(folder), key, stored.str, shape, chunks, fill_value)


def _array_name(path: AnyPath, column: str | None) -> str:
    node = open_node(path)
    if isinstance(node, zarr.Array):
        if column:
            raise DataError(f"{path}: is a single array. Leave out column={column!r}.")
        return ""
    found = {name: array.ndim for name, array in arrays_in(path, node)}
    if column is not None:
        if column not in found:
            raise DataError(f"{path}: has no array {column!r}. It holds {', '.join(sorted(found)) or 'none'}.")
        return column
    flat = sorted(name for name, n in found.items() if n == 2)
    if len(flat) == 1:
        return flat[0]
    if flat:
        raise DataError(f"{path}: holds {len(flat)} matrices, {', '.join(flat)}. Choose one with column=.")
    raise DataError(
        f"{path}: is a group without a 2-D array (arrays: {', '.join(sorted(found)) or 'none'}). "
        f"Pass the path of a Zarr matrix."
    )


def arrays_in(path: AnyPath, group: Any) -> list[tuple[str, Any]]:
    """(name, array) of each array of a group."""
    try:
        return list(group.arrays())
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def array_at(path: AnyPath, name: str) -> Any:
    """The open array ``name`` of the group ``path``, "" for the root; DataError where there is none."""
    node = open_node(path / name if name else path)
    if not isinstance(node, zarr.Array):
        raise DataError(f"{path / name}: is a group, not an array. Pass the path of a Zarr matrix.")
    return node


def store_of(path: AnyPath) -> Any:
    """What the zarr library reads."""
    if not isinstance(path, Place):
        return str(path)
    from lazypipe.stores.zarr import PlaceStore

    return PlaceStore(path)


def open_node(path: AnyPath) -> Any:
    """The open array or group at ``path``; DataError for damaged metadata."""
    try:
        return zarr.open(store_of(path), mode="r")
    except (ValueError, OSError, KeyError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: AnyPath, error: Exception) -> DataError:
    return DataError(f"{path}: is not a readable Zarr array ({one_line(error)}). Write or copy it again.")
