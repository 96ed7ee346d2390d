"""HDF5 datasets as matrices: as raw rows where the values lie in one piece, else decoded by h5py.

HDF5 lets one thread of a process in at a time; the raw rows do not pass through it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lazypipe.errors import DataError, LazypipeError
from lazypipe.io.hdf5_file import hdf5_file
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import SCRATCH_NBYTES, RawRowsMatrix, Segment
from lazypipe.io.recordings.chunked import UNREADABLE, ChunkedMatrix
from lazypipe.io.recordings.shapes import flat_shape, sample_dtype
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath, Place, path_of


@contextmanager
def h5_file(path: AnyPath) -> Iterator[h5py.File]:
    """The open file, to look at its metadata; DataError where it is none, damaged, or not to be read."""
    with _opened(path) as file, _damage_told(path):
        yield file


def _opened(path: AnyPath) -> h5py.File:
    """The open file; DataError where it is none, damaged, or not to be read.

    Without HDF5's own cache of chunks (the reader keeps what it needs), and without a lock where the file
    system has none.
    """
    try:
        return hdf5_file(path, rdcc_nbytes=0, locking="best-effort")
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check its rights.") from error
    except UNREADABLE as error:
        raise DataError(
            f"{path}: is not an HDF5 file, or a damaged one ({one_line(error)}). Write or copy it again."
        ) from error


@contextmanager
def _damage_told(path: AnyPath) -> Iterator[None]:
    """DataError for what h5py raises at damaged metadata."""
    try:
        yield
    except LazypipeError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{path}: is a damaged HDF5 file ({one_line(error)}). Write or copy it again.") from error


@dataclass(frozen=True)
class H5Samples(ChunkedMatrix):
    """A dataset that h5py has to decode; the file is opened by each reader, so that none is ever pickled."""

    paths: tuple[str, ...] = ()  # of the file, and of others that it takes values from

    def files(self) -> tuple[str, ...]:
        """That of the dataset, and of others that it takes values from."""
        return self.paths

    @contextmanager
    def array(self) -> Iterator[Any]:
        """The open dataset."""
        path = path_of(self.uri)
        with _opened(path) as file:
            with _damage_told(path):
                dataset = file.get(self.name)
            if not isinstance(dataset, h5py.Dataset):
                raise DataError(f"{self.uri}: has lost its dataset {self.name!r}. Open it again.")
            yield dataset  # what its caller does with it is not the file's fault


@dataclass(frozen=True)
class H5Rows(RawRowsMatrix):
    """A dataset whose values lie in one piece of the file, as numpy has them."""

    name: str = ""

    def fingerprint(self) -> str:
        """As that of all raw rows, and of the name: one file may hold two datasets of a shape."""
        return hashlib.sha256(f"{super().fingerprint()} {self.name}".encode()).hexdigest()[:16]


def matrix_of(path: AnyPath, dataset: h5py.Dataset) -> Matrix:
    """A dataset of one to three dimensions as a matrix; DataError for other shapes and dtypes."""
    uri, where = str(path), f"{path}: {dataset.name}"
    if dataset.shape is None:
        raise DataError(f"{where} is empty. Check what wrote it.")
    shape, dtype = flat_shape(dataset.shape, where), sample_dtype(dataset.dtype, where)
    files = _files(path, dataset)
    offset = _offset(dataset)
    if offset is not None:
        segment = Segment(files[0], offset, shape[0])
        return H5Rows(uri, shape, dataset.dtype.str, (segment,), name=dataset.name)
    rows = max(1, SCRATCH_NBYTES // (shape[1] * dtype.itemsize))
    chunks = dataset.chunks or (min(rows, shape[0]), *dataset.shape[1:])
    return H5Samples(uri, dataset.name, dataset.shape, dtype.name, tuple(chunks), files)


def _offset(dataset: h5py.Dataset) -> int | None:
    """Where all values lie in the file, back to back in numpy's own layout; None if they do not."""
    offset = dataset.id.get_offset()  # counted from the start of the file, before its user block
    whole = dataset.id.get_storage_size() == dataset.size * dataset.dtype.itemsize
    plain = dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True))
    return int(offset) if offset is not None and whole and plain and not dataset.external else None


def _files(path: AnyPath, dataset: h5py.Dataset) -> tuple[str, ...]:
    """The file of the dataset, which a link may have led to, and those its values are taken from.

    HDF5 reads zeros where a file of a virtual dataset is missing: DataError here.
    """
    home = path if isinstance(path, Place) else Path(dataset.file.filename).absolute()
    names = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    names += [name for name, *_ in dataset.external or ()]
    files = {str(home): None}
    if isinstance(home, Place) and any(name != "." for name in names):
        raise DataError(f"{home}: {dataset.name} takes its values from other files, {names[0]}. Write them into it.")
    for name in names:
        other = home if name == "." else home.parent / name
        if "%" not in str(name):  # a pattern, of which HDF5 takes what is there
            if not other.exists():
                raise DataError(f"{home}: {dataset.name} takes its values from {other}, which is missing. Copy it too.")
            files[str(other)] = None
    return tuple(files)
