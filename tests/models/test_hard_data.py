"""Data that lead arithmetic astray: each found by an adversary, and checked against plain NumPy in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse

import lazypipe as lp
from lazypipe.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")


def test_no_row_of_the_head_is_free_of_nan(serial_engine):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 3)).astype(np.float32) + np.float32(1000)
    x[:, 1] = (x[:, 0] + x[:, 1]) / 2
    x[:256, 2] = np.nan
    whole = x[256:].astype(float)
    want = np.cov(whole.T)
    found = lp.covariance(x, nan="omit", engine=serial_engine)
    np.testing.assert_allclose(found.covariance, want, atol=1e-6)
    pca = lp.PCA(1, nan="omit").fit(x, engine=serial_engine)
    np.testing.assert_allclose(pca.explained_variance_[0], np.linalg.eigvalsh(want)[-1], rtol=1e-6)


@pytest.mark.parametrize("first", [0.0, np.nan])
def test_a_head_unlike_the_rest(first, serial_engine):
    x = np.random.default_rng(0).standard_normal((50_000, 3)).astype(np.float32) + np.float32(1000)
    x[:256] = first
    rows = x[~np.isnan(x).any(axis=1)].astype(float)
    found = lp.covariance(x, nan="omit", engine=serial_engine)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("solver", ["covariance", "gradient", "auto"])
def test_scales_about_zero_are_about_the_mean(solver, serial_engine):
    rng = np.random.default_rng(0)
    x = np.column_stack([300 + rng.standard_normal(3000), 3000 + rng.standard_normal(3000)]).astype(np.float32)
    constant = np.column_stack([np.ones(3000, np.float32), x])
    pca = lp.PCA(1, solver=solver, center=False, scale=True).fit(constant, engine=serial_engine)
    np.testing.assert_allclose(pca.scale_[1:], x.std(axis=0, ddof=1, dtype=float), rtol=1e-4)
    assert pca.scale_[0] == 1 and pca.n_constant_columns_ == 1
    scaled = constant.astype(float) / np.r_[1, x.std(axis=0, ddof=1, dtype=float)]
    want = np.linalg.eigvalsh(scaled.T @ scaled / 3000)[-1]
    np.testing.assert_allclose(pca.explained_variance_[0], want, rtol=1e-4)


@pytest.mark.parametrize("solver", ["covariance", "gradient", "gram"])
def test_float64_keeps_what_varies_far_from_zero(solver, serial_engine):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 2))
    x[:, 0] = 1.7e9 + 100 * x[:, 0]  # seconds of an epoch
    x[:, 1] += (x[:, 0] - 1.7e9) / 100
    want = np.corrcoef(x.T)
    np.testing.assert_allclose(lp.covariance(x, scale=True, engine=serial_engine).covariance, want, atol=1e-6)
    pca = lp.PCA(1, solver=solver, scale=True).fit(x, engine=serial_engine)
    np.testing.assert_allclose(pca.explained_variance_[0], np.linalg.eigvalsh(want)[-1], rtol=1e-6)


def certificate_holds(pca, x, centred=True):
    """Eigenvalues and residuals against float64."""
    x = x.astype(float)
    y = x - x.mean(axis=0) if centred else x
    degrees = len(x) - centred
    components = pca.components_.astype(float)
    product = components @ y.T @ y / degrees
    true = np.linalg.norm(product - pca.explained_variance_[:, None] * components, axis=1) / pca.explained_variance_
    want = np.sort(np.linalg.eigvalsh(y @ y.T if len(y) < y.shape[1] else y.T @ y))[::-1][: len(components)] / degrees
    assert (np.abs(pca.explained_variance_ - want) <= pca.eigenvalue_bounds_).all()
    assert (true <= 1.5 * pca.residuals_).all(), true / pca.residuals_


@pytest.mark.parametrize("solver", ["gram", "gradient", "covariance"])
@pytest.mark.parametrize("shape", [(2000, 40), (60, 3000), (60, 40)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certificates_hold_over_a_wide_spectrum(solver, shape, dtype, serial_engine):
    rng = np.random.default_rng(0)
    k = min(shape)
    x = (rng.standard_normal((shape[0], k)) * np.logspace(0, -2.5, k)) @ np.linalg.qr(
        rng.standard_normal((shape[1], k))
    )[0].T
    x = x.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pca = lp.PCA(25, solver=solver).fit(x, engine=serial_engine)
    certificate_holds(pca, x)


def test_sparse_rows_with_a_large_dense_column_say_how_much_they_lost(tmp_path, serial_engine):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((300, 40)) < 0.1, rng.standard_normal((300, 40)), 0).astype(np.float32)
    x[:, 0] = 2000 + 5 * rng.standard_normal(300)
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(x))
    want = np.linalg.eigvalsh(np.cov(x.astype(float).T))[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pca = lp.PCA(1, solver="gradient").fit(tmp_path / "x.npz", engine=serial_engine)
    assert abs(pca.explained_variance_[0] - want) <= pca.eigenvalue_bounds_[0]


@pytest.mark.parametrize("center", [True, False])
def test_gaps_are_filled_with_the_means_of_the_fit(center, tmp_path, serial_engine):
    x = np.array([[5, 1.0], [5, 2], [np.nan, 3], [5, 2.5]])
    pca = lp.PCA(1, center=center, nan="mean").fit(x, engine=serial_engine)
    filled = np.where(np.isnan(x), 5.0, x)
    want = (filled - (filled.mean(axis=0) if center else 0)) @ pca.components_.T
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_allclose(pca.transform(x), want, atol=1e-9)
    np.testing.assert_allclose(pca.transform(tmp_path / "x.npy", engine=serial_engine), want, atol=1e-9)
    np.testing.assert_allclose(np.square(want).sum(), pca.singular_values_[0] ** 2, rtol=1e-6)


def test_a_nan_in_rows_to_transform_is_named(serial_engine):
    pca = lp.PCA(1).fit(np.random.default_rng(0).normal(size=(20, 3)), engine=serial_engine)
    with pytest.raises(DataError, match=r"the rows given: NaN at row 1, column 2 "):
        pca.transform(np.array([[1, 2, 3], [1, 2, np.nan]]))


@pytest.mark.parametrize("solver", ["gradient", "gram", "deflation", "auto"])
@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_as_many_components_as_rows_about_zero(n_rows, solver, serial_engine):
    x = np.random.default_rng(0).standard_normal((n_rows, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pca = lp.PCA(n_rows, solver=solver, center=False, max_passes=5_000).fit(x, engine=serial_engine)
    assert pca.components_.shape == (n_rows, 40)
    want = np.linalg.svd(x, compute_uv=False) ** 2 / n_rows
    np.testing.assert_allclose(pca.explained_variance_, want, rtol=1e-5)


def test_one_row_about_its_mean_has_no_variance(serial_engine):
    for solver in ("auto", "gradient", "gram"):
        with pytest.raises((DataError, lp.PlanError)):
            lp.PCA(1, solver=solver).fit(np.ones((1, 40)), engine=serial_engine)


@pytest.mark.parametrize("solver", ["gradient", "gram", "covariance"])
def test_an_allele_that_everybody_has_is_constant_under_weights(solver, serial_engine):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.binomial(2, 0.4, (50, 5)).astype(np.uint8)
        x[:, 3] = 2
        pca = lp.PCA(1, solver=solver, scale="genotype", row_weights=rng.random(50) * 3).fit(x, engine=serial_engine)
        assert pca.n_constant_columns_ == 1
        assert abs(pca.components_[0, 3]) < 1e-6


@pytest.mark.parametrize("options", [{"row_weights": True}, {"scale": True}, {"nan": "omit"}])
def test_grown_data_go_on_from_a_state_whatever_was_asked(options, tmp_path, serial_engine):
    """With solver="auto" the better solver may be another one for more rows, and weights are more."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 5)) * [5, 4, 3, 2, 1]) @ rng.standard_normal((5, 200)) + rng.normal(size=(500, 200))
    weights = rng.random(500) + 0.5
    path = tmp_path / "x.npy"

    def fit(n_rows):
        np.save(path, x[:n_rows])
        some = {**options, "row_weights": weights[:n_rows]} if "row_weights" in options else options
        return lp.PCA(3, tol=1e-8, **some).fit(path, engine=serial_engine, state=tmp_path / "state")

    fit(100)
    grown = fit(500)
    some = {**options, "row_weights": weights} if "row_weights" in options else options
    want = lp.PCA(3, tol=1e-8, **some).fit(x, engine=serial_engine)
    np.testing.assert_allclose(grown.explained_variance_, want.explained_variance_, rtol=1e-6)


def test_tiles_take_numpys_indices(tmp_path, serial_engine):
    x = np.random.default_rng(0).normal(size=(300, 100))
    tiled = lp.covariance(x, out=tmp_path / "c.zarr", engine=serial_engine).covariance
    want = np.asarray(tiled)
    np.testing.assert_allclose(want, np.cov(x.T), atol=1e-12)
    for at in (..., (..., 0), (0, ...), (3,), (slice(5, 9), ...), (..., slice(1, 3), slice(2, 4))):
        np.testing.assert_array_equal(tiled[at], want[at])
    for wrong in ((0, 1, 2), (None, 0)):
        with pytest.raises(IndexError, match="two axes"):
            tiled[wrong]
    (tmp_path / "c.zarr" / "mean" / "c" / "0").unlink()
    with pytest.raises(DataError, match="these means are torn or missing"):
        _ = tiled.mean


@pytest.mark.parametrize("what", ["tiles", "scores"])
def test_overwrite_replaces_nothing_but_its_own(what, tmp_path, serial_engine):
    x = np.random.default_rng(0).normal(size=(50, 20))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "work.zarr").mkdir()
    (tmp_path / "work.zarr" / "thesis").write_text("years")
    pca = lp.PCA(2).fit(x, engine=serial_engine)

    def write(target):
        if what == "tiles":
            return lp.covariance(tmp_path / "x.npy", out=tmp_path / target, overwrite=True, engine=serial_engine)
        return pca.transform(tmp_path / "x.npy", out=tmp_path / target, overwrite=True, engine=serial_engine)

    with pytest.raises(DataError, match="so it is not replaced"):
        write("work.zarr")
    assert (tmp_path / "work.zarr" / "thesis").read_text() == "years"
    if what == "tiles":
        with pytest.raises(lp.ConfigError, match=r"is no \.zarr"):
            write("x.npy")
    write("own.zarr")
    write("own.zarr")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)


def test_weights_that_leave_nothing_are_blamed(serial_engine):
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(DataError, match=r"weights of its rows sum to 1\.5, too little for ddof=2"):
        lp.covariance(x, ddof=2, row_weights=np.full(20, 0.075), engine=serial_engine)
    with pytest.raises(lp.ConfigError, match="ddof: nan is no number of 0 or above"):
        lp.covariance(x, ddof=float("nan"), engine=serial_engine)


@pytest.mark.parametrize("options", [{"tol": "x"}, {"max_passes": "9"}, {"seed": -1}, {"seed": "a"}])
def test_parameters_of_a_wrong_kind_are_named(options, serial_engine):
    (name,) = options
    with pytest.raises(lp.ConfigError, match=f"^{name}: "):
        lp.PCA(1, **options).fit(np.eye(5), engine=serial_engine)


@pytest.mark.parametrize("seed", [11, 29, 33, 35])
@pytest.mark.parametrize("rotated", [True, False])
def test_eigenvalues_that_are_equal_are_all_found(seed, rotated, serial_engine):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 60))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(399)
    if rotated:
        x = x @ np.linalg.qr(rng.standard_normal((60, 60)))[0]
    pca = lp.PCA(4, solver="covariance").fit(x, engine=serial_engine)
    np.testing.assert_allclose(pca.explained_variance_, np.ones(4), rtol=1e-12)
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("nan", ["raise", "omit", "mean"])
@pytest.mark.parametrize("kind", ["array", "source"])
def test_infinity_has_no_scores(nan, kind, tmp_path, serial_engine):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    pca = lp.PCA(2, nan=nan).fit(x, engine=serial_engine)
    x[7, 3] = np.inf
    rows = x
    if kind == "source":
        np.save(tmp_path / "x.npy", x)
        rows = tmp_path / "x.npy"
    with pytest.raises(DataError, match="infinity at row 7, column 3"):
        pca.transform(rows, engine=serial_engine)
    if nan == "omit":
        x[7, 3] = np.nan
        np.save(tmp_path / "x.npy", x)
        scores = pca.transform(rows, engine=serial_engine)
        assert np.flatnonzero(np.isnan(scores).any(axis=1)).tolist() == [7]


@pytest.mark.parametrize("wrong", [-9, 9])
@pytest.mark.parametrize(
    ("solver", "sparse"),
    [("gram", False), ("covariance", False), ("gradient", False), ("covariance", True), ("gradient", True)],
)
def test_what_counts_no_alleles_is_no_genotype(solver, sparse, wrong, tmp_path, serial_engine):
    x = np.random.default_rng(0).integers(0, 3, (60, 20)).astype(np.float32)
    x[13, 5] = wrong
    source = x
    if sparse:
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(x))
        source = tmp_path / "x.npz"
    with pytest.raises(DataError, match=f"{wrong} at row 13, column 5 counts no alleles"):
        lp.PCA(2, solver=solver, scale="genotype").fit(source, engine=serial_engine)


@pytest.mark.parametrize("method", ["normal", "tsqr"])
def test_nothing_is_significant_for_a_constant(method, serial_engine):
    x = np.random.default_rng(0).standard_normal((500, 3))
    model = lp.LinearRegression(method=method).fit(x, np.full(500, 7.3), engine=serial_engine)
    assert model.coef_.tolist() == [0, 0, 0]
    assert model.intercept_ == pytest.approx(7.3, rel=1e-12)
    assert np.isnan(model.p_values_).all()
    assert np.isnan(model.r2_)


def test_a_panel_that_is_missing_is_not_zero(tmp_path, serial_engine):
    lp.convert(np.random.default_rng(0).standard_normal((30, 200)), tmp_path / "x.zarr", panel_columns=64)
    chunks = sorted(path for path in (tmp_path / "x.zarr" / "c").rglob("*") if path.is_file())
    chunks[1].unlink()
    with pytest.raises(DataError, match=r"1: this chunk is missing\. Write or copy"):
        lp.PCA(2).fit(tmp_path / "x.zarr", engine=serial_engine)


@pytest.mark.parametrize("nan", ["omit", "mean"])
@pytest.mark.parametrize("model", ["covariance", "pca"])
@pytest.mark.parametrize("sparse", [False, True])
def test_an_infinity_is_at_fault_and_not_the_nan_before_it(nan, model, sparse, tmp_path, serial_engine):
    x = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    x[0, 0], x[3, 2] = np.nan, np.inf
    source = x
    if sparse:
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_array(x))
        source = tmp_path / "x.npz"
    with pytest.raises(DataError, match="infinity at row 3, column 2"):
        if model == "pca":
            lp.PCA(2, nan=nan).fit(source, engine=serial_engine)
        else:
            lp.covariance(source, nan=nan, engine=serial_engine)


def test_numbers_of_numpy_are_kept_like_others(tmp_path, serial_engine):
    """States and stores say in JSON what they were made with."""
    x = np.random.default_rng(0).standard_normal((60, 200))
    np.save(tmp_path / "x.npy", x)
    plain = {"n_components": 2, "solver": "gradient", "seed": 3, "scale": True}
    other = {"n_components": np.int64(2), "solver": "gradient", "seed": np.int64(3), "scale": np.True_}
    one, again = (
        lp.PCA(**options).fit(tmp_path / "x.npy", engine=serial_engine, state=tmp_path / "state")
        for options in (other, plain)
    )
    assert again.n_passes_recalled_ > 0
    np.testing.assert_array_equal(one.components_, again.components_)
    for ddof in (np.int64(0), 0.5):
        tiled = lp.covariance(x, ddof, out=tmp_path / f"c{ddof}.zarr", engine=serial_engine).covariance
        assert tiled.ddof == ddof
        np.testing.assert_allclose(tiled[0, 0], x[:, 0].var() * 60 / (60 - ddof))
