"""Mini-batch softmax regression against plain float64 NumPy and SciPy's optimiser, and how it fails."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from lazypipe.io.array import ArrayMatrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import minibatches, sgd
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.minibatch_kernel import descend
from lazypipe.models.sweep.minibatches import Batch
from lazypipe.models.sweep.rows import Prefix

KINDS = pytest.mark.parametrize("n_classes", [2, 3])
HELD = pytest.mark.parametrize("hold", [True, False])
SOME = Options(epochs=20, least_steps=200, batch_size=16, learning_rate=0.3)


def made(n_rows=300, n_features=5, n_classes=3, seed=0):
    """Rows and the classes that noisy planes give them, all of which occur."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n_rows, n_features)).astype(np.float32)
    scores = x @ random.normal(size=(n_features, n_classes)) + random.gumbel(size=(n_rows, n_classes))
    y = scores.argmax(axis=1)
    y[:n_classes] = range(n_classes)
    return x, y


def prefix_of(x, y, size=None, hold=True, step=None):
    examples = Examples(ArrayMatrix(x), y)
    return Prefix(examples, size or len(x), None, np.zeros(x.shape[1]), hold=hold, step=step)


def fit(x, y, strengths, options=SOME, seed=0, **given):
    """``given`` is of the prefix."""
    prefix = prefix_of(x, y, **given)
    return sgd.fit(prefix, prefix.targets, int(y.max()) + 1, strengths, options, seed)


def objective(coef, intercept, x, y, penalty):
    logits = x.astype(float) @ coef.T + intercept
    if len(intercept) == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return loss.mean() + penalty / 2 * (coef**2).sum()


def optimum(x, y, strength):
    k = 1 if y.max() == 1 else int(y.max()) + 1

    def of(values):
        planes = values.reshape(k, -1)
        return objective(planes[:, :-1], planes[:, -1], x, y, 1 / (strength * len(x)))

    return minimize(of, np.zeros(k * (x.shape[1] + 1)), tol=1e-10).fun


@KINDS
def test_a_step_goes_down_the_gradient_that_finite_differences_see(n_classes):
    x, y = made(30, n_classes=n_classes)
    random, penalties, rate = np.random.default_rng(1), np.array([0.1, 3.0]), 0.02
    models = sgd.Strengths(5, 1 if n_classes == 2 else 3, penalties)
    models.weights[:], models.bias[:] = random.normal(size=models.weights.shape), random.normal(size=len(models.bias))
    before = models.planes(np.ones(2, bool))
    errors = models.errors(x, y.astype(np.int32))
    models.descend(Batch(x, y, rate), errors)
    after = models.planes(np.ones(2, bool))
    for i in range(2):
        coef, intercept = before.of(i)
        np.testing.assert_allclose(errors.losses[i] / 30, objective(coef, intercept, x, y, 0), rtol=1e-5)
        slopes = []
        for values in (coef, intercept):
            slope = np.empty(values.shape)
            for at in np.ndindex(values.shape):
                value = values[at]
                ends = []
                for values[at] in (value - 1e-4, value + 1e-4):
                    ends.append(30 * objective(coef, intercept, x, y, 0))
                slope[at], values[at] = (ends[1] - ends[0]) / 2e-4, value
            slopes.append(slope)
        weights, bias = after.of(i)
        # Of the penalty the slope is that at the end of the step: w' = w - rate (slope + 30 penalty w').
        want = coef - rate * (slopes[0] + 30 * penalties[i] * weights)
        np.testing.assert_allclose(weights, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(bias, intercept - rate * slopes[1], rtol=1e-4, atol=1e-5)


@HELD
@KINDS
def test_all_strengths_near_the_optimum_and_the_objective_is_exact(n_classes, hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 5 * 100)
    x, y = made(n_classes=n_classes)
    strengths = [1.0, 0.03, 0.001]
    fitted = fit(x, y, strengths, Options(epochs=40, batch_size=16, learning_rate=0.3), hold=hold, step=20)
    for i, outcome in enumerate(fitted.outcomes):
        assert outcome.strength == strengths[i]
        assert not outcome.failed
        assert outcome.gap is None
        least = optimum(x, y, strengths[i])
        assert least * (1 - 1e-6) <= outcome.objective <= least * 1.002
        plain = objective(*fitted.planes(i), x, y, 1 / (strengths[i] * len(x)))
        np.testing.assert_allclose(outcome.objective, plain, rtol=1e-6)
    decided = fitted.decide(x)
    assert decided.shape == (len(x), 3)
    coef, intercept = fitted.planes(0)
    logits = x @ coef.T + intercept
    want = logits[:, 0] > 0 if n_classes == 2 else logits.argmax(axis=1)
    np.testing.assert_array_equal(decided[:, 0], want)


@KINDS
def test_strengths_are_fitted_together_as_they_are_alone(n_classes):
    x, y = made(n_classes=n_classes)
    strengths = [1.0, 0.1, 0.01]
    together = fit(x, y, strengths)
    for i, strength in enumerate(strengths):
        alone = fit(x, y, [strength])
        np.testing.assert_allclose(together.planes(i)[0], alone.planes(0)[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together.outcomes[i].objective, alone.outcomes[0].objective, rtol=1e-6)


@HELD
def test_two_runs_give_the_same_bits_and_two_seeds_do_not(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 5 * 100)
    x, y = made()
    one, same, other = (fit(x, y, [1.0, 0.01], seed=seed, hold=hold, step=20) for seed in (7, 7, 8))
    for i in range(2):
        np.testing.assert_array_equal(one.planes(i)[0], same.planes(i)[0])
        assert one.outcomes[i] == same.outcomes[i]
        assert (one.planes(i)[0] != other.planes(i)[0]).any()


def test_rows_that_fit_one_window_are_fitted_as_if_they_were_held():
    x, y = made()
    held, streamed = (fit(x, y, [1.0], hold=hold, seed=3) for hold in (True, False))
    np.testing.assert_array_equal(held.planes(0)[0], streamed.planes(0)[0])


@HELD
def test_every_epoch_takes_each_row_once(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 3 * 40)
    x = np.arange(101)[:, None] * np.ones((1, 3), np.float32)
    prefix = prefix_of(x, np.arange(101), hold=hold, step=20)
    descent = minibatches.Descent(prefix, prefix.targets, Options(epochs=8, least_steps=1, batch_size=16), 0, 1)
    seen, orders = [], []
    for batch in descent.batches():
        assert (batch.rows[:, 0] == batch.targets).all()
        seen += batch.targets.tolist()
        if len(seen) == 101:
            assert sorted(seen) == list(range(101))
            orders.append(seen)
            seen = []
    assert len(orders) == 8
    assert len({tuple(order) for order in orders}) == 8
    if not hold:
        windows = [[row // 40 for row in order] for order in orders]  # 40, 40 and 21 rows, in any order
        assert {order[0] for order in windows} == {0, 1, 2}
        assert all(sum(a != b for a, b in pairwise(order)) == 2 for order in windows)


@pytest.mark.parametrize(("epochs", "least_steps", "passes"), [(3, 1, 4), (3, 95, 6), (1, 0, 2)])
def test_passes_are_the_epochs_that_were_asked_for_or_that_take_so_many_steps(epochs, least_steps, passes):
    x, y = made()  # 19 batches
    options = Options(epochs=epochs, least_steps=least_steps, batch_size=16)
    assert [outcome.passes for outcome in fit(x, y, [1.0, 0.1], options).outcomes] == [passes] * 2


def test_convergence_is_told():
    x, y = made()
    long, short = Options(epochs=200, batch_size=32), Options(epochs=2, least_steps=0, batch_size=300)
    assert fit(x, y, [0.01], long).outcomes[0].converged is True
    assert fit(x, y, [1.0], short).outcomes[0].converged is False
    assert fit(x, y, [1.0], Options(epochs=1, least_steps=0)).outcomes[0].converged is False


def test_a_strength_that_diverges_fails_and_changes_no_bit_of_the_others():
    x, y = made()
    x *= np.float32(1e20)
    fitted, calm = (fit(x, y, strengths) for strengths in ([1.0, 1e-30], [1e-30, 1e-30]))
    failed, fine = fitted.outcomes
    assert failed.failed.startswith("diverged at step ")
    assert "use a smaller learning rate, or divide the entries" in failed.failed
    assert failed.objective is failed.converged is None
    assert failed.passes == 1
    assert np.isfinite(fine.objective)
    assert fine == calm.outcomes[1]
    np.testing.assert_array_equal(fitted.planes(1)[0], calm.planes(1)[0])
    assert not fitted.planes(0)[0].any()
    assert not fitted.decide(x)[:, 0].any()


def test_where_all_strengths_diverge_there_are_no_more_steps():
    x, y = made()
    prefix = prefix_of(x * np.float32(1e19), y)
    descent = minibatches.Descent(prefix, prefix.targets, SOME, 0, 1)
    for batch in descent.batches():
        descent.record(batch, np.array([np.inf if descent.n_steps == 5 else 1.0]))
    assert descent.n_steps == 5
    (outcome,) = descent.outcomes([1.0], np.zeros(1), 1.0)
    assert outcome.failed.startswith("diverged at step 5 (loss inf): ")


def test_what_settles_above_the_start_has_diverged():
    x, y = made()
    prefix = prefix_of(x, y)
    descent = minibatches.Descent(prefix, prefix.targets, SOME, 0, 2)
    for batch in descent.batches():
        descent.record(batch, np.ones(2))
    low, high = descent.outcomes([1.0, 1.0], np.array([0.9, 1.1]), 1.0)
    assert low.converged is True
    assert not low.note
    assert high.failed.startswith(f"diverged by step {descent.n_steps:,} (objective 1 at first, 1.1 at last): use a ")


def test_weights_too_small_to_matter_become_zero():
    weights = np.array([[1e-31, 1e-29, -1e-31, 1]], np.float32)
    descend(weights, np.zeros_like(weights), np.float32(1), np.ones(1, np.float32))
    np.testing.assert_array_equal(weights, np.array([[0, 1e-29, 0, 1]], np.float32))


def test_steps_that_lead_up_have_diverged():
    x, y = made()
    (outcome,) = fit(x * np.float32(1e4), y, [1.0], Options(epochs=1, least_steps=20)).outcomes
    assert outcome.failed.startswith("diverged by step 21 (objective 1.099 at first, ")


@KINDS
def test_so_strong_a_penalty_that_explicit_steps_would_explode(n_classes):
    x, y = made(n_classes=n_classes)
    (outcome,) = fit(x, y, [1e-8], Options()).outcomes
    np.testing.assert_allclose(outcome.objective, optimum(x, y, 1e-8), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
@HELD
def test_few_rows(size, hold):
    x = np.eye(3, 4, dtype=np.float32)
    fitted = fit(x, np.arange(size), [10.0], size=size, hold=hold)
    assert not fitted.outcomes[0].failed
    np.testing.assert_array_equal(fitted.decide(x[:size])[:, 0], np.arange(size))


def test_a_batch_larger_than_the_prefix_is_the_prefix():
    x, y = made(40)
    large, whole = (fit(x, y, [1.0], Options(batch_size=size, least_steps=50)) for size in (1000, 40))
    np.testing.assert_array_equal(large.planes(0)[0], whole.planes(0)[0])


@HELD
def test_memory_stays_under_what_was_told(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 2**20)
    x, y = made(4000, 200)
    options = Options(epochs=2, least_steps=1)
    prefix = prefix_of(x, y, hold=hold, step=32)
    for _ in prefix.blocks():
        pass
    sgd.fit(prefix, prefix.targets, 3, [1.0], options, 0)  # compiles
    tracemalloc.start()
    sgd.fit(prefix, prefix.targets, 3, [1.0, 0.1], options, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    block = 0 if hold else 2 * 4 * 200 * prefix.step
    assert peak - block <= sgd.nbytes(4000, 200, 3, 2, options) + 2**16
