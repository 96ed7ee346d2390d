"""Pre-trained stacks: what is read is what was written, and nothing else is taken for one."""

import numpy as np
import pytest
import torch

from lazypipe.errors import DataError
from lazypipe.nets.checkpoints import save_tensors
from lazypipe.nets.stack import Stack, load_stack, save_stack

NETWORK = {"units": [3, 2], "activation": "sigmoid", "loss": "pretrained"}
TENSORS = {"weight.0": torch.ones(2, 3), "bias.0": torch.zeros(2)}


def stack_of(*units, divide_by=255.0):
    random = np.random.default_rng(0)
    pairs = list(zip(units[1:], units, strict=False))
    weights = tuple(random.normal(size=pair).astype(np.float32) for pair in pairs)
    return Stack(units, weights, tuple(random.normal(size=n).astype(np.float32) for n, _ in pairs), divide_by)


def test_what_is_read_is_what_was_written(tmp_path):
    stack = stack_of(5, 4, 3)
    save_stack(tmp_path / "stack.safetensors", stack)
    found = load_stack(tmp_path / "stack.safetensors")
    assert (found.units, found.divide_by, found.digest) == ((5, 4, 3), 255.0, stack.digest)
    for one, other in zip((*found.weights, *found.biases), (*stack.weights, *stack.biases), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32
    assert found.nbytes == 4 * (5 * 4 + 4 * 3 + 4 + 3)
    with pytest.raises(DataError, match="stack.safetensors"):
        save_stack(tmp_path / "stack.safetensors", stack)
    save_stack(tmp_path / "stack.safetensors", stack, overwrite=True)


def test_the_digest_tells_numbers_and_divisors_apart():
    one, other = stack_of(5, 4), stack_of(5, 4)
    assert one.digest == other.digest
    other.weights[0][1, 2] += 1
    changed = Stack(other.units, other.weights, other.biases, 255.0)
    assert len({one.digest, changed.digest, stack_of(5, 4, divide_by=1.0).digest}) == 3


def test_a_file_may_hold_more(tmp_path):
    save_tensors(
        tmp_path / "more",
        {"network": NETWORK, "divide_by": 2, "epochs": 3},
        TENSORS | {"visible_bias.0": torch.ones(3)},
        overwrite=False,
    )
    assert load_stack(str(tmp_path / "more")).units == (3, 2)


@pytest.mark.parametrize(
    ("header", "tensors", "said"),
    [
        ({"network": NETWORK | {"loss": "cross_entropy"}}, TENSORS, r"a network with outputs \(cross_entropy\)"),
        ({"step": 3}, TENSORS, "is no network, where a pre-trained stack is wanted"),
        ({"network": NETWORK | {"activation": "relu"}}, TENSORS, "its units are relu, not sigmoid"),
        ({"network": NETWORK | {"units": [4, 2]}}, TENSORS, r"weight.0 is \(2, 3\), where its units say \(2, 4\)"),
        ({"network": NETWORK}, {"weight.0": TENSORS["weight.0"]}, "bias.0 is missing"),
    ],
)
def test_other_files_are_refused(tmp_path, header, tensors, said):
    save_tensors(tmp_path / "file", header | {"divide_by": 1.0}, tensors, overwrite=False)
    with pytest.raises(DataError, match=said) as caught:
        load_stack(tmp_path / "file")
    assert "Give the file of a pre-trained stack" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="none: "):
        load_stack(tmp_path / "none")
