"""A run that is refused leaves states, stores and other people's files as they were."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import lazypipe as lp
from lazypipe.errors import ConfigError, DataError


@pytest.fixture
def x(tmp_path):
    values = np.random.default_rng(0).standard_normal((300, 40))
    np.save(tmp_path / "x.npy", values)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("model", ["covariance", "pca"])
def test_a_refused_run_keeps_the_state(model, x, tmp_path, serial_engine):
    state = tmp_path / "state"

    def run(**options):
        if model == "covariance":
            return lp.covariance(x, engine=serial_engine, state=state, **options).covariance
        restart = options.pop("restart", False)
        pca = lp.PCA(3, solver="covariance", **options)
        return pca.fit(x, engine=serial_engine, state=state, restart=restart).components_

    before = run()
    files = {path.name: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(ConfigError, match="'mean' fills in other values"):
        run(nan="mean", restart=True)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == files
    np.testing.assert_array_equal(run(), before)


@pytest.mark.parametrize("solver", ["gram", "covariance", "gradient"])
def test_another_config_does_not_touch_a_state(solver, x, tmp_path, serial_engine):
    def fit(**options):
        return lp.PCA(3, **{"solver": solver, **options}).fit(x, engine=serial_engine, state=tmp_path / "state")

    before = fit().components_
    files = {path.name for path in (tmp_path / "state").iterdir()}
    other = "gradient" if solver != "gradient" else "gram"
    for options in ({"nan": "omit"}, {"solver": other}, {"scale": True}):
        with pytest.raises(DataError, match="was made with"):
            fit(**options)
    assert {path.name for path in (tmp_path / "state").iterdir()} == files
    np.testing.assert_array_equal(fit().components_, before)


@pytest.mark.parametrize("what", ["tiles", "array", "folder"])
def test_scores_replace_scores_alone(what, x, tmp_path, serial_engine):
    pca = lp.PCA(2).fit(x, engine=serial_engine)
    out = tmp_path / ("s.parquet" if what == "folder" else "s.zarr")
    if what == "tiles":
        lp.covariance(x, out=out, engine=serial_engine)
    elif what == "array":
        zarr.create_array(str(out), data=np.ones((3, 3)))
    else:
        pca.transform(x, out=out, engine=serial_engine)
        (out / "thesis.txt").write_text("years")
    names = sorted(str(path) for path in out.rglob("*"))
    with pytest.raises(DataError, match="so it is not replaced"):
        pca.transform(x, out=out, overwrite=True, engine=serial_engine)
    assert sorted(str(path) for path in out.rglob("*")) == names


@pytest.mark.parametrize("first", [0, 11])
def test_a_nan_is_named_where_it_is_in_tiles(first, x, tmp_path, serial_engine):
    values = np.load(x)
    values[123, first] = np.nan
    np.save(x, values)
    with pytest.raises(DataError, match=f"NaN at row 123, column {first} "):
        lp.covariance(x, out=tmp_path / "c.zarr", engine=serial_engine)


def test_tiles_that_were_begun_from_other_data_can_be_let_go(x, tmp_path, serial_engine):
    good = np.load(x)
    bad = good.copy()
    bad[0, 39] = np.nan
    np.save(x, bad)
    out = tmp_path / "c.zarr"
    with pytest.raises(DataError, match="NaN"):
        lp.covariance(x, out=out, engine=serial_engine)
    np.save(x, good)
    with pytest.raises(DataError, match=r"tiles of another run.*pass overwrite=True"):
        lp.covariance(x, out=out, engine=serial_engine)
    found = lp.covariance(x, out=out, overwrite=True, engine=serial_engine)
    np.testing.assert_allclose(found.covariance[:, :], np.cov(good.T), rtol=1e-10, atol=1e-12)
    assert not list(tmp_path.glob(".c.zarr*"))


def test_a_link_to_a_store_stays_a_link(x, tmp_path, serial_engine):
    lp.covariance(x, out=tmp_path / "real.zarr", engine=serial_engine)
    link = tmp_path / "link.zarr"
    link.symlink_to(tmp_path / "real.zarr")
    for _ in range(2):
        lp.covariance(x, out=link, overwrite=True, engine=serial_engine)
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.zarr", "real.zarr", "x.npy"]


@pytest.mark.parametrize("what", ["tiles", "scores"])
def test_a_path_that_cannot_be_is_named(what, x, tmp_path, serial_engine):
    (tmp_path / "file.txt").write_text("")
    out = tmp_path / "file.txt" / "x.zarr"
    with pytest.raises(DataError, match=r"cannot be written.*[Ww]rite elsewhere"):
        if what == "tiles":
            lp.covariance(x, out=out, engine=serial_engine)
        else:
            lp.PCA(2).fit(x, engine=serial_engine).transform(x, out=out, engine=serial_engine)


@pytest.mark.parametrize("model", [lp.PCA(2), lp.LinearRegression()], ids=["PCA", "LinearRegression"])
def test_a_model_that_is_not_fitted_says_so(model):
    ask = model.transform if isinstance(model, lp.PCA) else model.predict
    with pytest.raises(lp.NotFittedError, match="is not fitted yet. Call fit first"):
        ask(np.ones((2, 2)))


@pytest.mark.parametrize("solver", ["gradient", "gram"])
def test_a_state_of_an_array_that_was_changed_in_place_is_not_taken_for_its_own(solver, tmp_path, serial_engine):
    rows = np.random.default_rng(0).normal(size=(300, 30_000))  # 69 MiB: few of its entries would not tell
    lp.PCA(1, solver=solver, tol=1e-2).fit(rows, state=tmp_path / "state", engine=serial_engine)
    rows[17, 1] = 1e6
    with pytest.raises(DataError, match="changed since .*, with as many rows"):
        lp.PCA(1, solver=solver, tol=1e-2).fit(rows, state=tmp_path / "state", engine=serial_engine)
