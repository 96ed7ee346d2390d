"""Ridge regression of a prefix against NumPy's lstsq in float64."""

import tracemalloc

import numpy as np
import pytest

from lazypipe.io.array import ArrayMatrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import ridge
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.rows import Prefix, shift_of

HELD = pytest.mark.parametrize("hold", [True, False])
STRENGTHS = [1e3, 1.0, 1e-3]


def made(n_rows, n_features, condition=1.0, dtype="float32", seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n_rows, n_features)) * np.geomspace(1, 1 / condition, n_features)
    turn = np.linalg.qr(random.normal(size=(n_features, n_features)))[0]
    x = (x @ turn).astype(dtype)
    return x, x @ random.normal(size=n_features) + 0.3 * random.normal(size=n_rows) + 7


def prefix_of(x, y, size=None, hold=True, seed=None):
    examples = Examples(ArrayMatrix(x), y)
    return Prefix(examples, size or len(x), seed, shift_of(examples), hold=hold, step=64)


def fit(prefix, strengths=STRENGTHS):
    return ridge.fit(prefix, prefix.targets, 0, strengths, Options(), 0)


def by_numpy(x, y, strength):
    """Coefficients, intercept and objective of rows (n, D)."""
    x = x.astype(float)
    mean, centre = x.mean(axis=0), y.mean()
    rows = np.vstack([x - mean, np.eye(x.shape[1]) / np.sqrt(strength)])
    coef = np.linalg.lstsq(rows, np.append(y - centre, np.zeros(x.shape[1])), rcond=None)[0]
    intercept = centre - mean @ coef
    loss = ((y - x @ coef - intercept) ** 2).mean() / 2
    return coef, intercept, loss + (coef**2).sum() / (2 * strength * len(y))


def assert_same(fitted, x, y, rtol):
    for i, strength in enumerate(STRENGTHS):
        coef, intercept, objective = by_numpy(x, y, strength)
        (found,), (constant,) = fitted.planes(i)
        np.testing.assert_allclose(found, coef, rtol=0, atol=rtol * np.abs(coef).max())
        np.testing.assert_allclose(constant, intercept, rtol=rtol, atol=rtol)
        outcome = fitted.outcomes[i]
        np.testing.assert_allclose(outcome.objective, objective, rtol=rtol)
        assert outcome.strength == strength
        assert outcome.passes == (2 if len(x) < x.shape[1] else 1)
        assert outcome.converged
        assert not outcome.failed
        assert 0 <= outcome.gap < 1e-9


@HELD
@pytest.mark.parametrize(
    ("n_rows", "n_features", "condition", "rtol"),
    [(500, 20, 1, 1e-11), (500, 20, 1e4, 1e-7), (30, 80, 1, 1e-8), (10, 520, 1, 1e-8), (40, 40, 1, 1e-8)],
)
def test_against_lstsq(n_rows, n_features, condition, rtol, hold):
    x, y = made(n_rows, n_features, condition)
    prefix = prefix_of(x, y, hold=hold)
    fitted = fit(prefix)
    assert_same(fitted, prefix_of(x, y).all(), y, rtol)
    coef, intercept = fitted.planes(1)
    np.testing.assert_allclose(fitted.decide(prefix_of(x, y).all())[:, 1], prefix_of(x, y).all() @ coef[0] + intercept)


@HELD
def test_a_shuffled_part(hold):
    x, y = made(400, 12)
    prefix, rows = prefix_of(x, y, 250, hold, seed=5), prefix_of(x, y, 250, seed=5)
    assert_same(fit(prefix), rows.all(), rows.targets, 1e-9)


@HELD
@pytest.mark.parametrize("n_features", [12, 120])
def test_means_of_ten_thousand_deviations_keep_the_digits(n_features, hold):
    x, y = made(100, n_features, dtype="float64")
    far = x + 1e4 * np.random.default_rng(1).normal(size=n_features)
    fitted = fit(prefix_of(far, y, hold=hold))
    for i, strength in enumerate(STRENGTHS):
        coef = by_numpy(x, y, strength)[0]
        np.testing.assert_allclose(fitted.planes(i)[0][0], coef, rtol=0, atol=1e-6 * np.abs(coef).max())


@HELD
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("n_features", [2, 9])
def test_few_rows(size, n_features, hold):
    x, y = made(50, n_features)
    prefix = prefix_of(x, y, size, hold)
    fitted = fit(prefix)
    if size == 1:
        np.testing.assert_allclose(fitted.decide(prefix_of(x, y, 1).all()), y[0])
        assert [outcome.objective for outcome in fitted.outcomes] == [0, 0, 0]
    else:
        assert_same(fitted, prefix_of(x, y, size).all(), y[:size], 1e-7)


def test_two_runs_give_the_same_bits_and_one_strength_those_of_three():
    x, y = made(300, 20)
    one, same, alone = fit(prefix_of(x, y)), fit(prefix_of(x, y)), fit(prefix_of(x, y), STRENGTHS[1:2])
    np.testing.assert_array_equal(one.planes(1)[0], same.planes(1)[0])
    np.testing.assert_array_equal(one.planes(1)[0], alone.planes(0)[0])
    assert one.outcomes == same.outcomes


def test_constant_targets_and_constant_columns():
    x = np.ones((20, 3), np.float32)
    fitted = fit(prefix_of(x, np.full(20, 4.0)))
    np.testing.assert_allclose(fitted.decide(np.zeros((2, 3), np.float32)), 4)
    assert [outcome.gap for outcome in fitted.outcomes] == [0, 0, 0]


@HELD
@pytest.mark.parametrize("n_features", [6, 90])
def test_the_gap_is_what_an_error_of_the_solution_costs(n_features, hold, monkeypatch):
    x, y = made(60, n_features)
    solve, rows = ridge.System.solve, prefix_of(x, y).all().astype(float)
    monkeypatch.setattr(ridge.System, "solve", lambda system, ridge: solve(system, ridge) * 1.01)
    fitted = fit(prefix_of(x, y, hold=hold))
    for i, strength in enumerate(STRENGTHS[1:], 1):
        (coef,), intercept = fitted.planes(i)
        objective = ((y - rows @ coef - intercept) ** 2).mean() / 2 + (coef @ coef) / (2 * strength * 60)
        excess = objective - by_numpy(rows, y, strength)[2]
        np.testing.assert_allclose(fitted.outcomes[i].objective, objective, rtol=1e-9)
        np.testing.assert_allclose(fitted.outcomes[i].gap, excess / objective, rtol=1e-4)


@HELD
@pytest.mark.parametrize("shape", [(400, 100), (100, 520)])
def test_memory_stays_under_what_was_told(shape, hold):
    x, y = made(*shape)
    prefix = prefix_of(x, y, hold=hold)
    for _ in prefix.blocks():
        pass
    tracemalloc.start()
    fit(prefix).decide(x[:64])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    block = 0 if hold else 2 * 4 * shape[1] * prefix.step
    assert peak - block <= ridge.nbytes(*shape, 0, 3, Options()) + 2**16
