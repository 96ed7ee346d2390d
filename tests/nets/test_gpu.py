"""What a GPU must do, where there is one."""

import numpy as np
import pytest
import torch

import lazypipe as lp
from lazypipe.nets.dbn import DBN
from lazypipe.nets.mlp import MLP

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def digits(n=60_000):
    """Of MNIST's size."""
    random = np.random.default_rng(0)
    y = random.integers(0, 10, n)
    x = (random.random((10, 784)) < 0.3)[y] * 200 + random.integers(0, 55, (n, 784))
    return x.astype(np.uint8), y


def fitted(x, y, device="cuda", memory="1GiB", **options):
    model = MLP((1024,), optimizer="momentum", divide_by=255, device=device, **options)
    with lp.open_engine("serial", memory=memory) as engine:
        return model.fit(x, y, engine=engine)


def test_the_numbers_are_those_of_a_processor():
    x, y = digits(2_000)
    one, other = (fitted(x, y, device, epochs=1, batch_size=200) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(other.coefs_[0], one.coefs_[0], rtol=1e-2, atol=1e-4)
    assert other.device_.startswith("cuda")


def test_an_epoch_of_mnist_takes_less_than_a_second():
    model = fitted(*digits(), epochs=4)
    assert min(epoch["seconds"] for epoch in model.history_[1:]) < 1


def test_streaming_has_half_the_rate_of_rows_on_the_device(tmp_path):
    x, y = digits()
    np.save(tmp_path / "x.npy", x)
    resident = fitted(tmp_path / "x.npy", y, epochs=5)
    streamed = fitted(tmp_path / "x.npy", y, epochs=5, memory="48MiB")
    rates = [np.median([e["samples_per_second"] for e in model.history_[1:]]) for model in (resident, streamed)]
    assert rates[1] > 0.5 * rates[0]


def test_a_belief_network_resumes_on_a_gpu(tmp_path):
    x, y = digits(2_000)
    model = DBN((64, 32), divide_by=255, device="cuda", pretraining={"epochs": 2}, fine_tuning={"epochs": 2})
    model.fit(x, y, state=tmp_path / "state")
    again = DBN((64, 32), divide_by=255, device="cuda", pretraining={"epochs": 2}, fine_tuning={"epochs": 2})
    again.fit(x, y, state=tmp_path / "state")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_bfloat16_learns():
    x, y = digits(5_000)
    assert fitted(x, y, epochs=3, precision="bfloat16").score(x, y) > 0.9


def test_memory_that_is_short_is_said():
    x, y = digits(4_000)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        model = fitted(x, y, epochs=1, batch_size=4_000, memory="64MiB")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.score(x, y) > 0
