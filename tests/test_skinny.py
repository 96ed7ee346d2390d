"""The loops for a wide block times a few vectors equal plain NumPy in float64, for every shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypipe.stats import skinny

needs_avx512 = pytest.mark.skipif(not skinny.has_avx512(), reason="this processor has no AVX-512")


@needs_avx512
@given(
    n=st.integers(1, 70),
    w=st.integers(32, 600),
    p=st.integers(1, 40),
    start=st.integers(0, 5),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_gram_products_equal_numpy(n, w, p, start, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(1, 3, (n, w + 7)).astype(np.float32)[:, start : start + w]
    u = rng.normal(size=(n, p)).astype(np.float32)
    smallest, skinny.SMALLEST = skinny.SMALLEST, 0
    try:
        assert skinny.suits(x)
        found = skinny.gram_product(x, u)
    finally:
        skinny.SMALLEST = smallest
    wide = x.astype(float)
    scale = np.abs(wide) @ (np.abs(wide).T @ np.abs(u.astype(float)))
    assert found.shape == (n, p)
    assert (np.abs(found - wide @ (wide.T @ u.astype(float))) <= 1e-6 * scale).all()


@needs_avx512
def test_many_rows_and_columns_keep_the_digits_of_float32():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5_003, 2_100)).astype(np.float32)
    u = rng.normal(size=(5_003, 16)).astype(np.float32)
    want = x.astype(float) @ (x.astype(float).T @ u.astype(float))
    assert skinny.suits(x)
    assert np.abs(skinny.gram_product(x, u) - want).max() < 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("make", [lambda x: x.astype(float), lambda x: x[:, :20], lambda x: x.T, lambda x: x[:, ::2]])
def test_other_blocks_are_left_to_numpy(make, monkeypatch):
    monkeypatch.setattr(skinny, "SMALLEST", 0)
    x = make(np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32))
    u = np.ones((len(x), 3), x.dtype)
    assert not skinny.suits(x)
    np.testing.assert_allclose(skinny.gram_product(x, u), x @ (x.T @ u), rtol=1e-6)


@needs_avx512
def test_a_nan_reaches_the_product(monkeypatch):
    monkeypatch.setattr(skinny, "SMALLEST", 0)
    x = np.ones((20, 64), np.float32)
    x[3, 40] = np.nan
    assert np.isnan(skinny.gram_product(x, np.ones((20, 2), np.float32))).any()
