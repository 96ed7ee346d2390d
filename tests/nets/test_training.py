"""The training loop: resumed with the same bits, stopped at a bad step, and in parts where memory is short."""

import numpy as np
import pytest
import torch

import lazypipe as lp
from lazypipe.io.array import from_array
from lazypipe.nets.checkpoints import Checkpoints
from lazypipe.nets.network import Network, Shape
from lazypipe.nets.options import Options
from lazypipe.nets.stream import Stream
from lazypipe.nets.training import Training
from lazypipe.progress import EpochDone, StageStarted, StepsDone

N, BATCH = 50, 8  # the last of 7 batches is short
OPTIONS = Options(optimizer="momentum", learning_rate=0.05, epochs=4, batch_size=BATCH)


class Stopped(Exception):
    """A kill."""


def rows(n=N, seed=0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def training(
    options=OPTIONS, data=None, validate=False, checkpoints=None, stop_at=None, dropout=0.3, memory=10**6, **course
):
    """A training that is killed before step ``stop_at``."""
    options = options.checked()
    x, y = data or rows()
    network = Network(Shape((4, 6, 2), "tanh", "cross_entropy"), torch.Generator().manual_seed(1), dropout=dropout)
    network.initialise("xavier", 0)

    def stream(x, y, shuffle, n):
        return Stream(
            from_array(x), y, batch_rows=n, memory=memory, seed=3, device=torch.device("cpu"), shuffle=shuffle
        )

    made = Training(
        network,
        options.optimizer_of(network.parameters),
        stream(x, y, True, options.batch_size or len(x)),
        options.course(network.parameters.size, "accuracy" if validate else None, True),
        validation=stream(*rows(30, seed=9), False, 7) if validate else None,
        checkpoints=checkpoints,
        identity=options.identity(),
        **course,
    )
    if stop_at is not None:
        step = made.optimizer.step

        def stopping(rate):
            if made.step == stop_at:
                raise Stopped
            step(rate)

        made.optimizer.step = stopping
    return made


@pytest.mark.parametrize("optimizer", ["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam"])
@pytest.mark.parametrize("stop_at", [3, 7, 17])
def test_resumed_in_the_middle_of_an_epoch_bit_for_bit(tmp_path, optimizer, stop_at):
    options = Options(optimizer=optimizer, learning_rate=0.01, epochs=4, batch_size=BATCH, checkpoint_steps=2)
    whole = training(options, validate=True).run()
    with Checkpoints(tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        training(options, validate=True, checkpoints=checkpoints, stop_at=stop_at).run()
    with Checkpoints(tmp_path / "state") as checkpoints:
        again = training(options, validate=True, checkpoints=checkpoints)
        found = again.run()
    assert torch.equal(found.last, whole.last)
    assert torch.equal(found.best, whole.best)
    assert found.best_epoch == whole.best_epoch
    timed = ("seconds", "samples_per_second", "waiting")
    for one, other in zip(found.history, whole.history, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_streamed_in_buffers_and_resumed(tmp_path):
    """Buffers that hold a part of the rows, and a kill between their ends."""
    whole = training(memory=1500).run()
    assert not training(memory=1500).stream.resident
    options = Options(**{**vars(OPTIONS), "checkpoint_steps": 1})
    with Checkpoints(tmp_path / "state") as checkpoints, pytest.raises(Stopped):
        training(options, memory=1500, checkpoints=checkpoints, stop_at=11).run()
    with Checkpoints(tmp_path / "state") as checkpoints:
        found = training(options, memory=1500, checkpoints=checkpoints).run()
    assert torch.equal(found.last, whole.last)


def test_a_finished_training_is_taken_from_its_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "state") as checkpoints:
        first = training(checkpoints=checkpoints).run()
        again = training(checkpoints=checkpoints, stop_at=0).run()
    assert torch.equal(first.last, again.last)


def test_more_epochs_go_on_from_the_last(tmp_path):
    longer = Options(**{**vars(OPTIONS), "epochs": 6})
    with Checkpoints(tmp_path / "state") as checkpoints:
        training(checkpoints=checkpoints).run()
        found = training(longer, checkpoints=checkpoints).run()
    assert torch.equal(found.last, training(longer).run().last)


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    with Checkpoints(tmp_path / "state") as checkpoints:
        training(checkpoints=checkpoints).run()
        other = Options(**{**vars(OPTIONS), "momentum": 0.5})
        with pytest.raises(lp.DataError, match=r"momentum 0\.9, this run has 0\.5.*--restart"):
            training(other, checkpoints=checkpoints).run()


def test_a_loss_that_is_not_finite_stops_at_that_step(tmp_path):
    """Before the step is made; what was saved before stays."""
    with Checkpoints(tmp_path / "state") as checkpoints:
        options = Options(**{**vars(OPTIONS), "checkpoint_steps": 5})
        spoiled = training(options, checkpoints=checkpoints, dropout=0.0)
        learn = spoiled.learner.learn

        def learning(*given):
            sums = learn(*given)
            return sums * float("nan") if spoiled.step == 9 else sums

        spoiled.learner.learn = learning
        with pytest.raises(lp.DivergedError, match=r"loss is nan at step 10: batch 3 of 7 in epoch 2.*is kept in"):
            spoiled.run()
        saved = checkpoints.load("training last")
    assert saved.header["step"] == 7
    assert saved.tensors["parameters"].isfinite().all()


@pytest.mark.parametrize("most", [4, 3, 1])
def test_out_of_memory_halves_the_batch(most):
    """And keeps what a step is of: the same numbers to rounding, and a note that says so."""
    whole = training(dropout=0.0).run()
    short = training(dropout=0.0)
    learn = short.learner.learn

    def learning(part, targets, n_batch, first):
        if len(part) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return learn(part, targets, n_batch, first)

    short.learner.learn = learning
    found = short.run()
    torch.testing.assert_close(found.last, whole.last, rtol=1e-4, atol=1e-6)
    assert short.part_rows <= most
    assert f"a batch of {BATCH} is learnt in parts of {short.part_rows} rows" in found.notes[-1]


def test_no_memory_for_one_row_is_said():
    short = training()

    def learning(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    short.learner.learn = learning
    with pytest.raises(lp.EngineError, match="no memory for one row"):
        short.run()


def test_patience_ends_and_the_best_epoch_is_kept():
    options = Options(**{**vars(OPTIONS), "epochs": 60, "patience": 3, "learning_rate": 0.3})
    found = training(options, validate=True).run()
    accuracies = [one["validation_accuracy"] for one in found.history]
    assert found.stopped_early
    assert found.best_epoch == 1 + int(np.argmax(accuracies))
    assert len(accuracies) == found.best_epoch + 3


def test_patience_needs_validation_rows():
    with pytest.raises(lp.ConfigError, match="no validation rows"):
        training(Options(**{**vars(OPTIONS), "patience": 3}))


def test_the_penalty_is_of_weights_alone():
    """A step of gradient descent with l2 moves weights by it, and biases not."""
    plain, penalised = (
        training(Options(optimizer="gradient_descent", learning_rate=0.1, epochs=1, batch_size=None, l2=l2), dropout=0)
        for l2 in (0.0, 0.5)
    )
    start, n = plain.learner.parameters.vector.clone(), plain.learner.parameters.n_weights
    one, other = plain.run().last, penalised.run().last
    torch.testing.assert_close(one[:n] - 0.1 * 0.5 * start[:n], other[:n])
    assert torch.equal(one[n:], other[n:])


def test_a_clipped_step_is_no_longer_than_asked():
    options = Options(optimizer="gradient_descent", learning_rate=1.0, epochs=1, batch_size=None, clip_norm=1e-3)
    made = training(options, dropout=0)
    start = made.learner.parameters.vector.clone()
    assert float((made.run().last - start).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_events_tell_epochs_and_means():
    told = []
    found = training(validate=True, tell=told.append).run()
    epochs = [event for event in told if isinstance(event, EpochDone)]
    assert [event.epoch for event in epochs] == [1, 2, 3, 4]
    assert epochs[-1].step == found.n_steps == 28
    assert all(isinstance(event, StageStarted | EpochDone | StepsDone) for event in told)
    last = found.history[-1]
    assert 0 <= last["train_accuracy"] <= 1
    assert {"train_loss", "validation_loss", "samples_per_second", "waiting", "seconds"} <= set(last)


def test_the_curvature_term_is_in_the_step():
    """Δw = -α ∂E/∂w - β (∂y/∂w)(∂²y/∂w²), of the outputs' sum averaged over the rows."""
    options = Options(optimizer="curvature", learning_rate=0.1, epochs=1, batch_size=None, curvature=0.7)
    made = training(options, dropout=0)
    network, (x, y) = made.learner, rows()
    start = network.parameters.vector.clone()
    network.learn(torch.from_numpy(x), torch.from_numpy(y), N, True)
    gradient = network.parameters.gradient.clone()

    def y_of(vector):
        return network.function()(vector, torch.from_numpy(x)).sum() / N

    slope = torch.func.grad(y_of)(start)
    diagonal = torch.func.hessian(y_of)(start).diagonal()
    expected = start - 0.1 * gradient - 0.7 * slope * diagonal
    torch.testing.assert_close(made.run().last, expected, rtol=1e-4, atol=1e-6)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss tells of the weights before a step; those after the last one of an epoch are looked at too."""
    with Checkpoints(tmp_path / "state") as checkpoints:
        spoiled = training(checkpoints=checkpoints)
        step = spoiled.optimizer.step

        def stepping(rate):
            step(rate)
            if spoiled.step == 13:  # the last of the second epoch
                spoiled.learner.parameters.vector[0] = float("inf")

        spoiled.optimizer.step = stepping
        with pytest.raises(lp.DivergedError, match="weights are not finite at step 14: batch 7 of 7 in epoch 2"):
            spoiled.run()
        assert checkpoints.load("training last").header["step"] == 7


def test_fewer_epochs_than_were_trained_are_refused(tmp_path):
    with Checkpoints(tmp_path / "state") as checkpoints:
        training(checkpoints=checkpoints).run()
        with pytest.raises(lp.DataError, match="has 4 epochs, this run asks for 2"):
            training(Options(**{**vars(OPTIONS), "epochs": 2}), checkpoints=checkpoints).run()


def test_a_checkpoint_of_another_kind_of_device_goes_on(tmp_path):
    """With other random numbers, which is said."""
    with Checkpoints(tmp_path / "state") as checkpoints:
        with pytest.raises(Stopped):
            training(checkpoints=checkpoints, stop_at=8).run()
        header, tensors = checkpoints.load("training last")
        tensors["random"] = torch.zeros(16, dtype=torch.uint8)
        checkpoints.save("training last", {**header, "device": "cuda"}, tensors)
        found = training(checkpoints=checkpoints).run()
    assert "began on cuda, went on at step 8 on cpu" in found.notes[0]


def test_models_in_a_state_folder_are_not_deleted(tmp_path):
    (tmp_path / "stack.safetensors").write_bytes(b"somebody's")
    with pytest.raises(lp.DataError, match="holds other files"), Checkpoints(tmp_path, restart=True):
        pass
    assert (tmp_path / "stack.safetensors").exists()


def test_judging_is_halved_where_memory_is_short():
    whole, short = training(validate=True), training(validate=True)
    judge = short.learner.judge

    def judging(rows, targets):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return judge(rows, targets)

    short.learner.judge = judging
    one, other = whole.run().history[-1], short.run().history[-1]
    assert other["validation_accuracy"] == one["validation_accuracy"]
    assert other["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-5)
