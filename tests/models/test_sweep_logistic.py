"""The exact solver of a sweep against SciPy in float64, on data of every shape that it treats otherwise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import logistic, space
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.rows import Prefix, shift_of
from lazypipe.stats import softmax_kernel, thin

STRENGTHS = (1.0, 0.01)


def letters(n, width, n_classes, seed=0, spread=2.0, mean=0.0, dtype=np.float32):
    """Rows about class centres; weak columns too, as in pictures."""
    random = np.random.default_rng(seed)
    scale = 1 / np.sqrt(1 + np.arange(width))
    centres = random.normal(size=(n_classes, width)) * scale * spread
    y = np.arange(n) % n_classes
    return (centres[y] + random.normal(size=(n, width)) * scale + mean).astype(dtype), y.astype(np.int32)


def objective(planes, X, y, n_outputs, penalty):
    """Mean loss + penalty / 2 ‖W‖², and its gradient, of planes (D + 1, outputs) flat."""
    W, b = planes.reshape(-1, n_outputs)[:-1], planes.reshape(-1, n_outputs)[-1]
    logits = X @ W + b
    if n_outputs == 1:
        sign = np.where(y == 1, 1.0, -1.0)
        loss = np.logaddexp(0, -sign * logits[:, 0])
        residual = (1 / (1 + np.exp(-logits[:, 0])) - y)[:, None]
    else:
        loss = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
        residual = softmax(logits, axis=1) - np.eye(n_outputs)[y]
    gradient = np.vstack([X.T @ residual / len(y) + penalty * W, residual.mean(axis=0)])
    return loss.mean() + penalty / 2 * (W**2).sum(), gradient.ravel()


def optimum(X, y, n_outputs, penalty):
    X = X.astype(np.float64)
    start = np.zeros((X.shape[1] + 1) * n_outputs)
    mean = X.mean(axis=0)  # a shift changes no optimum, and SciPy then needs fewer steps
    found = minimize(
        objective, start, (X - mean, y, n_outputs, penalty), jac=True, method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 50},
    )  # fmt: skip
    return found.fun


def fitted(X, y, n_classes, strengths=STRENGTHS, hold=True, step=None, divide_by=1.0):
    examples = Examples(open_matrix(X), y, divide_by)
    prefix = Prefix(examples, len(X), None, shift_of(examples), hold=hold, step=step)
    return logistic.fit(prefix, y, n_classes, strengths, Options(), 0), prefix


SHAPES = {
    "fewer rows than columns": (40, 90, 3, True),
    "some more rows than columns": (300, 90, 4, True),
    "many rows": (3_000, 30, 5, True),
    "streamed": (3_000, 30, 5, False),
    "two classes": (500, 40, 2, True),
    "two classes, streamed": (500, 40, 2, False),
    "one column": (200, 1, 3, True),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_optimum_is_scipys(shape):
    n, width, n_classes, hold = SHAPES[shape]
    X, y = letters(n, width, n_classes)
    found, prefix = fitted(X, y, n_classes, hold=hold, step=128)
    n_outputs = 1 if n_classes == 2 else n_classes
    for i, outcome in enumerate(found.outcomes):
        penalty = 1 / (outcome.strength * n)
        best = optimum(X, y, n_outputs, penalty)
        coef, intercept = found.planes(i)
        own = objective(np.vstack([coef.T, intercept]).ravel(), X - prefix.shift, y, n_outputs, penalty)[0]
        assert outcome.converged
        assert outcome.objective == pytest.approx(own, rel=1e-6)
        assert (own - best) / best <= 1e-6
        assert outcome.gap <= 5e-7


def test_more_columns_than_an_eigenbasis_is_found_for(monkeypatch):
    monkeypatch.setattr(space, "WIDEST", 24)
    X, y = letters(2_000, 60, 3)
    found, prefix = fitted(X, y, 3, step=128)
    assert isinstance(space.space_of(prefix), space.Sketched)
    for outcome in found.outcomes:
        best = optimum(X, y, 3, 1 / (outcome.strength * len(X)))
        assert outcome.converged and abs(outcome.objective - best) <= 1e-6 * best


def test_small_shares_are_solved_first_and_change_no_optimum():
    X, y = letters(4_000, 20, 3, spread=0.5)
    whole, _ = fitted(X, y, 3, step=4_000)
    shared, _ = fitted(X, y, 3, step=50)  # 80 blocks
    for one, other in zip(whole.outcomes, shared.outcomes, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=3e-7)
        assert other.passes <= one.passes + 2


@given(step=st.integers(1, 130), seed=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_cutting_the_rows_anywhere_gives_the_same_optimum(step, seed):
    X, y = letters(130, 12, 3, seed)
    whole, _ = fitted(X, y, 3, step=130)
    cut, _ = fitted(X, y, 3, step=step, hold=False)
    for one, other in zip(whole.outcomes, cut.outcomes, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=5e-7)


@pytest.mark.parametrize("hold", [True, False])
def test_large_means_cost_no_digit(hold):
    X, y = letters(400, 20, 3, dtype=np.float64)
    plain, _ = fitted(X, y, 3)
    shifted, _ = fitted(X + 1e5, y, 3, hold=hold)
    for one, other in zip(plain.outcomes, shifted.outcomes, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=5e-7)


def test_dividing_the_entries_is_as_having_divided_them():
    X, y = letters(300, 20, 3)
    one, _ = fitted(np.round(X * 50).astype(np.int16), y, 3, divide_by=50.0)
    other, _ = fitted((np.round(X * 50) / 50).astype(np.float32), y, 3)
    for a, b in zip(one.outcomes, other.outcomes, strict=True):
        assert a.objective == pytest.approx(b.objective, rel=5e-7)


def test_rows_that_are_all_alike_give_the_share_of_each_class():
    X, y = np.full((60, 5), 7.0, np.float32), np.repeat([0, 1, 2], [30, 20, 10]).astype(np.int32)
    found, prefix = fitted(X, y, 3)
    share = np.array([30, 20, 10]) / 60
    assert found.outcomes[0].objective == pytest.approx(-(share * np.log(share)).sum(), rel=1e-6)
    assert (found.decide(X - prefix.shift.astype(np.float32)) == 0).all()


def test_rows_that_a_plane_parts_end_in_a_finite_optimum():
    X, y = letters(60, 200, 3, spread=20)
    found, _ = fitted(X, y, 3, strengths=(1e4, 1.0))
    assert all(outcome.converged and outcome.objective < 0.01 for outcome in found.outcomes)


HARD = {
    "columns of very different scale": {"scales": 3, "n": 300, "width": 20, "strengths": (100.0, 0.01)},
    "more parameters than a Hessian is made for": {"scales": 2, "n": 400, "width": 500, "strengths": (100.0,)},
    "few columns, many classes": {"scales": 1, "n": 200, "width": 3, "n_classes": 6, "strengths": (1000.0,)},
}


@pytest.mark.parametrize("name", HARD)
def test_the_gap_is_about_what_is_left(name):
    case = {"n_classes": 3} | HARD[name]
    X, y = letters(case["n"], case["width"], case["n_classes"], spread=0.3, dtype=np.float64)
    X *= 10 ** np.linspace(-case["scales"] / 2, case["scales"] / 2, case["width"])
    for max_passes in (15, 1000):
        examples = Examples(open_matrix(X), y)
        prefix = Prefix(examples, len(X), None, shift_of(examples), hold=True)
        found = logistic.fit(prefix, y, case["n_classes"], case["strengths"], Options(max_passes=max_passes), 0)
        for outcome in found.outcomes:
            best = newton(X - prefix.shift, y, case["n_classes"], 1 / (outcome.strength * len(X)))
            gap = (outcome.objective - best) / outcome.objective
            assert gap <= 1e-6 if outcome.converged else outcome.gap is None
        assert all(outcome.converged for outcome in found.outcomes) or max_passes == 15


def newton(X, y, n_classes, penalty):
    """The minimum by damped Newton steps, in the span of the rows where they are fewer than the columns."""
    if X.shape[1] > 2 * len(X) or X.shape[1] > 60:
        X = np.linalg.svd(X, full_matrices=False)
        X = X[0] * X[1]
    rows = np.hstack([X, np.ones((len(X), 1))])
    point, n = np.zeros((rows.shape[1], n_classes)), len(rows)
    diagonal = np.arange(point.size - n_classes)
    if point.size > 700:
        return optimum(X, y, n_classes, penalty)
    for _ in range(100):
        value, gradient = objective(point.ravel(), X, y, n_classes, penalty)
        shares = softmax(rows @ point, axis=1)
        spread = (rows[:, :, None] * shares[:, None, :]).reshape(n, -1)
        hessian = -(spread.T @ spread)
        for k in range(n_classes):
            hessian[k::n_classes, k::n_classes] += (rows * shares[:, k : k + 1]).T @ rows
        hessian /= n
        hessian[diagonal, diagonal] += penalty
        hessian[-n_classes:, -n_classes:] += np.ones((n_classes, n_classes))
        step = np.linalg.solve(hessian, gradient).reshape(point.shape)
        length = 1.0
        while objective((point - length * step).ravel(), X, y, n_classes, penalty)[0] > value and length > 1e-9:
            length /= 2
        point = point - length * step
        if step.ravel() @ gradient < 1e-13 * value:
            return value
    raise AssertionError("Newton's method did not converge")


def test_few_passes_are_told_as_not_converged():
    X, y = letters(300, 20, 3)
    examples = Examples(open_matrix(X), y)
    prefix = Prefix(examples, 300, None, shift_of(examples), hold=True)
    outcome = logistic.fit(prefix, y, 3, (1.0,), Options(max_passes=3), 0).outcomes[0]
    assert not outcome.converged and outcome.passes == 3 and outcome.gap is None


def test_a_few_rows_never_stand_for_all():
    """Rows in the order of their classes, many and narrow: blocks from all over them tell the Hessian."""
    X, y = letters(60_000, 10, 3, spread=0.5)
    order = np.argsort(y, kind="stable")
    examples = Examples(open_matrix(X[order]), y[order])
    prefix = Prefix(examples, len(X), None, shift_of(examples), hold=True)
    outcome = logistic.fit(prefix, y[order], 3, (1.0,), Options(), 0).outcomes[0]
    best = newton(X[order] - prefix.shift, y[order], 3, 1 / len(X))
    assert outcome.converged and (outcome.objective - best) / best <= 1e-6


def test_entries_that_overflow_are_told():
    X, y = letters(50, 8, 3)
    with pytest.raises(DataError, match="squares overflow. Divide them by a constant"):
        fitted(X * np.float32(1e25), y, 3)


@pytest.mark.parametrize(
    ("n", "width", "n_planes"), [(640, 784, 40), (17, 33, 3), (16, 32, 1), (5, 100, 10), (64, 8, 4)]
)
def test_thin_products(n, width, n_planes):
    random = np.random.default_rng(0)
    rows, planes = random.normal(size=(n, width)).astype(np.float32), random.normal(size=(width, n_planes))
    found = thin.Thin(planes.astype(np.float32))
    product = found.times(rows)
    np.testing.assert_allclose(product[:, :n_planes], rows @ planes, atol=2e-5 * width**0.5)
    product = product.copy()
    back = found.back(product, rows)
    np.testing.assert_allclose(back, product[:, :n_planes].T.astype(float) @ rows, atol=3e-6 * np.abs(back).max())


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_losses_and_residuals_of_logits(n_outputs):
    random = np.random.default_rng(0)
    logits = (random.normal(size=(50, 2 * n_outputs)) * 30).astype(np.float32)
    bias = random.normal(size=2 * n_outputs).astype(np.float32)
    y = random.integers(0, max(2, n_outputs), 50).astype(np.int32)
    losses, sums, found = np.zeros(2), np.zeros(2 * n_outputs), logits.copy()
    softmax_kernel.residuals(found, bias, y, n_outputs, losses, sums)
    for m in range(2):
        own = slice(m * n_outputs, (m + 1) * n_outputs)
        z = (logits[:, own] + bias[own]).astype(np.float64)
        if n_outputs == 1:
            z = np.hstack([np.zeros_like(z), z])
        expected = softmax(z, axis=1) - np.eye(z.shape[1])[y]
        np.testing.assert_allclose(found[:, own], expected[:, -n_outputs:], atol=1e-6)
        assert losses[m] == pytest.approx(-log_softmax(z, axis=1)[np.arange(50), y].sum(), rel=1e-6)
    np.testing.assert_allclose(sums, found.sum(axis=0, dtype=np.float64), atol=1e-9)


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_the_likeliest_class_of_each_row(n_outputs):
    random = np.random.default_rng(1)
    logits, bias = random.normal(size=(30, 2 * n_outputs)).astype(np.float32), np.ones(2 * n_outputs, np.float32)
    classes = np.empty((30, 2), np.int32)
    softmax_kernel.decide(logits, bias, n_outputs, classes)
    z = (logits + bias).reshape(30, 2, n_outputs)
    np.testing.assert_array_equal(classes, z[:, :, 0] > 0 if n_outputs == 1 else z.argmax(axis=2))
