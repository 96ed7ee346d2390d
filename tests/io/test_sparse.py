"""Any rows of any sparse format are the rows of the scipy array that was written; what is wrong is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sparse_writers import SPARSE_WRITERS, csr_table, random_rows, whole

from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError
from lazypipe.io import csr, npz, open_matrix
from lazypipe.io.convert import convert
from lazypipe.io.csr import EntryCounter
from lazypipe.io.raw_csr import RawCsrMatrix


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
    assert npz.DECOMPRESSED.of(matrix) is first, "as long as a reader holds it"


def test_nan_is_a_value(tmp_path):
    rows = random_rows((6, 5))
    rows.data[1] = np.nan
    for format in ("arrow", "parquet", "npz"):
        assert np.isnan(whole(SPARSE_WRITERS[format](tmp_path, rows)).data).sum() == 1


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
