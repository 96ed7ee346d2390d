"""What is done inside the passes equals doing it to a copy first: on every solver, and for the covariance."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazypipe as lp

SOLVERS = ("gradient", "gram", "covariance", "deflation")
SHAPES = {"wide": (60, 150), "tall": (150, 60)}


def data(shape, seed=0):
    rng = np.random.default_rng(seed)
    rank = 8
    scores = rng.normal(size=(shape[0], rank)) * 3.0 ** -np.arange(rank)
    x = scores @ rng.normal(size=(rank, shape[1])) * 5 + rng.normal(size=shape) * 0.02
    return x + rng.normal(size=shape[1]) * 3


def weights_for(n):
    return np.random.default_rng(2).integers(0, 3, n).astype(float)


def gappy(x, seed=3, rows=0.1):
    x = x.copy()
    rng = np.random.default_rng(seed)
    for i in np.flatnonzero(rng.random(len(x)) < rows):
        x[i, rng.integers(x.shape[1])] = np.nan
    return x


def reference(x, center=True, scale=False, nan="raise", row_weights=None):
    """The prepared copy, rows repeated as often as they weigh, and its eigenpairs by SVD in float64."""
    x = np.asarray(x, float)
    if row_weights is not None:
        x = np.repeat(x, np.asarray(row_weights, int), axis=0)
    if nan == "omit":
        x = x[~np.isnan(x).any(axis=1)]
    elif nan == "mean":
        x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    mean = x.mean(axis=0)
    if scale is True:
        x, mean = x / x.std(axis=0, ddof=1), mean / x.std(axis=0, ddof=1)
    elif scale == "genotype":
        p = mean / 2
        gain = 1 / np.sqrt(2 * p * (1 - p))
        x, mean = x * gain, mean * gain
    x = x - mean if center else x
    _, s, v = np.linalg.svd(x, full_matrices=False)
    degrees = len(x) - 1 if center else len(x)
    return s**2 / degrees, v, x


CHOICES = {
    "plain": {},
    "about zero": {"center": False},
    "scaled": {"scale": True},
    "scaled about zero": {"scale": True, "center": False},
    "weighted": {"row_weights": True},
    "weighted, scaled": {"row_weights": True, "scale": True},
    "weighted about zero": {"row_weights": True, "center": False},
    "omit": {"nan": "omit"},
    "fill": {"nan": "mean"},
    "fill, scaled": {"nan": "mean", "scale": True},
    "fill, scaled about zero": {"nan": "mean", "scale": True, "center": False},
    "omit, weighted, scaled": {"nan": "omit", "row_weights": True, "scale": True},
}


@pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", CHOICES)
def test_every_preparation_on_every_solver_equals_a_prepared_copy(solver, shape, options, serial_engine):
    options = dict(CHOICES[options])
    x = data(SHAPES[shape])
    if "nan" in options:
        x = gappy(x)
    if "row_weights" in options:
        options["row_weights"] = weights_for(len(x))
    values, components, prepared = reference(x, **options)
    pca = lp.PCA(4, solver=solver, tol=1e-9, **options).fit(x, engine=serial_engine)
    np.testing.assert_allclose(pca.explained_variance_, values[:4], rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(pca.components_ * components[:4], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(pca.total_variance_, values.sum(), rtol=1e-9)
    assert pca.residuals_.max() < 1e-8
    true = np.arccos(np.minimum(1, np.abs(np.sum(pca.components_ * components[:4], axis=1))))
    assert (true <= pca.angle_bounds_ + 1e-7).all()  # arccos of 1 - 1e-16 is 1e-8
    assert (np.abs(pca.explained_variance_ - values[:4]) <= pca.eigenvalue_bounds_ + 1e-9 * values[0]).all()
    if "nan" not in options and "row_weights" not in options:
        scores = pca.transform(x)
        np.testing.assert_allclose(scores, prepared @ pca.components_.T, atol=1e-8 * np.abs(scores).max())
        rows = pca.inverse_transform(scores)
        full = lp.PCA(59, solver="gram" if shape == "wide" else "covariance", **options).fit(x, engine=serial_engine)
        assert np.abs(full.inverse_transform(full.transform(x)) - x).max() < np.abs(rows - x).max()


@pytest.mark.parametrize("kind", ["genotype"])
@pytest.mark.parametrize("solver", ["gradient", "gram", "covariance"])
@pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")
def test_genotypes(kind, solver, serial_engine):
    rng = np.random.default_rng(0)
    x = rng.binomial(2, rng.uniform(0.1, 0.9, 80), (200, 80)).astype(np.int8)
    x[:, 7] = 2  # everybody has it: constant
    keep = np.delete(np.arange(80), 7)
    values, _, _ = reference(x[:, keep], scale="genotype")
    pca = lp.PCA(3, solver=solver, tol=1e-5, scale="genotype").fit(x, engine=serial_engine)
    np.testing.assert_allclose(pca.explained_variance_, values[:3], rtol=1e-5)
    assert pca.n_constant_columns_ == 1
    assert np.abs(pca.components_[:, 7]).max() < 1e-6


@pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")
def test_float32_with_large_means_keeps_its_digits_when_scaled_and_weighted(serial_engine):
    x = (data((80, 200)) + 1e4).astype(np.float32)
    w = weights_for(80)
    values, _, _ = reference(x, scale=True, row_weights=w)
    for solver in ("gradient", "gram", "covariance"):
        pca = lp.PCA(3, solver=solver, tol=1e-5, scale=True, row_weights=w).fit(x, engine=serial_engine)
        np.testing.assert_allclose(pca.explained_variance_, values[:3], rtol=2e-5)


@given(st.integers(0, 1000), st.sampled_from(sorted(CHOICES)))
@settings(max_examples=20, deadline=None)
def test_covariance_of_a_prepared_copy(seed, options):
    options = dict(CHOICES[options])
    if options.get("scale") and options.get("center") is False:
        return
    x = data((70, 9), seed)
    if "nan" in options:
        x = gappy(x, seed, rows=0.2)
    if "row_weights" in options:
        options["row_weights"] = weights_for(70)
    _, _, prepared = reference(x, **options)
    want = prepared.T @ prepared / (len(prepared) - 1)
    with lp.open_engine("serial", memory="64MiB") as engine:
        found = lp.covariance(x, engine=engine, **options)
    np.testing.assert_allclose(found.covariance, want, atol=1e-10 * np.abs(want).max())
    assert found.weight == len(prepared)


REFUSED = {
    "negative": ({"row_weights": np.array([1.0, -1, 2, 3])}, "entry 1 is negative"),
    "length": ({"row_weights": np.ones(3)}, "has 4 rows"),
    "not finite": ({"row_weights": np.array([1.0, np.nan, 2, 3])}, "entry 1 is not finite"),
    "too small": ({"row_weights": np.full(4, 0.1)}, "their sum is 0.4"),
    "policy": ({"nan": "drop"}, "nan: 'drop' is not one of raise, omit, mean"),
    "scale": ({"scale": "unit"}, "scale: 'unit' is not"),
}


@pytest.mark.parametrize("options", REFUSED)
@pytest.mark.parametrize("model", ["pca", "covariance"])
def test_wrong_options_are_refused_in_one_line(options, model, serial_engine):
    options, message = REFUSED[options]
    x = data((4, 3))
    with pytest.raises(lp.LazypipeError, match=message) as caught:
        if model == "pca":
            lp.PCA(2, **options).fit(x, engine=serial_engine)
        else:
            lp.covariance(x, engine=serial_engine, **options)
    assert "\n" not in str(caught.value)


def test_nan_policies_that_leave_nothing_are_refused(serial_engine):
    x = data((5, 4))
    x[:, 2] = np.nan
    with pytest.raises(lp.DataError, match="too few are left"):
        lp.PCA(1, nan="omit").fit(x, engine=serial_engine)
    with pytest.raises(lp.DataError, match="column 2 holds nothing but NaN"):
        lp.PCA(1, nan="mean").fit(x, engine=serial_engine)
    with pytest.raises(lp.DataError, match="NaN at row 0, column 2.*nan='omit'"):
        lp.PCA(1).fit(x, engine=serial_engine)
    with pytest.raises(lp.ConfigError, match="genotype.*centres"):
        lp.PCA(1, scale="genotype", center=False).fit(data((5, 4)), engine=serial_engine)
    with pytest.raises(lp.DataError, match="counts no alleles"):
        lp.PCA(1, scale="genotype").fit(data((5, 4)) + 100, engine=serial_engine)


def test_transform_says_what_becomes_of_nan(serial_engine):
    x = data((40, 12))
    new = data((6, 12), 5)
    new[2, 3] = np.nan
    for nan in ("raise", "omit", "mean"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lp.ClosePairWarning)
            pca = lp.PCA(2, nan=nan).fit(x, engine=serial_engine)
        matrix = lp.open_matrix(new)
        if nan == "raise":
            with pytest.raises(lp.DataError, match="NaN at row 2, column 3"):
                pca.transform(matrix, engine=serial_engine)
            continue
        scores = pca.transform(matrix, engine=serial_engine)
        np.testing.assert_allclose(scores, pca.transform(new), atol=1e-9)
        assert np.isnan(scores[2]).all() == (nan == "omit")
        assert np.isfinite(np.delete(scores, 2, axis=0)).all()


@pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")
def test_means_that_fill_and_scales_about_zero_come_of_one_pass():
    events = []
    with lp.open_engine("serial", progress=lp.progress.Progress((events.append,))) as engine:
        pca = lp.PCA(2, solver="covariance", nan="mean", scale=True, center=False)
        pca.fit(gappy(data((150, 60))), engine=engine)
    stages = [event for event in events if isinstance(event, lp.progress.StageStarted)]
    assert len(stages) == pca.n_passes_ == pca.plan_.passes == 2
