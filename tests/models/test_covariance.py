"""The covariance against NumPy's, and what it refuses."""

import numpy as np
import pytest

import lazypipe as lp


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "int16", "int8", "uint8", "bool"])
def test_equals_numpy(ddof, dtype, tmp_path, serial_engine):
    x = (np.random.default_rng(0).normal(30, 15, (2_000, 40)).clip(0, 100)).astype(dtype)
    if dtype == "bool":
        x = np.random.default_rng(0).random((2_000, 40)) < 0.2
    np.save(tmp_path / "x.npy", x)
    result = lp.covariance(tmp_path / "x.npy", ddof=ddof, engine=serial_engine)
    want = np.cov(x.astype(np.float64), rowvar=False, ddof=ddof)
    deviations = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    assert (np.abs(result.covariance - want) / deviations).max() < {"float32": 3e-7, "float16": 1e-6}.get(dtype, 1e-14)
    np.testing.assert_allclose(result.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(result.covariance, result.covariance.T)
    assert result.n_rows == 2_000


def test_a_mean_of_ten_thousand_deviations_costs_no_digits(tmp_path, serial_engine):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(20_000, 30)) + 1e4).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = lp.covariance(tmp_path / "x.npy", engine=serial_engine)
    want = np.cov(x.astype(np.float64), rowvar=False)
    assert (np.abs(result.covariance - want) / np.sqrt(np.outer(np.diag(want), np.diag(want)))).max() < 1e-6


@pytest.mark.parametrize(
    ("ddof", "error", "words"),
    [(5, lp.PlanError, "ddof=5 with 5 rows"), (-1, lp.ConfigError, "ddof: -1 is no number of 0 or above")],
)
def test_ddof_out_of_range(ddof, error, words, serial_engine):
    with pytest.raises(error, match=words):
        lp.covariance(np.eye(5), ddof=ddof, engine=serial_engine)


def test_constant_columns_have_no_variance(serial_engine):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[:, 1] = 7.1
    result = lp.covariance(x, engine=serial_engine)
    assert result.covariance[1, 1] == 0
    np.testing.assert_allclose(result.mean[1], np.float32(7.1), rtol=1e-7)


def test_values_that_overflow_are_told(serial_engine):
    x = np.full((50, 3), 1e30, np.float32)
    x[::2] = -1e30
    with pytest.raises(lp.DataError, match="products overflow float32 near row 0"):
        lp.covariance(x, engine=serial_engine)
