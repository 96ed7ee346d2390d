"""Every optimizer against a plain rule in float64, its state that resumes bit for bit, and the clipped norm."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypipe.errors import ConfigError
from lazypipe.nets.optimizers import DEFAULT_RATES, OPTIMIZERS, STATE_VECTORS, Optimizer, clip_
from lazypipe.nets.parameters import Parameters

N_STEPS = 20


def parameters_of(values) -> Parameters:
    made = Parameters({"weight": (len(values), 1)}, {})
    made.vector.copy_(torch.as_tensor(values))
    return made


def plain_steps(name, weights, gradient_of, rates, momentum=0.9):
    """Where the rules, as the papers and torch state them, go from ``weights`` in float64."""
    w, v, s = weights.astype(np.float64), 0.0, 0.0
    for t, rate in enumerate(rates, start=1):
        g = gradient_of(w)
        if name in ("gradient_descent", "curvature"):
            w = w - rate * g
        elif name == "momentum":
            v = momentum * v + g
            w = w - rate * v
        elif name == "nesterov":
            v = momentum * v + g
            w = w - rate * (g + momentum * v)
        elif name == "adagrad":
            s = s + g**2
            w = w - rate * g / (np.sqrt(s) + 1e-10)
        elif name == "rmsprop":
            s = 0.99 * s + 0.01 * g**2
            w = w - rate * g / (np.sqrt(s) + 1e-8)
        elif name == "adam":
            v, s = 0.9 * v + 0.1 * g, 0.999 * s + 0.001 * g**2
            w = w - rate * v / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return w


def quadratic(seed, size):
    """A random valley: its Hessian with eigenvalues up to 1, its lowest point, where to start; exact in float32."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, size))
    hessian = root @ root.T
    hessian = (hessian / np.linalg.eigvalsh(hessian)[-1]).astype(np.float32).astype(np.float64)
    lowest, start = random.normal(size=(2, size)).astype(np.float32)
    return hessian, lowest.astype(np.float64), start


def run(optimizer, parameters, gradient_of, rates):
    for rate in rates:
        parameters.gradient.copy_(torch.from_numpy(gradient_of(parameters.vector.numpy().astype(np.float64))))
        optimizer.step(rate)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 70), momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
def test_it_goes_where_the_plain_rule_goes(name, seed, size, momentum):
    hessian, lowest, start = quadratic(seed, size)
    rates = np.linspace(0.1, 0.01, N_STEPS).tolist()

    def gradient_of(w):
        return hessian @ (w - lowest)

    parameters = parameters_of(start)
    run(Optimizer(name, parameters, momentum=momentum), parameters, gradient_of, rates)
    wanted = plain_steps(name, start, gradient_of, rates, momentum)
    np.testing.assert_allclose(parameters.vector.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_state_resumes_bit_for_bit(name):
    hessian, lowest, start = quadratic(5, 301)

    def gradient_of(w):
        return hessian @ (w - lowest)

    whole = parameters_of(start)
    optimizer = Optimizer(name, whole)
    assert all(not value.any() for value in optimizer.tensors().values())
    run(optimizer, whole, gradient_of, [0.01] * 7)
    saved = {key: value.clone() for key, value in optimizer.tensors().items()}
    weights = whole.vector.clone()
    run(optimizer, whole, gradient_of, [0.01] * 7)

    resumed = parameters_of(weights)
    again = Optimizer(name, resumed)
    again.load(saved)
    run(again, resumed, gradient_of, [0.01] * 7)
    assert torch.equal(resumed.vector, whole.vector)
    assert all(torch.equal(value, optimizer.tensors()[key]) for key, value in again.tensors().items())
    assert all(value.data_ptr() != saved[key].data_ptr() for key, value in again.tensors().items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_keeps_the_vectors_that_it_says(name):
    parameters = parameters_of(np.ones(1000, np.float32))
    optimizer = Optimizer(name, parameters)
    optimizer.step(DEFAULT_RATES[name])
    kept = [value for value in optimizer.tensors().values() if value.ndim]
    assert len(kept) == STATE_VECTORS[name]
    assert 0 <= sum(value.nbytes for value in optimizer.tensors().values()) - 4000 * STATE_VECTORS[name] <= 4


def test_the_weights_of_the_network_move():
    parameters = Parameters({"weight.0": (3, 2)}, {"bias.0": (3,)})
    optimizer = Optimizer("gradient_descent", parameters)
    parameters.gradients["bias.0"].fill_(2.0)
    optimizer.step(0.5)
    assert parameters.values["bias.0"].tolist() == [-1.0, -1.0, -1.0]
    assert not parameters.values["weight.0"].any()


def test_what_is_no_optimizer_is_refused():
    parameters = parameters_of([1.0, 2.0])
    with pytest.raises(ConfigError, match=r"optimizer: 'addam' is not one of gradient_.*; the nearest is 'adam'\."):
        Optimizer("addam", parameters)
    with pytest.raises(ConfigError, match=r"optimizer: None is not one of [^;]*\."):
        Optimizer(None, parameters)
    for momentum in (-0.1, 1.0, float("nan"), "0.9"):
        with pytest.raises(ConfigError, match="momentum: .* is not a number of 0 or more and below 1"):
            Optimizer("momentum", parameters, momentum=momentum)


def test_a_state_of_another_is_refused():
    adam = Optimizer("adam", parameters_of([1.0, 2.0]))
    with pytest.raises(ConfigError, match=r"state is empty, where adam has exp_avg \(2,\), .*start again\."):
        adam.load({})
    with pytest.raises(ConfigError, match=r"state is exp_avg \(3,\), .* where adam has exp_avg \(2,\)"):
        adam.load(Optimizer("adam", parameters_of([1.0, 2.0, 3.0])).tensors())


@settings(max_examples=50, deadline=None)
@given(
    gradient=st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=1, max_size=40),
    max_norm=st.sampled_from([1e-3, 1.0, 1e6]),
)
def test_clipping_is_as_torch_clips(gradient, max_norm):
    parameters = parameters_of([0.0] * len(gradient))
    parameters.gradient.copy_(torch.tensor(gradient))
    theirs = torch.nn.Parameter(torch.zeros(len(gradient)))
    theirs.grad = torch.tensor(gradient)
    norm = clip_(parameters, max_norm)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(norm, wanted, rtol=1e-5, atol=1e-18)
    torch.testing.assert_close(parameters.gradient, theirs.grad, rtol=1e-5, atol=0)
