"""Sparse rows that are wrong are refused in one line that names the row, or the file, and says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from matrix_writers import write_ipc
from sparse_writers import SPARSE_WRITERS, random_rows, whole

from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert

ENDS = [0, 2, 2, 5]


def listed(indices: list, ends: list[int] | None = None, n_columns: str = "9") -> pa.Table:
    values = pa.array(np.ones(len(indices), np.float32))
    columns = [pa.ListArray.from_arrays(pa.array(ENDS, pa.int32()), pa.array(indices, pa.int32()))]
    columns.append(pa.ListArray.from_arrays(pa.array(ends or ENDS, pa.int32()), values))
    return pa.table(columns, ["indices", "values"]).replace_schema_metadata({"n_columns": n_columns})


BAD_ROWS = {
    "too large": (listed([0, 1, 0, 9, 2]), "row 2, entry 1, has index 9, outside the 9 columns"),
    "negative": (listed([0, 1, 3, -1, 4]), "row 2, entry 1, has index -1, outside the 9 columns"),
    "unsorted": (listed([0, 1, 3, 5, 4]), r"row 2, entry 2, has index 4 after 5: not sorted. Call sort_indices()"),
    "twice": (listed([0, 1, 3, 3, 4]), r"row 2, entry 1, has index 3 a second time. Call sum_duplicates()"),
    "lengths": (listed([0, 1, 3, 4, 5], [0, 2, 3, 5]), "row 1 has 0 indices and 1 values: entry 0 lacks one of them"),
    "null": (listed([0, 1, 3, None, 5]), "missing value (null) at row 2, entry 1, of column 'indices'"),
    "null row": (
        pa.table({"indices": pa.array([[1], None]), "values": pa.array([[1.0], [2.0]])}),
        "missing value (null) at row 1, column 'indices'",
    ),
}


@pytest.mark.parametrize("suffix", [".arrow", ".z.arrow", ".parquet"])
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_bad_rows_are_named_when_they_are_read(bad, suffix, tmp_path):
    table, message = BAD_ROWS[bad]
    path = tmp_path / f"m{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        write_ipc(path, table, 2, "lz4" if suffix.startswith(".z") else None)
    matrix = open_matrix(path)
    with matrix.open() as reader:
        for rows in (Span(0, matrix.shape[0]), Span(1, matrix.shape[0])):
            with pytest.raises(DataError, match=re.escape(message)) as caught:
                reader.read_rows(rows, np.dtype(np.float32))
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_bad_rows_of_npz(compressed, tmp_path):
    for indices, message in (
        ([0, 1 << 40], "row 0, entry 1, has index"),
        ([2, 1], "row 0, entry 1, has index 1 after 2"),
        ([-3, 1], "row 0, entry 0, has index -3, outside the 4 columns"),
    ):
        path = npz_of(tmp_path, compressed, indices=np.array(indices))
        with pytest.raises(DataError, match=message):
            whole(path)


def npz_of(folder: Path, compressed: bool = False, **changed: object) -> Path:
    members: dict = {
        "indptr": np.array([0, 2]), "indices": np.array([0, 1]), "data": np.ones(2, np.float32),
        "shape": np.array([1, 4]), "format": b"csr",
    }  # fmt: skip
    members = {name: value for name, value in (members | changed).items() if value is not None}
    (np.savez_compressed if compressed else np.savez)(folder / "m.npz", **members)
    return folder / "m.npz"


def other_format(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sp.save_npz(folder / "m.npz", sp.csr_array(np.eye(4)).asformat(kind))
        return folder / "m.npz"

    return write


def truncated(folder: Path) -> Path:
    path = npz_of(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def table_of(metadata: dict | None = None, **columns: pa.Array) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / "m.parquet")
        return folder / "m.parquet"

    return write


def parts(second: pa.Table) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "parts").mkdir()
        for name, table in (("a", listed([0, 1, 3, 4, 5])), ("b", second)):
            pq.write_table(table, folder / "parts" / f"{name}.parquet")
        return folder / "parts"

    return write


INDICES, VALUES = pa.array([[0, 1]], pa.list_(pa.int32())), pa.array([[1.0, 2.0]])
CANNOT_BE_OPENED = {
    "csc": (other_format("csc"), r"format 'csc', .*Save matrix\.tocsr\(\)"),
    "coo": (other_format("coo"), r"format 'coo', .*Save matrix\.tocsr\(\)"),
    "plain npz": (lambda f: npz_of(f, format=None), r"holds data, indices, indptr, shape, which is no sparse matrix"),
    "lacks data": (lambda f: npz_of(f, data=None), r"lacks data\. Save a CSR matrix"),
    "lengths of npz": (lambda f: npz_of(f, data=np.ones(3)), r"2 indices and 3 data, which do not fit together"),
    "indptr too short": (lambda f: npz_of(f, indptr=np.array([0, 1])), r"rows have 1 entries together, .* are 2"),
    "indptr falls": (
        lambda f: npz_of(f, indptr=np.array([0, 2, 1]), shape=np.array([2, 4])),
        r"row 1 is said to be entries 2:1 of 2",
    ),
    "int64 values": (lambda f: npz_of(f, data=np.ones(2, np.int64)), r"holds dtype int64\. Convert it to one of"),
    "truncated npz": (truncated, r"is a damaged \.npz file"),
    "no rows": (
        lambda f: npz_of(f, indptr=np.array([0]), indices=np.ones(0, int), data=np.ones(0), shape=[0, 4]),
        r"is empty: no rows, shape \(0, 4\)",
    ),
    "unsigned": (table_of(indices=INDICES.cast(pa.list_(pa.uint32())), values=VALUES), "Convert it to lists of int32"),
    "text": (table_of(indices=INDICES, values=pa.array([["a", "b"]])), r"'values' has type list<.*string>.*no number"),
    "n_columns": (table_of({"n_columns": "many"}, indices=INDICES, values=VALUES), r"n_columns='many'\. Write a whole"),
    "parts' columns": (parts(listed([0, 1, 3, 4, 5], n_columns="8")), r"b\.parquet: .* say 8 columns, .* part 9"),
    "parts' types": (parts(pa.table({"x": [1.0]})), r"b\.parquet: its columns or types differ from those of a"),
}  # fmt: skip


@pytest.mark.parametrize("case", CANNOT_BE_OPENED)
def test_what_cannot_be_opened(case, tmp_path):
    write, message = CANNOT_BE_OPENED[case]
    with pytest.raises(DataError, match=message) as caught:
        open_matrix(write(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_cut_after_it_was_opened(tmp_path):
    path = SPARSE_WRITERS["arrow"](tmp_path, random_rows((50, 40)))
    matrix = open_matrix(path)
    path.write_bytes(path.read_bytes()[:1000])
    with matrix.open() as reader, pytest.raises(DataError, match="has become shorter"):
        reader.read_rows(Span(0, 50), matrix.dtype)
    with matrix.open() as reader, pytest.raises(DataError, match="not all inside its shape"):
        reader.read_rows(Span(0, 51), matrix.dtype)


def test_convert_refuses(tmp_path):
    path = SPARSE_WRITERS["npz-compressed"](tmp_path, random_rows((400, 70)))
    with pytest.raises(
        DataError, match=r"not written to \.npy, which would store every zero\. Use \.arrow or \.parquet"
    ):
        convert(path, tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"a dense matrix is not written to \.parquet"):
        convert(np.ones((3, 3)), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no svmlight text\. Leave out n_columns and zero_based"):
        convert(path, tmp_path / "x.arrow", n_columns=3)
    with pytest.raises(MemoryPlanError, match=r"converting needs .* memory is 1,000\. Raise memory"):
        convert(path, tmp_path / "x.arrow", memory=1000)
    with pytest.raises(DataError, match="a second time"):
        convert(npz_of(tmp_path, indices=np.array([1, 1])), tmp_path / "x.arrow")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.npz", "z.npz"]
