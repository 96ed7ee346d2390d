"""Recordings in Zarr (v2 and v3): (n,), (n, channels), or a movie (n, height, width)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.chunked import ChunkedMatrix
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.rates import rate_among
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import choose, flat_shape, frame_shape, is_samples, sample_dtype
from lazypipe.io.zarr import array_at, arrays_in, files_of, matrix_of, open_node


@dataclass(frozen=True)
class ZarrSamples(ChunkedMatrix):
    """An array of one or three dimensions; two have ZarrMatrix, which reads plain chunks undecoded."""

    @contextmanager
    def array(self) -> Iterator[Any]:
        """The open array."""
        yield array_at(Path(self.uri), self.name)


def open_source(path: Path, options: Options) -> Recording:
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
    matrix: Matrix
    if array.ndim == 2:
        matrix = matrix_of(path, name, array, sample_dtype(np.dtype(array.dtype), uri), shape)
    else:
        dtype = sample_dtype(np.dtype(array.dtype), uri)
        chunks = tuple(int(n) for n in array.shards or array.chunks)
        files = tuple(str(file) for file in files_of(path, name))
        matrix = ZarrSamples(uri, name, tuple(array.shape), dtype.name, chunks, files)
    rate = rate_among(array.attrs, uri) or rate_among(node.attrs, uri)
    return Recording(matrix, rate, sample_shape=frame_shape(array.shape))


def _name(path: Path, group: Any, column: str | None) -> str:
    if column is not None and "/" in column.strip("/"):
        array_at(path, column.strip("/"))  # deeper than the group itself
        return column.strip("/")
    found = {name: is_samples(array.shape, np.dtype(array.dtype)) for name, array in arrays_in(path, group)}
    return choose(found, column, str(path), "arrays")
