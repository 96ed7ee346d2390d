"""Column stripes used where they lie: what a view shows is what reading gives, and nobody writes through it."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import lazypipe as lp
from lazypipe.blocks import Span, apart
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert

PLACES = ["array", "npy", "zarr"]


def place(kind: str, values: np.ndarray, folder):
    """The same matrix, where views of its stripes exist."""
    if kind == "array":
        return open_matrix(values)
    np.save(folder / "m.npy", values)
    if kind == "npy":
        return open_matrix(folder / "m.npy")
    return open_matrix(convert(folder / "m.npy", folder / "m.zarr", panel_columns=96, overwrite=True))


@pytest.fixture
def values():
    """Means that are large for float32, so that every solver shifts its blocks; the last panel is narrow."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(60, 5)) * 2.0 ** -np.arange(5)
    return (spread @ rng.normal(size=(5, 1_000)) + 100 + 0.01 * rng.normal(size=(60, 1_000))).astype(np.float32)


@pytest.mark.parametrize("kind", PLACES)
def test_a_view_shows_what_is_read(kind, values, tmp_path):
    matrix = place(kind, values, tmp_path)
    with matrix.open(mapped=True) as reader:
        for start in range(0, 1_000, 96):
            stripe = Span(start, min(start + 96, 1_000))
            np.testing.assert_array_equal(reader.view(stripe, np.dtype(np.float32)), values[:, stripe.slice])
        assert reader.view(Span(0, 96), np.dtype(np.float64)) is None, "another dtype has to be made"


def test_panels_show_whole_panels_alone(values, tmp_path):
    with place("zarr", values, tmp_path).open() as reader:
        for stripe in (Span(0, 95), Span(1, 96), Span(0, 192), Span(96, 1_000)):
            assert reader.view(stripe, np.dtype(np.float32)) is None
        shown = reader.view(Span(0, 96), np.dtype(np.float32))
        shown[:] = 7  # stays with whoever holds it
        np.testing.assert_array_equal(reader.view(Span(0, 96), np.dtype(np.float32)), values[:, :96])


def test_rows_show_nothing_without_room_for_a_map(values, tmp_path):
    with place("npy", values, tmp_path).open(mapped=False) as reader:
        assert reader.view(Span(0, 96), np.dtype(np.float32)) is None


@pytest.mark.parametrize("written_by", ["convert", "zarr"])
def test_a_torn_panel_is_named_and_a_missing_one_is_filled_where_zarr_may_leave_it_out(written_by, values, tmp_path):
    matrix = place("zarr", values, tmp_path)
    if written_by == "zarr":
        zarr.open_array(tmp_path / "m.zarr").attrs.clear()
        matrix = open_matrix(tmp_path / "m.zarr")
    chunks = sorted((tmp_path / "m.zarr" / "c" / "0").iterdir(), key=lambda path: int(path.name))
    chunks[1].write_bytes(chunks[1].read_bytes()[:-1])
    chunks[2].unlink()
    with matrix.open() as reader:
        with pytest.raises(DataError, match=r"m\.zarr/c/0/1: holds .* it is torn\. Write or copy"):
            reader.view(Span(96, 192), np.dtype(np.float32))
        out = np.ones((60, 96), np.float32)
        if written_by == "convert":
            for read in (lambda at: reader.view(at, out.dtype), lambda at: reader.read(Span(0, 60), at, out)):
                with pytest.raises(DataError, match=r"m\.zarr/c/0/2: this chunk is missing\. Write or copy"):
                    read(Span(192, 288))
            return
        assert reader.view(Span(192, 288), np.dtype(np.float32)) is None
        reader.read(Span(0, 60), Span(192, 288), out)
        assert not out.any()


@pytest.mark.parametrize("solver", ["gradient", "gram", "deflation"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_fit_leaves_its_source_alone(kind, solver, values, tmp_path):
    before = values.copy()
    values.flags.writeable = kind != "array"  # an in-place shift of the caller's array would raise
    matrix = place(kind, values, tmp_path)
    content = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with lp.open_engine("serial", memory="64MiB") as engine:
        pca = lp.PCA(3, solver=solver, tol=1e-4, max_passes=2_000).fit(matrix, engine=engine)
    np.testing.assert_array_equal(values, before)
    assert content == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    centred = before - before.mean(axis=0, dtype=float)
    want = np.linalg.eigvalsh(centred @ centred.T / 59)[::-1][:3]
    np.testing.assert_allclose(pca.explained_variance_, want, rtol=1e-4)


def test_stripes_are_an_odd_number_of_cache_line_pairs():
    assert [apart(width) for width in (1, 31, 32, 63, 64, 95, 96, 128, 1_048, 1_056)] == (
        [1, 31, 32, 32, 32, 32, 96, 96, 992, 1_056]
    )
