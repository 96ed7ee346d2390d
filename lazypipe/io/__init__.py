"""Matrices on disk: ``open_matrix`` finds the format. A new format is one file and one line here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.array import from_array
from lazypipe.io.formats import TABLES, Format, format_of, suffixes_of, unknown
from lazypipe.io.idx import is_idx
from lazypipe.io.images import is_image_folder
from lazypipe.io.matrix import Matrix, Reader
from lazypipe.io.sources import require_there
from lazypipe.stores import AnyPath, Place, path_of

__all__ = ["Matrix", "Reader", "open_matrix"]


IDX = Format("lazypipe.io.idx", (".idx",))  # two zeros are no magic: is_idx looks closer

# Of each, ``module`` has ``open_source(path, column) -> Matrix``.
FORMATS = (
    Format("lazypipe.io.npy", (".npy",), magic=b"\x93NUMPY"),
    Format("lazypipe.io.npz", (".npz",)),
    Format("lazypipe.io.arrow", (".arrow", ".feather", ".ipc"), magic=b"ARROW1"),
    Format("lazypipe.io.parquet", (".parquet", ".pq"), magic=b"PAR1", inside=("*.parquet", "*.pq")),
    Format("lazypipe.io.zarr", (".zarr",), inside=("zarr.json", ".zarray", ".zgroup")),
    IDX,
)


def open_matrix(source: str | AnyPath | np.ndarray | Matrix, column: str | None = None) -> Matrix:
    """Open a matrix for reading; only metadata are read.

    ``source`` is a path, or an address (``file://``, ``s3://`` and others of lazypipe.stores), of a .npy, Arrow IPC,
    Parquet (a file or a directory of parts), Zarr or plain IDX matrix (whose axes after the first are the columns);
    of sparse rows in a .npz (SciPy's), or in list columns ``indices`` and ``values`` of Arrow IPC or Parquet; a 2-D
    array; or an already open matrix, which is returned as it is. Of sparse rows it is also read where each row ends;
    where they are compressed, all their indices are decoded for that.

    ``column`` names the list column of an Arrow or Parquet table, or the array of a Zarr group, where
    there are several. Raises DataError, in one line, for all that cannot be read as a matrix.
    """
    if isinstance(source, np.ndarray):
        return from_array(source)
    if not isinstance(source, (str, Path, Place)):
        if all(hasattr(source, name) for name in ("uri", "shape", "dtype", "open", "reader_nbytes")):
            return source
        raise DataError(
            f"{type(source).__name__}: cannot be opened as a matrix. "
            f"Pass a path, a 2-D numpy array, or what open_matrix returned; sparse rows as the path of an .npz."
        )
    path = path_of(source)
    require_there(path)
    matrix: Matrix = _format_of(path).load().open_source(path, column)
    return matrix


def _format_of(path: AnyPath) -> Format:
    found, known = format_of(path, FORMATS), suffixes_of(FORMATS)
    if found is not None:
        return found
    if is_image_folder(path):
        raise DataError(f"{path}: is a folder of images. Convert it to .npy, and open that.")
    if path.is_dir():
        raise DataError(
            f"{path}: is a directory without data. Pass a directory of .parquet parts, a Zarr array, "
            f"or one file ({known})."
        )
    if is_idx(path):
        return IDX
    from lazypipe.io.svmlight import is_svmlight  # loads Arrow

    if is_svmlight(path):
        raise DataError(f"{path}: is svmlight text. Convert it to .arrow or .parquet, and open that.")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        known += f". A table is converted first: python -m jobs convert --format {TABLES[suffix]}"
    raise DataError(f"{path}: {unknown(path)}. Known formats: {known}.")
