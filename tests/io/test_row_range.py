"""Neighbouring rows of a matrix as a matrix: what it reads, which files it names, and what it refuses."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from matrix_writers import list_table

import lazypipe as lp
from lazypipe.blocks import Span
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Piece
from lazypipe.io.row_range import row_range

VALUES = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "m.npy", VALUES)
    return tmp_path / "m.npy"


@pytest.mark.parametrize(("start", "stop"), [(0, 50), (0, 30), (30, 50), (7, 8)])
def test_it_is_that_part(path, start, stop):
    whole = open_matrix(path)
    part, wanted = row_range(whole, start, stop), VALUES[start:stop]
    assert part.shape == wanted.shape and part.dtype == np.float32 and part.nbytes == wanted.nbytes
    assert part.reads_columns == whole.reads_columns and not part.sparse and part.panel_columns is None
    found = np.empty((len(wanted), 3))
    with part.open() as reader:
        reader.read(Span(0, len(wanted)), Span(2, 5), found)
    np.testing.assert_array_equal(found, wanted[:, 2:5])
    with part.open(mapped=True) as reader:
        np.testing.assert_array_equal(reader.view(Span(2, 5), np.dtype(np.float32)), wanted[:, 2:5])
    assert part.pieces() == (Piece(str(path), Span(0, len(wanted))),)
    with lp.open_engine("serial") as engine:
        if len(wanted) > 1:
            cov = lp.covariance(part, engine=engine)
            np.testing.assert_allclose(cov.covariance, np.cov(wanted, rowvar=False), rtol=1e-5, atol=1e-6)


def test_names_and_fingerprints_tell_parts_apart(path):
    whole = open_matrix(path)
    parts = [row_range(whole, *ends) for ends in ((0, 30), (30, 50), (1, 30))]
    assert [part.uri for part in parts] == [f"{path}[:30]", f"{path}[30:]", f"{path}[1:30]"]
    assert len({whole.fingerprint(), *(part.fingerprint() for part in parts)}) == 4
    assert parts[0].fingerprint() == row_range(open_matrix(path), 0, 30).fingerprint()


def test_a_nan_is_named_by_its_row_in_the_part(tmp_path):
    values = VALUES.copy()
    values[33, 4] = np.nan
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(lp.DataError, match=r"m\.npy\[30:\]: NaN at row 3, column 4"):
        lp.covariance(row_range(open_matrix(tmp_path / "m.npy"), 30, 50))


def test_pieces_of_several_files_are_cut(tmp_path):
    (tmp_path / "m.parquet").mkdir()
    for i, rows in enumerate(np.split(VALUES, [15, 35])):
        pq.write_table(list_table(rows), tmp_path / "m.parquet" / f"{i}.parquet")
    cut = row_range(open_matrix(tmp_path / "m.parquet"), 20, 40).pieces()
    assert [(piece.path[-9:], piece.rows) for piece in cut] == [("1.parquet", Span(0, 15)), ("2.parquet", Span(15, 20))]


def test_sparse_rows(tmp_path):
    sp.save_npz(tmp_path / "s.npz", sp.csr_array(VALUES * (VALUES > 0.5)), compressed=False)
    part = row_range(open_matrix(tmp_path / "s.npz"), 20, 45)
    with part.open() as reader:
        found = reader.read_rows(Span(5, 15), np.dtype(np.float32)).toarray()
    np.testing.assert_array_equal(found, (VALUES * (VALUES > 0.5))[25:35])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 5), (0, 51), (50, 51)])
def test_rows_that_are_not_there(path, start, stop):
    with pytest.raises(lp.DataError, match=r"m\.npy: has no rows .*Give a part of 0:50"):
        row_range(open_matrix(path), start, stop)


def test_readers_stay_within_it(path):
    with row_range(open_matrix(path), 10, 20).open() as reader, pytest.raises(lp.DataError, match="not all inside"):
        reader.read(Span(0, 11), Span(0, 6), np.empty((11, 6)))


def test_readers_of_sparse_rows_stay_within_it(tmp_path):
    sp.save_npz(tmp_path / "s.npz", sp.csr_array(VALUES), compressed=False)
    part = row_range(open_matrix(tmp_path / "s.npz"), 10, 20)
    with part.open() as reader, pytest.raises(lp.DataError, match=r"s\.npz\[10:20\]: rows 0:11 are not all inside"):
        reader.read_rows(Span(0, 11), part.dtype)
