"""Progress: nothing for short runs, plain lines elsewhere than on a terminal, a live display on one."""

import io
import logging
import re

import clocks
import pytest

from lazypipe.console import ConsoleProgress, clock
from lazypipe.progress import EpochDone, PassDone, StageDone, StageStarted, StepsDone, TaskDone, WorkerSaid


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def time_passes(monkeypatch):
    """Move the clock of the console by hand."""
    now = clocks.by_hand(monkeypatch, "lazypipe.console")

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def passes(progress, n_passes, seconds_a_task, pass_by):
    for index in range(1, n_passes + 1):
        progress(StageStarted(f"pass {index}", 4))
        for n_done in range(1, 5):
            pass_by(seconds_a_task)
            progress(TaskDone(n_done, 4))
        progress(StageDone(f"pass {index}", 4 * seconds_a_task))
        progress(PassDone(index, 10.0**-index))


def test_a_short_run_says_nothing(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("pca", stream) as progress:
        passes(progress, 3, 0.1, time_passes)
    assert stream.getvalue() == ""


def test_a_long_run_says_a_line_a_pass_with_its_residual(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("pca", stream) as progress:
        progress.expected_passes = 3
        passes(progress, 3, 1.0, time_passes)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "pca: pass 1: residual 1.0e-01, about 0:08 left",
        "pca: pass 2: residual 1.0e-02, about 0:04 left",
        "pca: pass 3: residual 1.0e-03",
        "pca: 12 s in all",
    ]


def test_fast_passes_are_thinned_out(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("pca", stream) as progress:
        passes(progress, 100, 0.05, time_passes)
    assert 5 <= len(stream.getvalue().splitlines()) <= 11


def test_a_slow_stage_tells_how_far_it_is(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("convert", stream) as progress:
        progress(StageStarted("convert to a.npy", 100))
        for n_done in range(1, 101):
            time_passes(1.0)
            progress(TaskDone(n_done, 100))
    assert re.search(r"convert to a\.npy, 20 of 100 tasks, 1:20 left", stream.getvalue())


def test_of_unequal_tasks_the_time_left_is_that_of_the_work(time_passes):
    """Eight tasks, each half as long as the one before."""
    stream = io.StringIO()
    lengths = [2.0**-i for i in range(8)]
    with ConsoleProgress("sweep", stream) as progress:
        progress(StageStarted("fits", 8))
        for n_done, length in enumerate(lengths, 1):
            time_passes(20 * length)
            progress(TaskDone(n_done, 8, sum(lengths[:n_done]) / sum(lengths)))
    assert stream.getvalue().splitlines() == [
        "sweep: fits, 1 of 8 tasks (50% of the work), 0:20 left",
        "sweep: fits, 2 of 8 tasks (75% of the work), 0:10 left",
        "sweep: 40 s in all",
    ]


def test_the_bar_is_as_full_as_the_work_is_done(time_passes):
    with ConsoleProgress("sweep", Terminal()) as progress:
        progress(StageStarted("fits", 4))
        time_passes(10.0)
        progress(TaskDone(1, 4, 0.8))
        shown = progress._bar.tasks[0]
        assert (shown.completed, shown.total, shown.fields["tasks"]) == (0.8, 1.0, "1/4 tasks")
        assert shown.fields["left"] == "0:02 left"  # 10 s / 0.8 - 10 s, rounded


def test_a_terminal_gets_a_live_display_that_leaves_nothing(time_passes):
    stream = Terminal()
    with ConsoleProgress("pca", stream) as progress:
        progress.expected_passes = 3
        passes(progress, 3, 1.0, time_passes)
        shown = progress._bar.tasks[0]
        assert shown.fields["residual"] == "residual 1.0e-02"
        assert "pass 3 of about 3" in shown.description
    assert "\x1b[2K" in stream.getvalue()[-20:]  # the line is erased


def train(progress, n_epochs, seconds_a_step, pass_by, stage="", steps=10):
    """Epochs of ten steps; steps are told of once a second at most."""
    told = 0.0
    for step in range(1, n_epochs * steps + 1):
        pass_by(seconds_a_step)
        told += seconds_a_step
        loss = 1 / step
        if told >= 1:
            told = 0.0
            speed = {"samples_per_second": 52_000.4, "waiting": 0.04, "device_memory": 3 * 2.0**29}
            progress(StepsDone(stage, step, {"loss": loss, "accuracy": 0.9, "learning_rate": 0.1, **speed}))
        if step % steps == 0:
            measures = {"train_loss": loss, "validation_loss": 2 * loss, "train_accuracy": 0.96, "seconds": 3.0}
            progress(EpochDone(stage, step // steps, n_epochs, step, {**measures, "samples_per_second": 50_000.0}))


def test_a_line_an_epoch_of_training_and_one_every_ten_seconds_within(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("mlp", stream) as progress:
        train(progress, 2, 2.0, time_passes)
    speed = "4% waiting for data, 1.5GiB on the device"
    assert stream.getvalue().splitlines() == [
        f"mlp: step 6: loss 0.1667, accuracy 0.9000, 52,000 samples/s, {speed}",
        f"mlp: epoch 1 of 2: loss 0.1 (validation 0.2), accuracy 0.9600, 50,000 samples/s, {speed}, 0:20 left",
        f"mlp: epoch 2 of 2, step 15: loss 0.06667, accuracy 0.9000, 52,000 samples/s, {speed}, 0:10 left",
        f"mlp: epoch 2 of 2, step 20: loss 0.05, accuracy 0.9000, 52,000 samples/s, {speed}",
        f"mlp: epoch 2 of 2: loss 0.05 (validation 0.1), accuracy 0.9600, 50,000 samples/s, {speed}",
        "mlp: 38 s in all",  # since the first event
    ]


def test_fast_epochs_are_thinned_out_but_the_last_of_each_stage_is_told(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("dbn", stream) as progress:
        train(progress, 50, 0.01, time_passes, "rbm 1")
        train(progress, 33, 0.01, time_passes, "rbm 2")
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 7
    assert sum(line.startswith("dbn: rbm 1, epoch 50 of 50: ") for line in lines) == 1
    assert lines[-2].startswith("dbn: rbm 2, epoch 33 of 33: ")
    assert re.search(r"rbm 1, epoch 2\d of 50: .*, 0:03 left of rbm 1$", lines[0])


def test_a_long_first_epoch_is_never_silent_and_tells_the_time_left_where_steps_are_known(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("mlp", stream) as progress:
        progress(StageStarted("training", 1000))
        for step in range(1, 121):
            time_passes(1.0)
            progress(StepsDone("", step, {"loss": 0.5}))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 13
    assert lines[3] == "mlp: step 40 of 1,000: loss 0.5, 16:00 left"


def test_training_that_goes_on_from_a_checkpoint_takes_its_pace_from_there(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("mlp", stream) as progress:
        for step in (9_010, 9_020):
            time_passes(5.0)
            progress(StepsDone("", step, {"loss": 0.5}))
        time_passes(5.0)
        progress(EpochDone("", 2, 3, 9_030, {"train_loss": float("nan")}))
    lines = stream.getvalue().splitlines()
    assert lines[-2] == "mlp: epoch 2 of 3: loss nan, 37:38 left"  # 4,515 steps at 2 steps a second


def test_a_terminal_shows_training_below_the_bar(time_passes):
    stream = Terminal()
    with ConsoleProgress("dbn", stream) as progress:
        train(progress, 2, 1.0, time_passes, "rbm 1")
        shown = progress._bar.tasks[0]
        assert (shown.description, shown.fields["tasks"]) == ("dbn: rbm 1", "epoch 2 of 2")
        assert shown.completed == 1.0
        assert progress._bar.below.startswith("loss 0.05 (validation 0.1), accuracy 0.9600, 50,000 samples/s")
        progress(StageStarted("test", 4))
        assert progress._bar.below == ""
    assert "\x1b[2K" in stream.getvalue()[-20:]


def test_another_network_of_the_same_stage_starts_over(time_passes):
    with ConsoleProgress("curve", Terminal()) as progress:
        train(progress, 2, 1.0, time_passes)
        progress(StepsDone("", 3, {"loss": 0.5}))
        assert progress._bar.tasks[0].fields["tasks"] == "step 3"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (75, "1:15"), (4000, "1:06:40")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_what_a_worker_warns_of_is_told_at_once_in_any_run(time_passes):
    stream = io.StringIO()
    with ConsoleProgress("pca", stream) as progress:
        progress(WorkerSaid("w1", logging.INFO, "a detail"))
        progress(WorkerSaid("w1", logging.WARNING, "lost [tcp://x:1]"))
    assert stream.getvalue() == "pca: worker w1: lost [tcp://x:1]\n"


def test_a_terminal_gets_it_above_its_display(time_passes):
    stream = Terminal()
    with ConsoleProgress("pca", stream) as progress:
        passes(progress, 1, 1.0, time_passes)
        progress(WorkerSaid("w1", logging.ERROR, "lost [tcp://x:1]"))
    assert "worker w1: lost [tcp://x:1]" in stream.getvalue()
