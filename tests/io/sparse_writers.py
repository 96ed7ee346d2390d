"""Every format's writer of sparse rows, and rows to write, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from matrix_writers import write_ipc

from lazypipe.blocks import Span
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert


def random_rows(shape: tuple[int, int], dtype: str = "float32", density: float = 0.4, seed: int = 0) -> sp.csr_array:
    """Rows of random entries; the last one and about one in four are empty."""
    random = np.random.default_rng(seed)
    there = random.random(shape) < density
    there[random.random(shape[0]) < 0.25] = False
    there[-1] = False
    row, column = np.nonzero(there)
    values = random.integers(0 if dtype[0] in "ub" else -9, 2 if dtype == "bool" else 9, len(row)).astype(dtype)
    ends = np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int32)
    return sp.csr_array((values, column.astype(np.int32), ends), shape=shape)


def whole(source: Path | str) -> sp.csr_array:
    matrix = open_matrix(source)
    with matrix.open() as reader:
        return reader.read_rows(Span(0, matrix.shape[0]), matrix.dtype)


def csr_table(rows: sp.csr_array, stated: bool = True, large: bool = False, wide: bool = False) -> pa.Table:
    """``rows`` as list columns; ``large`` lists, ``wide`` indices; ``stated`` in the metadata how many columns."""
    kind, ends = (pa.LargeListArray, np.int64) if large else (pa.ListArray, np.int32)
    indices = pa.array(rows.indices.astype(np.int64 if wide else np.int32))
    columns = [kind.from_arrays(rows.indptr.astype(ends), flat) for flat in (indices, pa.array(rows.data))]
    table = pa.table(columns, ["indices", "values"])
    return table.replace_schema_metadata({"n_columns": str(rows.shape[1])}) if stated else table


def _ipc(name: str, compression: str | None = None, **kind: bool) -> Callable[[Path, sp.csr_array], Path]:
    def write(folder: Path, rows: sp.csr_array) -> Path:
        write_ipc(folder / name, csr_table(rows, **kind), 3, compression)
        return folder / name

    return write


def _ipc_sliced(folder: Path, rows: sp.csr_array) -> Path:
    table = csr_table(rows)
    padded = pa.concat_tables([table.slice(0, 1), table, table.slice(0, 1)]).combine_chunks()
    write_ipc(folder / "s.arrow", padded.slice(1, rows.shape[0]), 2)
    return folder / "s.arrow"


def _parquet(folder: Path, rows: sp.csr_array) -> Path:
    pq.write_table(csr_table(rows, wide=True), folder / "m.parquet", row_group_size=3)
    return folder / "m.parquet"


def _parts(folder: Path, rows: sp.csr_array) -> Path:
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for old in parts.iterdir():
        old.unlink()
    for start in range(0, rows.shape[0], 4):
        pq.write_table(csr_table(rows).slice(start, 4), parts / f"part-{start:04}.parquet", row_group_size=3)
    return parts


def _npz(name: str, compressed: bool, kind: type = sp.csr_array) -> Callable[[Path, sp.csr_array], Path]:
    def write(folder: Path, rows: sp.csr_array) -> Path:
        sp.save_npz(folder / name, kind(rows), compressed=compressed)
        return folder / name

    return write


def _npz_wide(folder: Path, rows: sp.csr_array) -> Path:
    """Indices of int64 and all numbers in the other byte order."""
    stored = {"indptr": rows.indptr.astype(">i8"), "indices": rows.indices.astype(">i8")}
    data = rows.data.astype(rows.dtype.newbyteorder(">"))
    np.savez(folder / "w.npz", data=data, format=b"csr", shape=np.array(rows.shape), **stored)
    return folder / "w.npz"


def _converted(name: str, source: str) -> Callable[[Path, sp.csr_array], Path]:
    def write(folder: Path, rows: sp.csr_array) -> Path:
        memory = 5_000 + 100 * rows.nnz + (1 << 23)
        return convert(SPARSE_WRITERS[source](folder, rows), folder / name, overwrite=True, memory=memory)

    return write


SPARSE_WRITERS: dict[str, Callable[[Path, sp.csr_array], Path]] = {
    "arrow": _ipc("m.arrow"),
    "arrow-large-lists": _ipc("l.arrow", large=True, wide=True),
    "arrow-compressed": _ipc("z.arrow", "zstd"),
    "arrow-sliced": _ipc_sliced,
    "arrow-converted": _converted("c.arrow", "npz-compressed"),
    "parquet": _parquet,
    "parquet-parts": _parts,
    "parquet-converted": _converted("c.parquet", "arrow"),
    "npz": _npz("m.npz", compressed=False),
    "npz-matrix": _npz("s.npz", compressed=False, kind=sp.csr_matrix),
    "npz-wide": _npz_wide,
    "npz-compressed": _npz("z.npz", compressed=True),
}
