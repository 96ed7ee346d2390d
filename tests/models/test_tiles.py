"""A covariance in tiles on disk equals the one in memory, is read in any part, and its faults are named."""

import tracemalloc

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazypipe as lp
from lazypipe.io.tile_store import tile_path

N_ROWS, N_COLUMNS = 90, 70


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_ROWS, 5)) @ rng.normal(size=(5, N_COLUMNS)) + rng.normal(4, 1, (N_ROWS, N_COLUMNS))


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiles") / "cov.zarr"
    with lp.open_engine("serial", memory="64MiB") as engine:
        return lp.covariance(data, engine=engine, out=path).covariance


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint8", "bool"])
def test_tiles_equal_numpy_in_every_dtype(dtype, tmp_path, serial_engine):
    x = np.random.default_rng(1).normal(40, 20, (N_ROWS, N_COLUMNS)).clip(0, 120).astype(dtype)
    found = lp.covariance(x, engine=serial_engine, out=tmp_path / "c.zarr")
    want = np.cov(x.astype(float).T)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(found.covariance[:, :], want, atol=tolerance * np.abs(want).max())
    np.testing.assert_allclose(found.mean, x.mean(axis=0, dtype=float), rtol=1e-9)
    # In a column of zeros with a few ones, each float32 sum of equal small terms rounds the same way.
    bound = 1e-12 if dtype == "float64" else N_ROWS * 2**-24
    np.testing.assert_allclose(found.covariance.diagonal(), want.diagonal(), rtol=bound)


def test_float32_keeps_its_digits_over_many_rows_and_large_means(tmp_path):
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(20_000, 40)) + 1e4 * rng.normal(size=40)).astype(np.float32)
    want = np.cov(x.astype(float).T)
    for memory in ("16MiB", "256MiB"):  # row blocks; whole stripes
        with lp.open_engine("serial", memory=memory) as engine:
            found = lp.covariance(x, engine=engine, out=tmp_path / "c.zarr", overwrite=True)
        deviation = np.sqrt(want.diagonal())
        assert np.abs((found.covariance[:, :] - want) / np.outer(deviation, deviation)).max() < 1e-6
        np.testing.assert_allclose(found.mean, x.mean(axis=0, dtype=float), rtol=1e-12)


OPTIONS = {
    "ddof 0": {"ddof": 0},
    "about zero": {"center": False},
    "correlation": {"scale": True},
    "weighted": {"row_weights": np.random.default_rng(3).integers(0, 3, N_ROWS)},
    "omit": {"nan": "omit"},
    "fill": {"nan": "mean"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_tiles_equal_the_covariance_in_memory(options, data, tmp_path, serial_engine):
    x = data.copy()
    if "nan" in OPTIONS[options]:
        x[[3, 17], [5, 60]] = np.nan
    want = lp.covariance(x, engine=serial_engine, **OPTIONS[options])
    found = lp.covariance(x, engine=serial_engine, out=tmp_path / "c.zarr", **OPTIONS[options])
    np.testing.assert_allclose(found.covariance[:, :], want.covariance, atol=1e-11)
    np.testing.assert_allclose(found.mean, want.mean, atol=1e-11)
    assert (found.n_rows, found.weight) == (want.n_rows, want.weight)


@pytest.mark.parametrize("options", [{"row_weights": np.arange(20_000) % 3}, {"nan": "omit"}, {"nan": "mean"}])
def test_tiles_of_prepared_rows_stay_under_the_plan(options, tmp_path):
    x = np.random.default_rng(4).normal(size=(20_000, 64)).astype(np.float32)
    if "nan" in options:
        x[3, 5] = np.nan
    np.save(tmp_path / "x.npy", x)
    with lp.open_engine("serial", memory="64MiB") as engine:
        lp.covariance(tmp_path / "x.npy", engine=engine, out=tmp_path / "a.zarr", **options)  # loads what it needs
        tracemalloc.start()
        try:
            plan = lp.covariance(tmp_path / "x.npy", engine=engine, out=tmp_path / "b.zarr", **options).plan
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak <= plan.arrays_nbytes


def test_the_same_bits_on_every_engine(data, tmp_path, serial_engine, cluster_engine):
    a = lp.covariance(data, engine=serial_engine, out=tmp_path / "a.zarr").covariance
    b = lp.covariance(data, engine=cluster_engine, out=tmp_path / "b.zarr").covariance
    np.testing.assert_array_equal(a[:, :], b[:, :])


span = st.tuples(st.integers(0, N_COLUMNS), st.integers(0, N_COLUMNS)).map(lambda p: slice(min(p), max(p)))
some = st.lists(st.integers(0, N_COLUMNS - 1), min_size=1, max_size=9)


@given(rows=st.one_of(span, some, st.integers(-N_COLUMNS, N_COLUMNS - 1)), columns=st.one_of(span, some))
@settings(max_examples=60, deadline=None)
def test_any_part_is_read_as_numpy_would(rows, columns, store):
    whole = store[:, :]
    np.testing.assert_array_equal(whole, whole.T)
    np.testing.assert_array_equal(store[rows, columns], whole[rows][..., columns])


def test_a_part_reads_no_more_than_its_tiles(store, monkeypatch):
    read = []
    monkeypatch.setattr(
        lp.TiledCovariance, "_tile", lambda self, i, j: read.append((i, j)) or np.zeros((store.tile,) * 2)
    )
    store[0 : store.tile, store.tile : 2 * store.tile]
    assert read == [(0, 1)]
    store[store.tile : 2 * store.tile, 0 : store.tile]
    assert read == [(0, 1), (0, 1)]


def test_the_store_is_zarr_that_anyone_reads(store):
    group = zarr.open_group(str(store.path), mode="r")
    upper = np.triu(np.ones(store.shape, bool))
    np.testing.assert_array_equal(group["covariance"][:][upper], store[:, :][upper])
    np.testing.assert_array_equal(group["mean"][:], store.mean)
    assert np.isnan(group["covariance"][-1, 0]), "the lower triangle is not stored"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_torn_tile_is_named(damage, data, tmp_path, serial_engine):
    store = lp.covariance(data, engine=serial_engine, out=tmp_path / "c.zarr").covariance
    path = tile_path(store.path, 0, 1)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[100] ^= 1
        path.write_bytes(content[:-9] if damage == "truncated" else content)
    with pytest.raises(lp.DataError, match="torn") as caught:
        store[:, :]
    assert "\n" not in str(caught.value)
    store[0:2, 0:2]  # the others are as they were


def test_refusals(data, tmp_path, serial_engine, monkeypatch):
    out = tmp_path / "c.zarr"
    lp.covariance(data, engine=serial_engine, out=out)
    with pytest.raises(lp.DataError, match="exists"):
        lp.covariance(data, engine=serial_engine, out=out)
    with pytest.raises(lp.ConfigError, match="keep their own state"):
        lp.covariance(data, engine=serial_engine, out=tmp_path / "d.zarr", state=tmp_path / "s")
    with pytest.raises(lp.DataError, match="no store of covariance tiles"):
        lp.TiledCovariance(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(lp.DataError, match="e.zarr: needs .*, 1000B are free"):
        lp.covariance(data, engine=serial_engine, out=tmp_path / "e.zarr")
    assert not list(tmp_path.glob(".e.zarr*")), "nothing was computed, and nothing is left"


def test_the_plan_tells_the_size_before_anything_is_read(tmp_path, serial_engine):
    class Unread(type(lp.open_matrix(np.zeros((2, 2))))):
        def open(self, mapped=False):
            raise AssertionError("a plan must not read")

    wide = Unread(np.broadcast_to(np.float32(0), (1_000, 70_000)))
    plan = lp.plan_covariance(wide, engine=serial_engine, out=tmp_path / "c.zarr")
    assert 70_000**2 * 2 < plan.output_nbytes < 1.2 * 70_000**2 * 2
    assert plan.arrays_nbytes <= serial_engine.host.memory
    assert "tiles of" in str(plan)
    assert "of disk free" in str(plan)


def test_an_array_of_it_is_a_copy(store):
    assert np.asarray(store, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="no array without a copy"):
        np.asarray(store, copy=False)
