"""What a network says, and the gradient of its loss, against NumPy in float64, finite differences and autograd."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from lazypipe.nets.network import Network, Shape

LOSSES = ("cross_entropy", "squared_error", "binary_cross_entropy")
ACTIVATIONS = ("relu", "tanh", "sigmoid")
NUMPY = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}


def made(units=(5, 7, 4, 3), activation="tanh", loss="cross_entropy", seed=0, **options):
    network = Network(Shape(units, activation, loss), torch.Generator().manual_seed(seed), **options)
    network.initialise("xavier", seed)
    for name, value in network.parameters.values.items():
        if name.startswith("bias"):
            value.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed + 1))
    return network


def data(loss, n=6, n_in=5, n_out=3, seed=3):
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(random.standard_normal((n, n_in)).astype(np.float32))
    if loss == "cross_entropy":
        return rows, torch.from_numpy(random.integers(0, n_out, n))
    values = random.random((n, n_out)) if loss == "binary_cross_entropy" else random.standard_normal((n, n_out))
    return rows, torch.from_numpy(values.astype(np.float32))


def numpy_loss(network, vector, rows, targets):
    """The mean loss of all rows, in a dozen lines of float64."""
    values = network.parameters.views(torch.from_numpy(vector))
    active, n_layers = rows.numpy().astype(np.float64), network.shape.n_layers
    for i in range(n_layers):
        active = active @ values[f"weight.{i}"].numpy().T + values[f"bias.{i}"].numpy()
        if i < n_layers - 1:
            active = NUMPY[network.shape.activation](active)
    t = targets.numpy()
    if network.shape.loss == "cross_entropy":
        top = active.max(1)
        return float(np.mean(top + np.log(np.exp(active - top[:, None]).sum(1)) - active[np.arange(len(t)), t]))
    if network.shape.loss == "binary_cross_entropy":
        return float(np.sum(np.logaddexp(0, active) - t * active) / len(t))
    return float(((active - t) ** 2).sum() / 2 / len(t))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation, loss):
    network = made(activation=activation, loss=loss)
    rows, targets = data(loss)
    sums = network.learn(rows, targets, len(rows), True)
    vector = network.parameters.vector.double().numpy()
    assert float(sums[0]) / len(rows) == pytest.approx(numpy_loss(network, vector, rows, targets), rel=1e-5)
    step = 1e-6
    expected = np.empty_like(vector)
    for i in range(len(vector)):
        high, low = vector.copy(), vector.copy()
        high[i] += step
        low[i] -= step
        expected[i] = (numpy_loss(network, high, rows, targets) - numpy_loss(network, low, rows, targets)) / (2 * step)
    np.testing.assert_allclose(network.parameters.gradient.numpy(), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("units", [(5, 3), (5, 1, 3), (5, 7, 4, 3)])
def test_gradients_equal_autograd(units):
    """On the function that the curvature term differentiates, too."""
    network = made(units)
    rows, targets = data("cross_entropy")
    network.learn(rows, targets, len(rows), True)
    vector = network.parameters.vector.clone().requires_grad_()
    functional.cross_entropy(network.function()(vector, rows), targets).backward()
    torch.testing.assert_close(network.parameters.gradient, vector.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network.outputs(rows), network.function()(vector, rows).detach())


def test_parts_of_a_batch_add_up():
    network = made()
    rows, targets = data("cross_entropy", n=10)
    whole = network.learn(rows, targets, 10, True)
    gradient = network.parameters.gradient.clone()
    parts = [network.learn(rows[a:b], targets[a:b], 10, a == 0) for a, b in ((0, 4), (4, 9), (9, 10))]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(network.parameters.gradient, gradient)


def test_what_was_not_finite_is_overwritten():
    network = made()
    rows, targets = data("cross_entropy")
    network.parameters.gradient.fill_(float("nan"))
    network.learn(rows, targets, len(rows), True)
    assert network.parameters.gradient.isfinite().all()


def test_an_autoencoder_learns_its_rows():
    network = made((5, 3, 5), loss="squared_error")
    rows, _ = data("squared_error")
    sums = network.learn(rows, None, len(rows), True)
    assert float(sums[0]) == pytest.approx(float((network.outputs(rows) - rows).square().sum() / 2), rel=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dropout_is_that_of_a_thinned_network(activation):
    """The gradient is autograd's, with the same units left out and the rest scaled up."""
    network = made(activation=activation, dropout=0.5, input_dropout=0.25)
    rows, targets = data("cross_entropy", n=8)
    state = network.random.get_state()
    network.learn(rows, targets, 8, True)
    network.random.set_state(state)
    masks = [(torch.rand(n, 8, generator=network.random) >= share) / (1 - share)
             for n, share in ((5, 0.25), (7, 0.5), (4, 0.5))]  # fmt: skip
    vector = network.parameters.vector.clone().requires_grad_()
    values, active = network.parameters.views(vector), rows * masks[0].t()
    for i in range(3):
        active = functional.linear(active, values[f"weight.{i}"], values[f"bias.{i}"])
        if i < 2:
            active = network.activations[i].plain(active) * masks[i + 1].t()
    functional.cross_entropy(active, targets).backward()
    torch.testing.assert_close(network.parameters.gradient, vector.grad, rtol=1e-4, atol=1e-6)


def test_nothing_is_left_out_when_judged():
    network = made(dropout=0.9)
    rows, targets = data("cross_entropy")
    torch.testing.assert_close(network.judge(rows, targets), network.judge(rows, targets))
    expected = functional.cross_entropy(network.outputs(rows), targets, reduction="sum")
    assert float(network.judge(rows, targets)[0]) == pytest.approx(float(expected), rel=1e-5)


def test_bfloat16_is_near():
    """bfloat16 keeps 8 bits; the parameters and their gradient stay float32."""
    exact, rounded = made((5, 64, 3)), made((5, 64, 3), precision="bfloat16")
    rows, targets = data("cross_entropy", n=32)
    for network in (exact, rounded):
        network.learn(rows, targets, 32, True)
    assert rounded.parameters.vector.dtype == rounded.parameters.gradient.dtype == torch.float32
    difference = (rounded.parameters.gradient - exact.parameters.gradient).norm()
    assert 0 < difference < 0.02 * exact.parameters.gradient.norm()


def test_accuracy_counts_the_largest_output():
    network = made()
    rows, targets = data("cross_entropy", n=50)
    right = int((network.outputs(rows).argmax(1) == targets).sum())
    assert network.judge(rows, targets)[1] == right
