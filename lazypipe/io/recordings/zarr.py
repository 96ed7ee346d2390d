"""Recordings in Zarr (v2 and v3): (n,), (n, channels), or a movie (n, height, width)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from lazypipe.io.matrix import Matrix, Piece
from lazypipe.io.recordings.chunked import ChunkedMatrix
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.rates import rate_among
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import choose, flat_shape, frame_shape, is_samples, sample_dtype
from lazypipe.io.zarr import array_at, arrays_in, files_of, matrix_of, open_node, pieces_of
from lazypipe.stores import AnyPath, path_of


@dataclass(frozen=True)
class ZarrSamples(ChunkedMatrix):
    """An array whose chunks are to be decoded, or of one or three dimensions."""

    @contextmanager
    def array(self) -> Iterator[Any]:
        """The open array."""
        yield array_at(path_of(self.uri), self.name)

    def files(self) -> tuple[str, ...]:
        """Those of the chunks and of the metadata."""
        return tuple(str(file) for file in files_of(self.uri, self.name))

    def pieces(self) -> tuple[Piece, ...]:
        """A piece a chunk file."""
        return pieces_of(self.uri, self.name, self.chunks, self.shape[0])


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open a Zarr array, or ``column`` of a group; its rate is an attribute of either, if any.

    Raises DataError for damaged metadata, groups with several arrays of samples, and unfit shapes and dtypes.
    """
    uri = str(path)
    options.refuse(uri, "Zarr", "offset_bytes")
    node = open_node(path)
    name = "" if isinstance(node, zarr.Array) else _name(path, node, options.column)
    if not name:
        options.refuse(uri, "a single Zarr array", "column")
    array = array_at(path, name)
    shape = flat_shape(array.shape, uri)
    dtype = sample_dtype(np.dtype(array.dtype), uri)
    matrix: Matrix | None = None
    if array.ndim == 2:
        plain = matrix_of(path, name, array, dtype, shape)
        matrix = plain if plain.raw is not None else None
    if matrix is None:
        chunks = tuple(int(n) for n in array.shards or array.chunks)
        matrix = ZarrSamples(uri, name, tuple(array.shape), dtype.name, chunks)
    rate = rate_among(array.attrs, uri) or rate_among(node.attrs, uri)
    return Recording(matrix, rate, sample_shape=frame_shape(array.shape))


def _name(path: AnyPath, group: Any, column: str | None) -> str:
    if column is not None and "/" in column.strip("/"):
        array_at(path, column.strip("/"))  # deeper than the group itself
        return column.strip("/")
    found = {name: is_samples(array.shape, np.dtype(array.dtype)) for name, array in arrays_in(path, group)}
    return choose(found, column, str(path), ("array", "arrays"))
