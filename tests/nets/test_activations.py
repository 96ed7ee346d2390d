"""In-place activations and slopes against autograd; initial weights against their stated spread."""

import math

import pytest
import torch

from lazypipe.errors import ConfigError
from lazypipe.nets.activations import ACTIVATIONS, activation_of
from lazypipe.nets.initial import INITIALS, fill, initial_for


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_in_place_is_as_autograd(name, dtype):
    activation = activation_of(name)
    random = torch.Generator().manual_seed(0)
    z = torch.randn((37, 5), generator=random).mul(3).to(dtype).requires_grad_()
    delta = torch.randn((37, 5), generator=random).to(dtype)
    wanted = activation.plain(z)
    (slope,) = torch.autograd.grad(wanted, z, delta)

    a = z.detach().clone()
    assert activation.apply_(a) is a
    moved = delta.clone()
    assert activation.times_slope_(moved, a) is moved
    assert torch.equal(a, wanted)
    assert torch.equal(moved, slope)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_go_along_a_transposed_view(name):
    activation = activation_of(name)
    a = activation.plain(torch.linspace(-2, 2, 12).view(3, 4))
    delta = torch.full((4, 3), 2.0).t()
    activation.times_slope_(delta, a)
    assert torch.equal(delta, activation.times_slope_(torch.full((3, 4), 2.0), a))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match=r"activation: 'rellu' is not one of .*; the nearest is 'relu'\."):
        activation_of("rellu")


SPREADS = {
    "xavier": math.sqrt(2 / 500),
    "xavier_normal": math.sqrt(2 / 500),
    "he": math.sqrt(2 / 200),
    "he_uniform": math.sqrt(2 / 200),
    "lecun": math.sqrt(1 / 200),
    "normal": 0.01,
    "zeros": 0.0,
}


@pytest.mark.parametrize("name", INITIALS)
def test_initial_weights_have_their_spread(name):
    weight = torch.full((300, 200), 7.0)
    fill(weight, name, torch.Generator().manual_seed(1))
    spread = SPREADS[name]
    assert weight.std().item() == pytest.approx(spread, rel=0.02)  # 7 standard errors of 60,000 normal numbers
    assert abs(weight.mean().item()) <= 5 * spread / math.sqrt(weight.numel())
    if INITIALS[name].uniform:
        assert weight.abs().max().item() <= math.sqrt(3) * spread
    elif spread:
        assert weight.abs().max().item() > 3 * spread


@pytest.mark.parametrize("name", INITIALS)
def test_a_seed_gives_the_same_weights_whatever_they_are_written_to(name):
    vector, strided = torch.zeros(60), torch.zeros((12, 5))
    fill(vector.view(5, 12), name, torch.Generator().manual_seed(3))
    fill(strided.t(), name, torch.Generator().manual_seed(3))
    assert torch.equal(vector.view(5, 12), strided.t())


def test_auto_suits_the_activation():
    assert [initial_for("auto", name) for name in ("relu", "tanh", "sigmoid")] == ["he", "xavier", "xavier"]
    assert initial_for("lecun", "relu") == "lecun"
    with pytest.raises(ConfigError, match=r"initial: 'xaver' is not one of auto, .*; the nearest is 'xavier'\."):
        initial_for("xaver", "relu")
