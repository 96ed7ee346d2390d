"""SciPy's .npz files of sparse rows (``scipy.sparse.save_npz`` of a CSR array).

Stored with ``compressed=False`` they are read in place through raw_csr. The members of a compressed file
cannot be read from the middle: it is decompressed whole, once a process, and held. ``convert`` to .arrow
makes such a file cheap to read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.csr import (
    ROW_NBYTES,
    Entries,
    EntryCounter,
    RowsReader,
    SparseRows,
    cast_indices,
    checked_ends,
    checked_sparse_shape,
    index_dtype,
)
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.kept import Kept
from lazypipe.io.matrix import Piece
from lazypipe.io.npy import read_header
from lazypipe.io.raw_csr import ROWS_AT_ONCE, CsrSegment, RawCsrMatrix, Stretch, count_entries
from lazypipe.io.sources import checked_dtype, fingerprint_files, one_line
from lazypipe.stores import AnyPath, path_of

MEMBERS = ("indptr", "indices", "data")
LOCAL_HEADER_NBYTES = 30  # of a zip member, before its name and its extra field


class Arrays(dict[str, np.ndarray]):
    """``indptr``, ``indices`` and ``data`` of a file, in native byte order, not to be changed."""


class Decompressed(Kept[Arrays]):
    """The arrays of compressed files, shared by all readers of this process; those of the last file are kept."""

    def of(self, source: CompressedCsrMatrix) -> Arrays:
        """Those of a file, decompressed where nobody holds them. Raises DataError if it is not what was opened."""
        return self.get(source.fingerprint(), lambda: _load(source))


DECOMPRESSED = Decompressed()


@dataclass(frozen=True)
class CompressedCsrMatrix(SparseRows):
    """Sparse rows of a compressed .npz, which every process that reads them holds whole."""

    indptr_nbytes: int

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader of the arrays that all readers of this process share; the first one decompresses them."""
        arrays = DECOMPRESSED.of(self)

        def read(rows: Span, dtype: np.dtype) -> Entries:
            stored_ends = arrays["indptr"][rows.start : rows.stop + 1]
            lengths = checked_ends(stored_ends, self.nnz, self.uri, rows.start)
            span = slice(int(stored_ends[0]), int(stored_ends[-1]))
            n_entries = span.stop - span.start
            index = index_dtype(self.shape[1], n_entries)
            ends, indices = np.zeros(len(rows) + 1, index), np.empty(n_entries, index)
            np.cumsum(lengths, out=ends[1:])
            cast_indices(arrays["indices"][span], indices)
            return Entries(ends, indices, arrays["data"][span].astype(dtype))

        yield RowsReader(self, read)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """The whole matrix decompressed, and 48 bytes a row of the block."""
        return self.nnz * self.entry_nbytes + self.indptr_nbytes + ROW_NBYTES * n_rows

    def pieces(self) -> tuple[Piece, ...]:
        """The one file."""
        return (Piece(self.uri, Span(0, self.shape[0])),)

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of the file."""
        return fingerprint_files([self.uri], self.shape, self.dtype)


def open_source(path: AnyPath, column: str | None) -> RawCsrMatrix | CompressedCsrMatrix:
    """Open a .npz of a CSR matrix or array; reads where its rows end, 4 or 8 bytes a row.

    Raises DataError for other formats of sparse matrices, other contents, damaged files, and dtypes that a
    matrix cannot have.
    """
    uri = str(path)
    if column is not None:
        raise DataError(f"{uri}: a .npz file has no named columns. Leave out column={column!r}.")
    try:
        with path.open("rb") as stored, zipfile.ZipFile(stored) as archive:
            n_rows, n_columns = _shape(archive, uri)
            stretches = {name: _member(archive, path, name) for name in MEMBERS}
            in_place = all(archive.getinfo(f"{name}.npy").compress_type == zipfile.ZIP_STORED for name in MEMBERS)
            _check_members(stretches, n_rows, uri)
            ends, indices, values = (stretches[name] for name in MEMBERS)
            shape = checked_sparse_shape(n_rows, n_columns, uri)
            segment = CsrSegment(uri, n_rows, ends, indices, None, values)
            counter = count_entries((segment,), uri) if in_place else _count_compressed(archive, indices.n, uri)
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        raise _damaged(uri, error) from error
    if counter.nnz != indices.n:
        raise DataError(
            f"{uri}: its rows have {counter.nnz:,} entries together, its indices are {indices.n:,}. "
            f"Save it again with scipy.sparse.save_npz."
        )
    if in_place:
        return RawCsrMatrix(uri, shape, values.stored, indices.stored, counter.counts(), (segment,))
    indptr_nbytes = ends.n * np.dtype(ends.stored).itemsize
    return CompressedCsrMatrix(uri, shape, values.stored, indices.stored, counter.counts(), indptr_nbytes)


def _shape(archive: zipfile.ZipFile, uri: str) -> tuple[int, int]:
    """The shape, from the two small members; DataError unless they and the others are those of a CSR matrix."""
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    if not {"format", "shape"} <= names:
        raise DataError(
            f"{uri}: holds {', '.join(sorted(names)) or 'nothing'}, which is no sparse matrix. Save one with "
            f"scipy.sparse.save_npz, or one array with numpy.save."
        )
    kind = _small(archive, "format").item()
    kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
    if kind != "csr":
        raise DataError(
            f"{uri}: holds a sparse matrix in format {kind!r}, whose rows do not lie together. "
            f"Save matrix.tocsr() with scipy.sparse.save_npz(..., compressed=False)."
        )
    missing = [name for name in MEMBERS if name not in names]
    shape = _small(archive, "shape")
    if missing or shape.shape != (2,):
        what = f"lacks {', '.join(missing)}" if missing else f"has {shape.size} dimensions"
        raise DataError(f"{uri}: {what}. Save a CSR matrix of two dimensions with scipy.sparse.save_npz.")
    return int(shape[0]), int(shape[1])


def _small(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        return npy_format.read_array(file, allow_pickle=False)


def _check_members(stretches: dict[str, Stretch], n_rows: int, uri: str) -> None:
    checked_dtype(np.dtype(stretches["data"].stored), uri)
    for name in ("indptr", "indices"):
        if np.dtype(stretches[name].stored).newbyteorder("=") not in (np.int32, np.int64):
            raise DataError(f"{uri}: its {name} are no int32 or int64. Save it with scipy.sparse.save_npz.")
    ends, indices, values = (stretches[name] for name in MEMBERS)
    if ends.n != n_rows + 1 or indices.n != values.n:
        raise DataError(
            f"{uri}: has {n_rows:,} rows, {ends.n:,} indptr, {indices.n:,} indices and {values.n:,} data, "
            f"which do not fit together. Save it again with scipy.sparse.save_npz."
        )


def _member(archive: zipfile.ZipFile, path: AnyPath, name: str) -> Stretch:
    """The numbers of a member: where in the file they lie, if it is stored uncompressed."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        n, stored, header_nbytes = _npy_header(member)
    with path.open("rb") as file:  # the local header has an extra field of its own
        file.seek(info.header_offset)
        local = file.read(LOCAL_HEADER_NBYTES)
    named, extra = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    offset = info.header_offset + LOCAL_HEADER_NBYTES + named + extra + header_nbytes
    if header_nbytes + n * stored.itemsize > info.file_size:
        raise ValueError(f"{name} is truncated")
    return Stretch(offset, stored.str, n)


def _npy_header(member: IO[bytes]) -> tuple[int, np.dtype, int]:
    """(numbers, dtype, bytes of the header) of an array of one dimension."""
    shape, _, dtype = read_header(member)
    if len(shape) != 1:
        raise ValueError(f"an array of shape {shape} where one dimension is expected")
    return int(shape[0]), dtype, member.tell()


def _count_compressed(archive: zipfile.ZipFile, n_entries: int, uri: str) -> EntryCounter:
    """The entries of all rows; ``indptr`` is decompressed 256 Ki rows at a time, the rest not at all."""
    counter = EntryCounter()
    with archive.open("indptr.npy") as member:
        n, stored, _ = _npy_header(member)
        last = np.zeros(0, stored)
        for start in range(0, n, ROWS_AT_ONCE):
            raw = member.read(min(ROWS_AT_ONCE, n - start) * stored.itemsize)
            ends = np.concatenate([last, np.frombuffer(raw, stored)])
            counter.add(checked_ends(ends, n_entries, uri, counter.n_rows))
            last = ends[-1:]
    return counter


def _load(source: CompressedCsrMatrix) -> Arrays:
    uri = source.uri
    try:
        with path_of(uri).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = Arrays({name: _native(stored[name]) for name in MEMBERS})
    except DAMAGED as error:
        raise _damaged(uri, error) from error
    if (len(arrays["indptr"]), len(arrays["indices"])) != (source.shape[0] + 1, source.nnz):
        raise DataError(f"{uri}: has been changed since it was opened. Open the matrix again.")
    return arrays


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _damaged(uri: str, error: Exception) -> DataError:
    return DataError(f"{uri}: is a damaged .npz file ({one_line(error)}). Save or copy it again.")
