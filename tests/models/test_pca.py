"""PCA against scikit-learn and NumPy's SVD, on both sides of the matrix, with every solver."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA as ReferencePCA

import lazypipe as lp

SOLVERS = ("gradient", "deflation", "gram", "covariance", "auto")


def low_rank(n_rows: int, n_columns: int, seed: int = 0, dtype=np.float64) -> np.ndarray:
    """Rows with a decaying spectrum, a mean far from zero, and noise."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n_rows, 12)) * 2.0 ** -np.arange(12)
    x = 30 * signal @ np.linalg.qr(rng.normal(size=(n_columns, 12)))[0].T
    return (x + 0.01 * rng.normal(size=x.shape) + 5 * rng.normal(size=n_columns)).astype(dtype)


def true_residuals(x: np.ndarray, pca: lp.PCA) -> np.ndarray:
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    v = pca.components_.astype(np.float64).T
    image = centred.T @ (centred @ v) / (len(x) - 1)
    return np.linalg.norm(image - v * pca.explained_variance_, axis=0) / pca.explained_variance_


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(60, 500), (500, 60), (80, 80)], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equals_scikit_learn(solver, shape, dtype, serial_engine):
    x = low_rank(*shape, dtype=dtype)
    tol = 1e-9 if dtype == np.float64 else 1e-5
    pca = lp.PCA(4, solver=solver, tol=tol).fit(x, engine=serial_engine)
    want = ReferencePCA(4, svd_solver="full").fit(x.astype(np.float64))
    digits = 1e-8 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(pca.explained_variance_, want.explained_variance_, rtol=digits)
    np.testing.assert_allclose(pca.explained_variance_ratio_, want.explained_variance_ratio_, rtol=digits)
    np.testing.assert_allclose(pca.mean_, want.mean_, atol=digits)
    overlap = np.abs((pca.components_.astype(np.float64) * want.components_).sum(axis=1))
    np.testing.assert_allclose(overlap, 1, atol=digits)
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(4), atol=digits)
    assert (np.take_along_axis(pca.components_, np.abs(pca.components_).argmax(1)[:, None], 1) > 0).all()
    assert pca.converged_ and (pca.n_samples_, pca.n_features_in_) == shape


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(60, 500), (500, 60)], ids=["wide", "tall"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_residuals_say_what_is_true(solver, shape, dtype, serial_engine):
    x = low_rank(*shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.ConvergenceWarning)
        pca = lp.PCA(4, solver=solver, tol=1e-9, max_passes=9).fit(x, engine=serial_engine)
    truth = true_residuals(x, pca)
    assert (truth <= 3 * pca.residuals_ + 1e-14).all(), (truth, pca.residuals_)
    above_rounding = truth > 1e-5
    np.testing.assert_allclose(pca.residuals_[above_rounding], truth[above_rounding], rtol=0.05)


@given(
    n_rows=st.integers(3, 30),
    n_columns=st.integers(2, 30),
    seed=st.integers(0, 99),
    solver=st.sampled_from(["gradient", "gram", "covariance"]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_small_matrix(n_rows, n_columns, seed, solver, data, serial_engine):
    x = np.random.default_rng(seed).normal(2, 1, (n_rows, n_columns))
    k = data.draw(st.integers(1, min(n_rows - 1, n_columns)))
    pca = lp.PCA(k, solver=solver, tol=1e-8).fit(x, engine=serial_engine)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(pca.explained_variance_, singular[:k] ** 2 / (n_rows - 1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shape", [(200, 3_000), (3_000, 200)], ids=["wide", "tall"])
def test_engines_give_the_same_bits(shape, tmp_path, serial_engine, cluster_engine):
    np.save(tmp_path / "x.npy", low_rank(*shape, dtype=np.float32))
    pcas = [
        lp.PCA(5, solver="gradient", tol=1e-4).fit(tmp_path / "x.npy", engine=engine)
        for engine in (serial_engine, cluster_engine)
    ]
    for name in ("components_", "explained_variance_", "mean_", "residuals_"):
        np.testing.assert_array_equal(getattr(pcas[0], name), getattr(pcas[1], name))


def test_transform_and_back(tmp_path, serial_engine):
    x = low_rank(80, 300)
    pca = lp.PCA(6, tol=1e-10).fit(x, engine=serial_engine)
    reference = ReferencePCA(6, svd_solver="full").fit(x)
    signs = np.sign((pca.components_ * reference.components_).sum(axis=1))
    np.testing.assert_allclose(pca.transform(x), reference.transform(x) * signs, atol=1e-6)
    np.testing.assert_allclose(
        pca.inverse_transform(pca.transform(x)),
        reference.inverse_transform(reference.transform(x)),
        atol=1e-6,
    )
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_allclose(pca.transform(tmp_path / "x.npy"), pca.transform(x), atol=1e-12)
    with pytest.raises(lp.DataError, match="299 columns, but the components have 300"):
        pca.transform(x[:, :299])


def test_a_fixed_step_is_the_textbooks_ascent(serial_engine):
    x = low_rank(40, 90)
    fixed = lp.PCA(2, solver="deflation", step=1.0, tol=1e-5).fit(x, engine=serial_engine)
    want = ReferencePCA(2, svd_solver="full").fit(x)
    np.testing.assert_allclose(fixed.explained_variance_, want.explained_variance_, rtol=1e-8)


def test_a_fit_that_stops_early_warns_and_says_by_how_much(serial_engine):
    x = np.random.default_rng(0).normal(size=(100, 400))
    with pytest.warns(lp.ConvergenceWarning, match=r"stopped after 4 passes at a relative residual of \d\.\de"):
        pca = lp.PCA(5, solver="gradient", max_passes=4).fit(x, engine=serial_engine)
    assert not pca.converged_ and pca.n_passes_ == 4
    assert pca.residuals_.max() > 1e-6


@pytest.mark.parametrize("solver", ["gradient", "deflation"])
@pytest.mark.parametrize("shape", [(100, 300), (300, 100)], ids=["wide", "tall"])
@pytest.mark.parametrize("scale", [False, True])
def test_no_fit_takes_more_passes_than_allowed(solver, shape, scale, serial_engine):
    x = np.random.default_rng(0).normal(size=shape)

    def fit(max_passes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lp.ConvergenceWarning)
            warnings.simplefilter("ignore", lp.ClosePairWarning)
            return lp.PCA(10, solver=solver, max_passes=max_passes, scale=scale).fit(x, engine=serial_engine)

    wide_and_scaled = scale and shape[0] < shape[1]  # means by a pass of their own, and another for the components
    least = 3 if solver == "gradient" else 21 + wide_and_scaled
    for max_passes in (least, least + 7):
        assert fit(max_passes).n_passes_ <= max_passes
    with pytest.raises(lp.ConfigError, match=f"max_passes: {least - 1} is too few .* Give {least} or more"):
        fit(least - 1)


def test_every_pass_is_told(tmp_path):
    events = []
    np.save(tmp_path / "x.npy", low_rank(50, 400))
    with lp.open_engine("serial", progress=lp.progress.Progress((events.append,))) as engine:
        pca = lp.PCA(3, solver="gradient").fit(tmp_path / "x.npy", engine=engine)
    passes = [event for event in events if isinstance(event, lp.progress.PassDone)]
    assert [event.index for event in passes] == [entry["pass"] for entry in pca.history_]
    assert passes[-1].residual <= 1e-6
    stages = [event for event in events if isinstance(event, lp.progress.StageStarted)]
    assert len(stages) == pca.n_passes_


@pytest.mark.parametrize(
    ("x", "k", "error", "words"),
    [
        (np.ones((20, 30)), 2, lp.DataError, "every column is constant"),
        (np.outer(np.arange(20.0), np.arange(30.0)), 2, lp.DataError, "more than the rank: only 1 "),
        (np.eye(5), 5, lp.PlanError, "n_components=5 is more than the rank, which is at most 4"),
        (np.zeros((1, 9)), 1, lp.PlanError, "1 row has no variance"),
        (np.eye(9), 0, lp.ConfigError, "n_components: 0"),
    ],
    ids=["constant", "rank", "shape", "one row", "none"],
)
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_has_no_such_components_is_refused(x, k, error, words, solver, serial_engine):
    for matrix in (x, x.T) if x.shape[0] > 1 and k < 5 else (x,):
        with pytest.raises(error, match=words) as caught:
            lp.PCA(k, solver=solver).fit(matrix, engine=serial_engine)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(40, 900), (900, 40)], ids=["wide", "tall"])
@pytest.mark.parametrize("solver", ["gradient", "gram", "covariance"])
def test_nan_and_infinity_are_named(value, shape, solver, tmp_path, cluster_engine):
    x = low_rank(*shape, dtype=np.float32)
    x[17, 33] = value
    np.save(tmp_path / "bad.npy", x)
    what = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(lp.DataError, match=rf"bad.npy: {what} at row 17, column 33 \(first of 1"):
        lp.PCA(3, solver=solver).fit(tmp_path / "bad.npy", engine=cluster_engine)
