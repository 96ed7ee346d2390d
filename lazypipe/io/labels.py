"""Labels, one a row of a matrix, of any kind: whole numbers, truth values, numbers, or text.

From memory or from a file, they come as one array (n,) with nothing missing in it.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.formats import Format, format_of, suffixes_of, unknown
from lazypipe.io.idx import is_idx, open_idx
from lazypipe.io.label_values import checked, from_memory, of_arrow, of_numbers, require_shape
from lazypipe.io.npy import read_header, require_whole
from lazypipe.io.sources import one_line, require_there
from lazypipe.stores import AnyPath, Place, path_of

IDX = Format("idx", (".idx",))
FORMATS = (
    Format("npy", (".npy",), magic=b"\x93NUMPY"),
    Format("npz", (".npz",), magic=b"PK\x03\x04"),
    Format("arrow", (".arrow", ".feather", ".ipc"), magic=b"ARROW1"),
    Format("parquet", (".parquet", ".pq"), magic=b"PAR1", inside=("*.parquet", "*.pq")),
    Format("text", (".csv", ".txt")),
    IDX,
)
NAMED = ("npz", "arrow", "parquet")  # those that may hold several
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
MISSING = ("", "nan", "na", "n/a", "null", "none")  # in text


def read_labels(
    source: str | AnyPath | np.ndarray | Sequence[Any],
    n_rows: int | None = None,
    what: str = "y",
    column: str | None = None,
) -> np.ndarray:
    """Labels (n,): truth values, integers or floats in the dtype they have, or text (``<U``).

    ``source`` is an array (n,) or (n, 1), a list, a pandas or pyarrow column; or a path or an address of a
    .npy, an IDX file (.gz too), a .npz, an Arrow or Parquet table, or text (.csv, .txt) with a label a line and no
    header. ``column`` names the array of a .npz or the column of a table, where there are several. Text from a file
    is int64 where all lines are whole numbers, float64 where all are numbers, else text as it stands.

    ``what`` names labels from memory in errors. Memory: the labels, and for text and lists about 100 bytes each while
    they are read; arrays of the right kind are not copied. Raises DataError, in one line, for what has more
    dimensions, nothing in it, labels missing (NaN, None, an empty line), infinite, or of more kinds than one, and
    unless there are ``n_rows``.
    """
    if isinstance(source, (str, Path, Place)):
        path = path_of(source)
        return checked(_from_file(path, column, n_rows), str(path), n_rows)
    if column is not None:
        raise DataError(f"{what}: has no named columns. Leave out column={column!r}.")
    return checked(from_memory(source, what), what, n_rows)


def _from_file(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    require_there(path)
    found = format_of(path, FORMATS) or (IDX if is_idx(path) else None)
    if found is None:
        what = "is a directory without labels" if path.is_dir() else unknown(path)
        raise DataError(f"{path}: {what}. Labels are read from {suffixes_of(FORMATS)}, .gz too of the last.")
    if column is not None and found.module not in NAMED:
        raise DataError(f"{path}: has no named columns. Leave out column={column!r}.")
    try:
        return READERS[found.module](path, column, n_rows)
    except DataError:
        raise
    except (*DAMAGED, csv.Error) as error:
        raise DataError(
            f"{path}: is no readable {found.suffixes[0]} file ({one_line(error)}). Write or copy it again."
        ) from error


def _from_npy(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    with path.open("rb") as file:
        return _array_in(file, path.stat().st_size, str(path), n_rows)


def _from_npz(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    with path.open("rb") as stored, zipfile.ZipFile(stored) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        member = f"{_chosen(names, column, 'arrays', str(path))}.npy"
        with archive.open(member) as file:
            return _array_in(file, archive.getinfo(member).file_size, str(path), n_rows)


def _array_in(file: IO[bytes], size: int, uri: str, n_rows: int | None) -> np.ndarray:
    """The array in a .npy; its shape is checked first, for it may be a matrix larger than memory."""
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(f"{uri}: holds Python objects, which are never unpickled. Save text as array.astype(str).")
    require_shape(shape, uri, n_rows)
    require_whole(uri, size, file.tell() + shape[0] * dtype.itemsize)
    file.seek(0)
    return np.asarray(npy_format.read_array(file, allow_pickle=False))


def _from_idx(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    matrix = open_idx(path)
    require_shape(matrix.shape, str(path), n_rows)
    values = np.empty(matrix.shape, matrix.dtype)
    with matrix.open() as reader:
        reader.read(Span(0, len(values)), Span(0, 1), values)
    return values


def _from_arrow(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    import pyarrow as pa

    from lazypipe.io.ipc_file import ipc_file, record_batch

    uri = str(path)
    with ipc_file(uri) as file:
        field = file.schema.names.index(_chosen(file.schema.names, column, "columns", uri))
        kind = file.schema.types[field]
    with ipc_file(uri, (field,)) as file:
        chunks = [record_batch(file, index, uri).column(0) for index in range(file.num_record_batches)]
    return of_arrow(pa.chunked_array(chunks, kind), uri)


def _from_parquet(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    import pyarrow as pa

    from lazypipe.io.parquet_file import parquet_file, part_paths

    chunks: list[Any] = []
    for part in part_paths(path):
        with parquet_file(str(part)) as file:
            name = _chosen(file.schema_arrow.names, column, "columns", str(part))
            read = file.read(columns=[name]).column(name)
            if chunks and read.type != chunks[0].type:
                raise DataError(f"{part}: column {name!r} is {read.type}, {chunks[0].type} in the parts before.")
            chunks += read.chunks or [pa.array([], read.type)]
    return of_arrow(pa.chunked_array(chunks), str(path))


def _from_text(path: AnyPath, column: str | None, n_rows: int | None) -> np.ndarray:
    """Labels a line; errors name the line."""
    is_csv = path.suffix.lower() == ".csv"
    with path.open(encoding="utf-8-sig", newline="" if is_csv else None) as file:
        rows = list(csv.reader(file, strict=True)) if is_csv else [[line] for line in file]
    words = [row[0].strip() if row else "" for row in rows]
    while words and not words[-1]:
        words.pop()
    wide = next((i for i, row in enumerate(rows) if len(row) > 1), None)
    if wide is not None:
        raise DataError(f"{path}: line {wide + 1:,} has {len(rows[wide])} values. Write one label a line.")
    others = [i for i, word in enumerate(words) if not NUMBER.fullmatch(word)]
    gap = next((i for i in others if not words[i]), None)
    if gap is None and len(others) < len(words) and all(words[i].lower() in MISSING for i in others):
        gap = next(iter(others), None)
    if gap is not None:
        raise DataError(
            f"{path}: line {gap + 1:,} has no label. Leave such rows out, of the matrix too, or fill it in."
        )
    if not others:
        return of_numbers([int(word) if WHOLE.fullmatch(word) else float(word) for word in words], str(path))
    if others == [0] and len(words) > 1:
        raise DataError(f"{path}: line 1 is {words[0][:40]!r}, all others are numbers. Remove the header.")
    odd = set(others)
    if any(i not in odd and not WHOLE.fullmatch(word) for i, word in enumerate(words)):  # whole numbers may be codes
        raise DataError(f"{path}: line {others[0] + 1:,} is {words[others[0]][:40]!r}, others are numbers. Correct it.")
    return np.array(words)


def _chosen(names: Sequence[str], column: str | None, kind: str, uri: str) -> str:
    """``column``, or the only one of ``names``."""
    shown = (", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")) or "none"
    if column is None and len(names) == 1:
        return names[0]
    if column is None:
        raise DataError(f"{uri}: has {len(names)} {kind} ({shown}). Choose one with column= (--label-column).")
    if column not in names:
        raise DataError(f"{uri}: has no {column!r}. Its {kind} are {shown}.")
    return column


READERS: dict[str, Callable[[AnyPath, str | None, int | None], np.ndarray]] = {
    "npy": _from_npy,
    "npz": _from_npz,
    "arrow": _from_arrow,
    "parquet": _from_parquet,
    "text": _from_text,
    "idx": _from_idx,
}
