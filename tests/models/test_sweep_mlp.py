"""The networks of a sweep against plain float64 NumPy, what they can learn, and how they fail."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from lazypipe.io.array import ArrayMatrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import dbn, deep, minibatches, mlp, networks
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.rows import Prefix
from lazypipe.nets.arrays import ArrayNetwork
from lazypipe.nets.stack import Stack

KINDS = pytest.mark.parametrize("n_classes", [2, 3])
HELD = pytest.mark.parametrize("hold", [True, False])
SOME = Options(epochs=5, least_steps=300, batch_size=32, learning_rate=0.3, hidden=(24,))
UNITS = {"relu": lambda z: np.maximum(z, 0), "sigmoid": expit}


def rings(n_rows=300, n_classes=3, seed=0):
    """Rows (n, 4) whose class is how far they are from the origin: no plane tells it."""
    random = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    x = random.normal(size=(n_rows, 4))
    x *= ((1 + 2 * y) / np.linalg.norm(x, axis=1))[:, None]
    return x.astype(np.float32), y


def prefix_of(x, y, size=None, hold=True, step=None, shift=None):
    shift = np.zeros(x.shape[1]) if shift is None else shift
    return Prefix(Examples(ArrayMatrix(x), y), size or len(x), None, shift, hold=hold, step=step)


def fit(x, y, strengths, options=SOME, seed=0, model=mlp, **given):
    """``given`` is of the prefix."""
    prefix = prefix_of(x, y, **given)
    return model.fit(prefix, prefix.targets, int(y.max()) + 1, strengths, options, seed)


def plain_objective(arrays, x, y, penalty, activation="relu"):
    """``arrays`` are weights and biases, layer by layer."""
    rows = x.astype(float)
    for i in range(0, len(arrays), 2):
        rows = (rows if i == 0 else UNITS[activation](rows)) @ arrays[i].T + arrays[i + 1]
    if rows.shape[1] == 1:
        rows = np.hstack([np.zeros_like(rows), rows])
    loss = logsumexp(rows, axis=1) - rows[np.arange(len(y)), y]
    return loss.mean() + penalty / 2 * sum((w**2).sum() for w in arrays[::2])


def arrays_of(network):
    return [array.astype(float) for i in range(network.shape.n_layers) for array in network.layer(i)]


@pytest.fixture
def trained(monkeypatch):
    """The arrays of each strength, as its training leaves them."""
    found, train = [], networks._train
    monkeypatch.setattr(networks, "_train", lambda *given: [train(*given), found.append(arrays_of(given[0]))][0])
    return found


@pytest.mark.parametrize(("hidden", "activation", "momentum"), [((6,), "relu", 0.0), ((6, 5), "sigmoid", 0.8)])
@KINDS
def test_steps_go_down_the_gradient_that_finite_differences_see(n_classes, hidden, activation, momentum):
    x, y = rings(30, n_classes)
    penalty, rate = 0.7, 0.01
    network = ArrayNetwork((4, *hidden, 1 if n_classes == 2 else 3), activation, 30, momentum)
    network.vector[:] = np.random.default_rng(1).normal(size=len(network.vector))
    change = [0.0] * 2 * network.shape.n_layers
    for _ in range(2):
        before = arrays_of(network)
        loss = network.backpropagate(x, y.astype(np.int32))
        np.testing.assert_allclose(loss / 30, plain_objective(before, x, y, 0, activation), rtol=1e-5)
        network.step(rate, 30 * penalty)
        for i, (values, after) in enumerate(zip(before, arrays_of(network), strict=True)):
            slope = np.empty(values.shape)
            for at in np.ndindex(values.shape):
                value, ends = values[at], []
                for values[at] in (value - 1e-5, value + 1e-5):
                    ends.append(30 * plain_objective(before, x, y, 0, activation))
                slope[at], values[at] = (ends[1] - ends[0]) / 2e-5, value
            # Of the penalty the slope is that at the end of the step: w' = w - rate (slope + 30 penalty w') + ...
            penalised = (i % 2 == 0) * penalty
            want = values - rate * (slope + 30 * penalised * after) + momentum * change[i]
            np.testing.assert_allclose(after, want, rtol=1e-4, atol=1e-5)
            change[i] = after - values


@pytest.mark.parametrize("hidden", [(24,), (16, 12)])
@HELD
@KINDS
def test_learns_what_no_plane_tells_and_the_objective_is_exact(n_classes, hold, hidden, trained, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 4 * 100)
    x, y = rings(n_classes=n_classes)
    strengths = [10.0, 0.01]
    options = Options(epochs=5, least_steps=300, batch_size=32, learning_rate=0.3, hidden=hidden)
    fitted = fit(x, y, strengths, options, hold=hold, step=20)
    decided = fitted.decide(x)
    assert decided.shape == (300, 2)
    assert (decided[:, 0] == y).mean() > 0.97
    assert fitted.planes is None
    for outcome, arrays, strength in zip(fitted.outcomes, trained, strengths, strict=True):
        assert outcome.strength == strength
        assert outcome.gap is None
        assert not outcome.failed
        np.testing.assert_allclose(outcome.objective, plain_objective(arrays, x, y, 1 / (strength * 300)), rtol=1e-5)
    assert plain_objective(trained[0], x, y, 0) < plain_objective(trained[1], x, y, 0)


@HELD
def test_strengths_start_alike_and_take_the_same_steps(hold, monkeypatch):
    monkeypatch.setattr(minibatches, "WINDOW_NBYTES", 4 * 4 * 100)
    x, y = rings()
    given = {"options": Options(epochs=2, least_steps=1, batch_size=32, hidden=(8,)), "hold": hold, "step": 20}
    one, same, other = fit(x, y, [1.0, 0.1, 1.0], **given), fit(x, y, [1.0], **given), fit(x, y, [1.0], seed=1, **given)
    assert one.outcomes[0] == one.outcomes[2] == same.outcomes[0]
    assert one.outcomes[0].objective != one.outcomes[1].objective
    assert one.outcomes[0].objective != other.outcomes[0].objective


def test_tasks_at_once_have_the_bits_of_one_alone_and_leave_threads_as_they_were():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 200)).astype(np.float32), np.arange(300) % 3
    options = Options(epochs=2, least_steps=6, hidden=(256, 64))
    before = torch.get_num_threads()
    alone = fit(x, y, [1.0], options)
    with ThreadPoolExecutor(3) as pool:
        several = [pool.submit(fit, x, y, [1.0], options) for _ in range(3)]
    assert {fitted.result().outcomes[0].objective for fitted in several} == {alone.outcomes[0].objective}
    torch.set_num_threads(2)  # as where torch was imported first
    try:
        assert fit(x, y, [1.0], options).outcomes == alone.outcomes
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("epochs", "least_steps", "passes"), [(3, 1, 4), (3, 45, 6)])
def test_passes_of_each_strength(epochs, least_steps, passes):
    x, y = rings()  # 10 batches
    options = Options(epochs=epochs, least_steps=least_steps, batch_size=32, hidden=(4,))
    assert [outcome.passes for outcome in fit(x, y, [1.0, 0.1], options).outcomes] == [passes] * 2


def test_a_strength_that_diverges_fails_and_changes_no_bit_of_the_others():
    x, y = rings()
    x *= np.float32(1e19)
    fitted, alone = fit(x, y, [1.0, 1e-30]), fit(x, y, [1e-30])
    failed, fine = fitted.outcomes
    assert failed.failed.startswith("diverged at step ")
    assert "use a smaller learning rate, or divide the entries" in failed.failed
    assert failed.objective is failed.converged is None
    assert failed.passes == 1
    assert not fine.failed
    assert fine == alone.outcomes[0]
    decided = fitted.decide(x)
    np.testing.assert_array_equal(decided[:, 1], alone.decide(x)[:, 0])
    assert not decided[:, 0].any()


@pytest.mark.parametrize("size", [1, 2, 3])
@HELD
def test_few_rows(size, hold):
    x = np.eye(3, 4, dtype=np.float32)
    fitted = fit(x, np.arange(size), [10.0], size=size, hold=hold)
    assert not fitted.outcomes[0].failed
    np.testing.assert_array_equal(fitted.decide(x[:size])[:, 0], np.arange(size))


MEASURED = """
import sys
import numpy as np
from importlib import import_module
from lazypipe.engines import resident
from lazypipe.io.array import from_array
from lazypipe.io.examples import Examples
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.rows import Prefix, shift_of

model = import_module(sys.argv[1])
random = np.random.default_rng(0)
x, y = random.normal(size=(600, 200)).astype(np.float32), np.arange(600, dtype=np.int32) % 3
examples = Examples(from_array(x), y)
prefix = Prefix(examples, 600, None, shift_of(examples), hold=True, step=32)
prefix.all()
model.fit(prefix, y, 3, [1.0], Options(epochs=1, least_steps=1, hidden=(16,)), 0).decide(x)  # compiles
options = Options(epochs=1, least_steps=1, hidden=(1500, 1500))
resident.return_large_arrays()
resident.reset_peak()
before = resident.resident_nbytes()
model.fit(prefix, y, 3, [1.0, 0.1, 0.01], options, 0).decide(x)
print(resident.peak_nbytes() - before, model.nbytes(600, 200, 3, 3, options))
"""


@pytest.mark.parametrize("model", [mlp, deep])
def test_memory_stays_under_what_was_told(model):
    """In a process of its own: memory that other tests gave back would be taken again, and count for nothing."""
    command = [sys.executable, "-c", MEASURED, model.__name__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, told = map(int, done.stdout.split())
    assert taken <= told + 2**22  # of the libraries
    assert told < 1.5 * taken


STACKED = Options(epochs=1, least_steps=1, learning_rate=1e-30, momentum=0.5, batch_size=32)


def stack_of(units=(4, 7, 5), seed=0, divide_by=1.0):
    random = np.random.default_rng(seed)
    weights = [random.normal(size=shape).astype(np.float32) for shape in zip(units[1:], units, strict=False)]
    return Stack(units, tuple(weights), tuple(w[:, 0].copy() for w in weights), divide_by)


def test_dbn_starts_with_what_the_stack_says_of_the_rows_and_deep_with_the_same_outputs(trained):
    x, y = rings()
    stack, shift = stack_of(), np.array([0.5, -1.0, 2.0, 0.0])
    options = Options(**(vars(STACKED) | {"pretrained": stack}))
    one, other = (fit(x, y, [1e9], options, model=model, shift=shift) for model in (dbn, deep))
    started, random = trained
    plain = [array for pair in zip(stack.weights, stack.biases, strict=True) for array in pair]
    rows, centred = x.astype(float), x - shift
    for i in (0, 2):
        rows = expit(rows @ plain[i].T + plain[i + 1])
        centred = expit(centred @ started[i].T + started[i + 1])
    np.testing.assert_allclose(centred, rows, atol=1e-5)
    np.testing.assert_array_equal(started[4], random[4])
    assert [array.shape for array in started] == [array.shape for array in random]
    np.testing.assert_allclose(random[0].std(), np.sqrt(2 / (4 + 7)), rtol=0.3)
    assert one.outcomes[0].objective == pytest.approx(plain_objective(started, x - shift, y, 1 / 3e11, "sigmoid"))
    assert one.outcomes[0].objective != other.outcomes[0].objective


@pytest.mark.parametrize("model", [deep, dbn])
def test_sigmoid_units_learn(model):
    x, y = rings()
    options = Options(least_steps=1500, batch_size=32, learning_rate=0.2, pretrained=stack_of((4, 32, 16)))
    fitted = fit(x, y, [1000.0], options, model=model)
    assert not fitted.outcomes[0].failed
    assert (fitted.decide(x)[:, 0] == y).mean() > 0.95
