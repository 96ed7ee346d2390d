"""Rows that tasks write: in any order, twice, and at once, they stand whole; what is no such store is told apart."""

import socket

import numpy as np
import pyarrow.parquet as pq
import pytest

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.row_store import RowStore, is_store

VALUES = np.random.default_rng(0).normal(size=(10, 3))


def filled(path):
    store = RowStore(str(path), path.suffix, *VALUES.shape, 4)
    store.create()
    for start in (8, 0, 4, 0):
        store.write(Span(start, min(start + 4, 10)), VALUES[start : start + 4])
    return store


def content(path):
    matrix = open_matrix(path)
    out = np.empty(matrix.shape)
    with matrix.open() as reader:
        reader.read(Span(0, 10), Span(0, 3), out)
    return out


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_chunks_come_in_any_order_and_twice(suffix, tmp_path):
    filled(tmp_path / f"s{suffix}")
    np.testing.assert_array_equal(content(tmp_path / f"s{suffix}"), VALUES)
    assert is_store(tmp_path / f"s{suffix}")


def test_a_part_that_two_machines_write_at_once_is_whole_and_neither_fails(tmp_path, monkeypatch):
    """As where a worker that was given up comes back."""
    store, write = filled(tmp_path / "s.parquet"), pq.write_table

    def meanwhile(table, path):
        write(table, path)
        monkeypatch.setattr(pq, "write_table", write)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
            store.write(Span(0, 4), VALUES[:4])

    monkeypatch.setattr(pq, "write_table", meanwhile)
    store.write(Span(0, 4), VALUES[:4])
    np.testing.assert_array_equal(content(tmp_path / "s.parquet"), VALUES)
    assert sorted(p.name for p in (tmp_path / "s.parquet").iterdir()) == [f"part-00000{i}.parquet" for i in range(3)]


def test_what_a_killed_worker_left_of_a_part_is_no_other_file(tmp_path):
    filled(tmp_path / "s.parquet")
    (tmp_path / "s.parquet" / ".part-000001.parquet.partial-elsewhere-7").touch()
    assert is_store(tmp_path / "s.parquet")
    np.testing.assert_array_equal(content(tmp_path / "s.parquet"), VALUES)


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_folders_with_other_things_are_no_stores(suffix, tmp_path):
    path = tmp_path / f"s{suffix}"
    path.mkdir()
    assert not is_store(path)
    (path / "zarr.json").write_text('{"attributes": {"kind": "another"}}')
    assert not is_store(path)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(DataError, match=r"s\.parquet: a worker does not see this folder\. Write to a folder that all"):
        RowStore(str(tmp_path / "s.parquet"), ".parquet", 10, 3, 4).write(Span(0, 4), VALUES[:4])
