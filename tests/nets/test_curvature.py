"""Gradient times curvature of a network's output: exact as the whole Hessian and as differences, estimated in mean."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.func import hessian
from torch.nn.functional import linear

from lazypipe.errors import ConfigError
from lazypipe.nets.activations import activation_of
from lazypipe.nets.curvature import EXACT_LIMIT, curvature_term, hessian_diagonal

ACTIVATION_NAMES = ("tanh", "sigmoid")


def network(activation, units):
    """Layers of these units as a function of (vector, rows), its outputs linear."""
    plain = activation_of(activation).plain

    def outputs(vector, rows):
        start, active = 0, rows
        for i, (n_in, n_out) in enumerate(pairwise(units)):
            weight = vector[start : start + n_in * n_out].view(n_out, n_in)
            start += n_in * n_out
            bias = vector[start : start + n_out]
            start += n_out
            active = linear(active, weight, bias)
            if i < len(units) - 2:
                active = plain(active)
        return active

    return outputs, sum((n_in + 1) * n_out for n_in, n_out in pairwise(units))


def problem(activation, units=(2, 3, 1), n_rows=1, dtype=torch.float64):
    function, size = network(activation, units)
    random = torch.Generator().manual_seed(11)
    vector = torch.randn(size, generator=random, dtype=torch.float64).to(dtype)
    rows = torch.randn((n_rows, units[0]), generator=random, dtype=torch.float64).to(dtype)
    return function, vector, rows


def mean_output(function, rows):
    return lambda w: function(w, rows).sum(1).mean()


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize(("units", "n_rows"), [((2, 3, 1), 1), ((2, 3, 1), 7), ((4, 6, 5, 3), 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_is_the_hessians_diagonal_times_the_gradient(activation, units, n_rows, dtype):
    function, vector, rows = problem(activation, units, n_rows, dtype)
    y = mean_output(function, rows)
    wanted = hessian(y)(vector).diagonal() * torch.func.grad(y)(vector)
    found = curvature_term(function, vector, rows, None, exact=True)
    assert found.dtype == dtype
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(
        found, wanted, rtol=1e-12 if dtype is torch.float64 else 1e-4, atol=1e-6 * (dtype is torch.float32)
    )


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_exact_is_as_differences_of_the_formula(activation):
    """One row, one output, all in NumPy: y(w) = v · f(W x + b) + c."""
    function, vector, rows = problem(activation)
    f = {"tanh": np.tanh, "sigmoid": lambda z: 1 / (1 + np.exp(-z))}[activation]
    x = rows.numpy()[0]

    def y(w):
        return w[9:12] @ f(w[:6].reshape(3, 2) @ x + w[6:9]) + w[12]

    w, step = vector.numpy(), 1e-4
    ahead = np.array([y(w + step * e) for e in np.eye(13)])
    back = np.array([y(w - step * e) for e in np.eye(13)])
    wanted = (ahead - back) / (2 * step) * (ahead - 2 * y(w) + back) / step**2
    found = curvature_term(function, vector, rows, None, exact=True)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert not found[9:].any()  # y is linear in the weights of a linear output


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_the_estimate_is_right_in_the_mean(activation):
    function, vector, rows = problem(activation, (2, 3, 2), n_rows=5)
    n_probes = 2_000
    random = torch.Generator().manual_seed(1)
    found = curvature_term(function, vector, rows, random, exact=False, n_probes=n_probes)
    exact = curvature_term(function, vector, rows, None, exact=True)
    y = mean_output(function, rows)
    whole, gradient = hessian(y)(vector), torch.func.grad(y)(vector)
    beside = whole - whole.diagonal().diag()
    error = gradient.abs() * beside.square().sum(1).sqrt() / n_probes**0.5
    assert ((found - exact).abs() <= 4 * error + 1e-12).all()
    assert ((found - exact).abs() > 0.1 * error).any()  # the error is of that size, not merely below it


@pytest.mark.parametrize("exact", [True, False])
def test_it_needs_no_recording_around_it(exact):
    function, vector, rows = problem("tanh", n_rows=4)
    wanted = curvature_term(function, vector, rows, torch.Generator().manual_seed(7), exact=exact)
    with torch.no_grad():
        found = curvature_term(function, vector, rows, torch.Generator().manual_seed(7), exact=exact)
    assert torch.equal(found, wanted)


def test_a_seed_gives_the_same_estimate():
    function, vector, rows = problem("tanh", n_rows=4, dtype=torch.float32)
    one, two = (
        curvature_term(function, vector, rows, torch.Generator().manual_seed(7), exact=False, n_probes=3)
        for _ in range(2)
    )
    assert torch.equal(one, two)
    assert one.dtype == torch.float32
    assert not one.requires_grad


@pytest.mark.parametrize("exact", [True, False])
def test_it_is_0_of_one_linear_layer(exact):
    function, vector, rows = problem("linear", (3, 2), n_rows=3)
    assert not curvature_term(function, vector, rows, None, exact=exact).any()


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_it_is_0_of_what_is_linear_in_every_weight(activation):
    function, vector, rows = problem(activation, (3, 6, 5, 2), n_rows=8)
    assert not curvature_term(function, vector, rows, None, exact=True).any()


def test_columns_in_several_parts_are_as_in_one():
    function, vector, rows = problem("tanh", (9, 12, 2), n_rows=3)  # 146 parameters: three parts
    y = mean_output(function, rows)
    torch.testing.assert_close(hessian_diagonal(y, vector), hessian(y)(vector).diagonal(), rtol=1e-12, atol=1e-14)


def test_what_would_be_too_large_is_refused():
    function, vector, rows = problem("tanh", (EXACT_LIMIT, 1))
    with pytest.raises(ConfigError, match="exact diagonal is for 2,000 parameters at most, here are 2,001"):
        curvature_term(function, vector, rows, None, exact=True)
    with pytest.raises(ConfigError, match="0 probes"):
        curvature_term(function, vector, rows, None, exact=False, n_probes=0)
