"""Any rows of any sparse format are the rows of the scipy array that was written; what is wrong is refused."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matrix_writers import write_ipc
from sparse_writers import SPARSE_WRITERS, csr_table

from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import convert, csr, npz, open_matrix
from lazypipe.io.csr import EntryCounter
from lazypipe.io.raw_csr import RawCsrMatrix


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


def assert_same(got: sp.csr_array, expected: sp.csr_array, dtype: np.dtype) -> None:
    assert got.shape == expected.shape
    assert got.dtype == dtype
    assert got.has_sorted_indices
    assert got.has_canonical_format
    for name in ("indptr", "indices"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    np.testing.assert_array_equal(got.data, expected.data.astype(dtype))


def memory_of(rows: sp.csr_array) -> int:
    return rows.indptr.nbytes + rows.indices.nbytes + rows.data.nbytes


@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
@pytest.mark.parametrize("format", SPARSE_WRITERS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_equal_the_slice(format, dtype, tmp_path, data):
    shape = data.draw(st.tuples(st.integers(2, 14), st.integers(2, 9)))
    rows = random_rows(shape, dtype, seed=data.draw(st.integers(0, 99)))
    matrix = pickle.loads(pickle.dumps(open_matrix(SPARSE_WRITERS[format](tmp_path, rows))))
    assert (matrix.shape, matrix.dtype, matrix.nnz) == (shape, np.dtype(dtype), rows.nnz)
    assert matrix.sparse
    assert not matrix.reads_columns
    with matrix.open() as reader:
        for target in (np.dtype(dtype), np.dtype(np.float64)):
            for _ in range(3):
                start = data.draw(st.integers(0, shape[0]))
                stop = data.draw(st.integers(start, shape[0]))
                got = reader.read_rows(Span(start, stop), target)
                expected = slice_of(rows, start, stop)
                assert_same(got, expected, target)
                assert memory_of(got) <= matrix.block_nbytes(stop - start, shape[1], target.itemsize)
                got.data[:] = 0  # the caller's own: the next read must not see it
                got.indices[:] = 0


def slice_of(rows: sp.csr_array, start: int, stop: int) -> sp.csr_array:
    """``rows[start:stop]`` for any dtype (scipy does not slice float16)."""
    ends = rows.indptr[start : stop + 1]
    entries = slice(ends[0], ends[-1])
    return sp.csr_array(
        (rows.data[entries], rows.indices[entries], ends - ends[0]), shape=(stop - start, rows.shape[1])
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_rows_hold_more_than_the_counts_say(data):
    seed, n_rows = data.draw(st.integers(0, 1 << 30)), data.draw(st.integers(1, 3000))
    random = np.random.default_rng(seed)
    lengths = (random.pareto(0.8, n_rows) * 3).astype(np.int64).clip(0, 10_000)
    counter = EntryCounter()
    cuts = np.sort(random.integers(0, n_rows + 1, data.draw(st.integers(0, 5))))
    for part in np.split(lengths, cuts):
        counter.add(part)
    counts, sums = counter.counts(), np.concatenate([[0], np.cumsum(lengths)])
    assert counts.nnz == sums[-1] == counts.most(n_rows)
    assert counts.most(1) == lengths.max()
    for n in random.integers(1, n_rows + 1, 10):
        assert counts.most(int(n)) >= (sums[n:] - sums[:-n]).max()


def test_counts_of_windows_do_not_depend_on_the_parts():
    lengths = np.random.default_rng(0).integers(0, 9, 200_000)
    whole_counter, parted = EntryCounter(), EntryCounter()
    whole_counter.add(lengths)
    for part in np.split(lengths, [1, 16, 17, 300, 70_001]):
        parted.add(part)
    assert parted.counts() == whole_counter.counts()
    for window, largest in zip(csr.WINDOWS, parted.counts().largest, strict=True):
        assert largest == max(lengths[i : i + window].sum() for i in range(0, len(lengths), window))


def test_long_rows_cross_the_parts_that_are_checked_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(csr, "CHECKED_AT_ONCE", 7)
    rows = random_rows((30, 40))
    assert_same(whole(SPARSE_WRITERS["npz"](tmp_path, rows)), rows, np.dtype(np.float32))
    for at in range(1, rows.nnz):
        indices = rows.indices.copy()
        indices[at] = indices[at - 1]
        same_row = at not in rows.indptr
        rises = same_row and (at + 1 in rows.indptr or indices[at + 1] > indices[at])
        if same_row or not rises:
            bad = sp.csr_array((rows.data, indices, rows.indptr), shape=rows.shape)
            ordered = all(np.all(np.diff(indices[a:b]) > 0) for a, b in zip(rows.indptr, rows.indptr[1:], strict=False))
            if not ordered:
                with pytest.raises(DataError, match="a second time|not sorted"):
                    whole(SPARSE_WRITERS["npz"](tmp_path, bad))


@pytest.mark.parametrize("format", ["arrow", "arrow-compressed", "parquet", "parquet-parts"])
def test_without_metadata_the_largest_index_tells_the_columns(format, tmp_path, monkeypatch):
    rows = random_rows((9, 12))
    monkeypatch.setattr("sparse_writers.csr_table", lambda rows, **kind: csr_table(rows, **{**kind, "stated": False}))
    assert open_matrix(SPARSE_WRITERS[format](tmp_path, rows)).shape == (9, rows.indices.max() + 1)


@pytest.mark.parametrize("format", SPARSE_WRITERS)
def test_the_fingerprint_follows_the_data(format, tmp_path):
    path = SPARSE_WRITERS[format](tmp_path, random_rows((11, 5)))
    before = open_matrix(path).fingerprint()
    assert before == open_matrix(str(path)).fingerprint()
    assert open_matrix(SPARSE_WRITERS[format](tmp_path, random_rows((11, 5), seed=1))).fingerprint() != before


def test_what_is_read_in_place_and_what_the_pieces_are(tmp_path):
    rows = random_rows((11, 5))
    matrices = {name: open_matrix(write(tmp_path, rows)) for name, write in SPARSE_WRITERS.items()}
    in_place = {name for name, matrix in matrices.items() if isinstance(matrix, RawCsrMatrix)}
    assert in_place == {
        "arrow",
        "arrow-large-lists",
        "arrow-sliced",
        "arrow-converted",
        "npz",
        "npz-matrix",
        "npz-wide",
    }
    for matrix in matrices.values():
        pieces = matrix.pieces()
        assert [piece.rows.start for piece in pieces[1:]] == [piece.rows.stop for piece in pieces[:-1]]
        assert pieces[-1].rows.stop == 11
        assert len(pickle.dumps(matrix)) < 2000
    assert matrices["npz"].nbytes == rows.nnz * 8 + 8 * 11
    assert len(matrices["arrow"].pieces()) == 4


def test_more_columns_than_int32_counts(tmp_path):
    n_columns = 1 << 33
    indices, ends = np.array([0, 5, n_columns - 1, 1 << 32]), np.array([0, 3, 4])
    rows = sp.csr_array((np.ones(4, np.float32), indices, ends), shape=(2, n_columns))
    for format in ("npz", "npz-compressed"):
        assert_same(whole(SPARSE_WRITERS[format](tmp_path, rows)), rows, np.dtype(np.float32))
        got = whole(convert(tmp_path / "m.npz", tmp_path / "c.parquet", overwrite=True))
        assert got.indices.dtype == np.int64
        assert_same(got, rows, np.dtype(np.float32))


def test_readers_share_one_decompressed_file(tmp_path):
    matrix = open_matrix(SPARSE_WRITERS["npz-compressed"](tmp_path, random_rows((30, 20))))
    assert matrix.reader_nbytes(1, 20) >= matrix.nnz * 8
    with matrix.open(), matrix.open():
        first = npz.DECOMPRESSED.of(matrix)
        assert npz.DECOMPRESSED.of(pickle.loads(pickle.dumps(matrix))) is first
    npz.DECOMPRESSED.release()
    assert npz.DECOMPRESSED.of(matrix) is not first


def test_nan_is_a_value(tmp_path):
    rows = random_rows((6, 5))
    rows.data[1] = np.nan
    for format in ("arrow", "parquet", "npz"):
        assert np.isnan(whole(SPARSE_WRITERS[format](tmp_path, rows)).data).sum() == 1


# What is refused -------------------------------------------------------------------------------------------

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


def other_format(kind: str):
    def write(folder: Path) -> Path:
        sp.save_npz(folder / "m.npz", sp.csr_array(np.eye(4)).asformat(kind))
        return folder / "m.npz"

    return write


def truncated(folder: Path) -> Path:
    path = npz_of(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def table_of(metadata: dict | None = None, **columns: pa.Array):
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / "m.parquet")
        return folder / "m.parquet"

    return write


def parts(second: pa.Table):
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


# Convert ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize("format", SPARSE_WRITERS)
def test_convert_reads_every_format(format, suffix, tmp_path):
    rows = random_rows((40, 7), "int16")
    memory = 9_000_000 if "npz-c" not in format else 20_000
    path = convert(SPARSE_WRITERS[format](tmp_path, rows), tmp_path / "out" / f"x{suffix}", memory=memory)
    assert_same(whole(path), rows, np.dtype(np.int16))


def test_convert_cuts_into_blocks_and_sorts(tmp_path, monkeypatch):
    monkeypatch.setattr("lazypipe.io.convert_sparse.BLOCK_NBYTES", 300)
    rows = random_rows((40, 7))
    backwards = sp.csr_array((rows.data, rows.indices, rows.indptr), shape=rows.shape)
    for a, b in zip(rows.indptr, rows.indptr[1:], strict=False):
        backwards.indices[a:b], backwards.data[a:b] = rows.indices[a:b][::-1].copy(), rows.data[a:b][::-1].copy()
    rows.sort_indices()
    path = convert(SPARSE_WRITERS["npz"](tmp_path, backwards), tmp_path / "x.arrow")
    assert len(open_matrix(path).pieces()) >= 5
    assert_same(whole(path), rows, np.dtype(np.float32))


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
