"""The network of one hidden layer against plain float64 NumPy, what it can learn, and how it fails."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import logsumexp

from lazypipe.io.array import ArrayMatrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import layer, minibatches, mlp
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.minibatches import Batch
from lazypipe.models.sweep.rows import Prefix

KINDS = pytest.mark.parametrize("n_classes", [2, 3])
HELD = pytest.mark.parametrize("hold", [True, False])
SOME = Options(epochs=5, least_steps=300, batch_size=32, learning_rate=0.3, hidden=24)


def rings(n_rows=300, n_classes=3, seed=0):
    """Rows (n, 4) whose class is how far they are from the origin: no plane tells it."""
    random = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    x = random.normal(size=(n_rows, 4))
    x *= ((1 + 2 * y) / np.linalg.norm(x, axis=1))[:, None]
    return x.astype(np.float32), y


def prefix_of(x, y, size=None, hold=True, step=None):
    return Prefix(Examples(ArrayMatrix(x), y), size or len(x), None, np.zeros(x.shape[1]), hold=hold, step=step)


def fit(x, y, strengths, options=SOME, seed=0, **given):
    """``given`` is of the prefix."""
    prefix = prefix_of(x, y, **given)
    return mlp.fit(prefix, prefix.targets, int(y.max()) + 1, strengths, options, seed)


def plain_objective(arrays, x, y, penalty):
    w1, b1, w2, b2 = arrays
    logits = np.maximum(x.astype(float) @ w1.T + b1, 0) @ w2 + b2
    if len(b2) == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return loss.mean() + penalty / 2 * ((w1**2).sum() + (w2**2).sum())


def arrays_of(network):
    return [array.astype(float) for array in network.arrays()]


@KINDS
def test_a_step_goes_down_the_gradient_that_finite_differences_see(n_classes, monkeypatch):
    monkeypatch.setattr(layer, "PANEL", 4)
    x, y = rings(30, n_classes)
    random, penalty, rate = np.random.default_rng(1), 0.7, 0.01
    network = mlp.Network(4, 6, 1 if n_classes == 2 else 3, 30, random)
    network.hidden_bias[:] = random.normal(size=6)
    before, errors = arrays_of(network), network.errors(x, y.astype(np.int32))
    np.testing.assert_allclose(errors.losses[0] / 30, plain_objective(before, x, y, 0), rtol=1e-5)
    network.descend(Batch(x, y, rate), errors, penalty)
    for values, after, penalised in zip(before, arrays_of(network), [True, False, True, False], strict=True):
        slope = np.empty(values.shape)
        for at in np.ndindex(values.shape):
            value, ends = values[at], []
            for values[at] in (value - 1e-5, value + 1e-5):
                ends.append(30 * plain_objective(before, x, y, 0))
            slope[at], values[at] = (ends[1] - ends[0]) / 2e-5, value
        # Of the penalty the slope is that at the end of the step: w' = w - rate (slope + 30 penalty w').
        want = values - rate * (slope + 30 * penalty * penalised * after)
        np.testing.assert_allclose(after, want, rtol=1e-4, atol=1e-5)


@HELD
@KINDS
def test_learns_what_no_plane_tells_and_the_objective_is_exact(n_classes, hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 4 * 100)
    networks, made = [], mlp.Network
    monkeypatch.setattr(mlp, "Network", lambda *args: networks.append(made(*args)) or networks[-1])
    x, y = rings(n_classes=n_classes)
    strengths = [10.0, 0.01]
    fitted = fit(x, y, strengths, hold=hold, step=20)
    decided = fitted.decide(x)
    assert decided.shape == (300, 2)
    assert (decided[:, 0] == y).mean() > 0.97
    assert fitted.planes is None
    for outcome, network, strength in zip(fitted.outcomes, networks, strengths, strict=True):
        assert outcome.strength == strength
        assert outcome.gap is None
        assert not outcome.failed
        np.testing.assert_allclose(
            outcome.objective, plain_objective(arrays_of(network), x, y, 1 / (strength * 300)), rtol=1e-5
        )
    losses = [
        o.objective - network.penalty(1 / (o.strength * 300))
        for o, network in zip(fitted.outcomes, networks, strict=True)
    ]
    assert losses[0] < losses[1]


@HELD
def test_strengths_start_alike_and_take_the_same_steps(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 4 * 100)
    x, y = rings()
    given = {"options": Options(epochs=2, least_steps=1, batch_size=32, hidden=8), "hold": hold, "step": 20}
    one, same, other = fit(x, y, [1.0, 0.1, 1.0], **given), fit(x, y, [1.0], **given), fit(x, y, [1.0], seed=1, **given)
    assert one.outcomes[0] == one.outcomes[2] == same.outcomes[0]
    assert one.outcomes[0].objective != one.outcomes[1].objective
    assert one.outcomes[0].objective != other.outcomes[0].objective


def test_weights_start_with_the_variance_of_he():
    network = mlp.Network(400, 300, 10, 1, np.random.default_rng(0))
    np.testing.assert_allclose(network.hidden.weights.std(), np.sqrt(2 / 400), rtol=0.02)
    np.testing.assert_allclose(network.output.weights.std(), np.sqrt(2 / 300), rtol=0.05)
    assert not network.hidden_bias.any()


@pytest.mark.parametrize(("epochs", "least_steps", "passes"), [(3, 1, 4), (3, 45, 6)])
def test_passes_of_each_strength(epochs, least_steps, passes):
    x, y = rings()  # 10 batches
    options = Options(epochs=epochs, least_steps=least_steps, batch_size=32, hidden=4)
    assert [outcome.passes for outcome in fit(x, y, [1.0, 0.1], options).outcomes] == [passes] * 2


def test_a_strength_that_diverges_fails_and_changes_no_bit_of_the_others(monkeypatch):
    x, y = rings()
    x *= np.float32(1e19)
    networks, made = [], mlp.Network
    monkeypatch.setattr(mlp, "Network", lambda *args: networks.append(made(*args)) or networks[-1])
    fitted, alone = fit(x, y, [1.0, 1e-30]), fit(x, y, [1e-30])
    failed, fine = fitted.outcomes
    assert failed.failed.startswith("diverged at step ")
    assert "use a smaller learning rate, or divide the entries" in failed.failed
    assert failed.objective is failed.converged is None
    assert failed.passes == 1
    assert not fine.failed
    assert fine == alone.outcomes[0]
    np.testing.assert_array_equal(fitted.decide(x)[:, 1], alone.decide(x)[:, 0])
    assert not any(array.any() for array in arrays_of(networks[0]))


@pytest.mark.parametrize("size", [1, 2, 3])
@HELD
def test_few_rows(size, hold):
    x = np.eye(3, 4, dtype=np.float32)
    fitted = fit(x, np.arange(size), [10.0], size=size, hold=hold)
    assert not fitted.outcomes[0].failed
    np.testing.assert_array_equal(fitted.decide(x[:size])[:, 0], np.arange(size))


@HELD
def test_memory_stays_under_what_was_told(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 2**18)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(600, 200)).astype(np.float32), np.arange(600) % 3
    options = Options(epochs=2, least_steps=1, hidden=256)
    prefix = prefix_of(x, y, hold=hold, step=32)
    for _ in prefix.blocks():
        pass
    fit(x[:9], y[:9], [1.0], options).decide(x[:9])  # compiles
    tracemalloc.start()
    fitted = mlp.fit(prefix, prefix.targets, 3, [1.0, 0.1, 0.01], options, 0)
    fitted.decide(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    block = 0 if hold else 2 * 4 * 200 * prefix.step
    assert peak - block <= mlp.nbytes(600, 200, 3, 3, options) + 2**16
