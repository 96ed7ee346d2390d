"""Networks trained where the engine puts them: on a worker that offers a GPU, in several processes, seen from afar."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.nets.mlp import MLP
from lazypipe.progress import EpochDone

OPTIONS = {"hidden": (8,), "epochs": 2, "batch_size": 33, "threads": 1, "optimizer": "momentum", "timeout": 60}


def rows(n=240):
    random = np.random.default_rng(0)
    x = random.standard_normal((n, 6)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def test_on_a_worker_that_offers_a_gpu(dask_scheduler, dask_worker, tmp_path, serial_engine):
    """Device auto asks for it, and its events reach the driver; without one CUDA is refused at once, and named."""
    x, y = rows()
    wanted = MLP(**OPTIONS).fit(x, y, engine=serial_engine)
    told = []
    with dask_worker("--nthreads", "1", "--no-nanny", "--name", "plain"):
        with (
            lp.open_engine("dask", address=dask_scheduler) as engine,
            pytest.raises(lp.EngineError, match="--resources GPU=1"),
        ):
            MLP(**OPTIONS, device="cuda").fit(x, y, engine=engine)
        gpu = ("--resources", "GPU=1")
        with (
            dask_worker("--nthreads", "1", "--no-nanny", "--name", "gpu", *gpu),
            lp.open_engine("dask", address=dask_scheduler) as engine,
        ):
            engine.client.wait_for_workers(2)
            engine.progress.listeners.append(told.append)
            model = MLP(**OPTIONS).fit(x, y, engine=engine, state=tmp_path / "state")
    assert model.plan_.folds[0].gpus == 1
    np.testing.assert_array_equal(model.coefs_[0], wanted.coefs_[0])
    assert [event.epoch for event in told if isinstance(event, EpochDone)] == [1, 2]


def test_two_processes_share_each_batch(serial_engine):
    """The same numbers to rounding, batches of odd sizes and a last one of few rows among them."""
    x, y = rows()
    one = MLP(**OPTIONS).fit(x, y, validation=(x[:50], y[:50]), engine=serial_engine)
    told = []
    with lp.open_engine("serial") as engine:
        engine.progress.listeners.append(told.append)
        both = MLP(**OPTIONS, processes=2).fit(x, y, validation=(x[:50], y[:50]), engine=engine)
    np.testing.assert_allclose(both.coefs_[0], one.coefs_[0], rtol=1e-4, atol=1e-6)
    assert [event.epoch for event in told if isinstance(event, EpochDone)] == [1, 2]
    for mine, other in zip(both.history_, one.history_, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert mine["validation_accuracy"] == other["validation_accuracy"]


def test_two_processes_go_on_with_the_same_bits(tmp_path, serial_engine):
    """With dropout, of which each process has its own, and an optimizer that has a state."""
    x, y = rows()
    options = {**OPTIONS, "dropout": 0.4, "processes": 2, "checkpoint_steps": 3}
    whole = MLP(**options).fit(x, y, engine=serial_engine)
    MLP(**{**options, "epochs": 1}).fit(x, y, engine=serial_engine, state=tmp_path / "state")
    again = MLP(**options).fit(x, y, engine=serial_engine, state=tmp_path / "state")
    np.testing.assert_array_equal(again.coefs_[0], whole.coefs_[0])
