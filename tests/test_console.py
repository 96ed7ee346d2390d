"""Progress: nothing for short runs, plain lines elsewhere than on a terminal, a live display on one."""

import io
import re

import pytest

from lazypipe import console
from lazypipe.console import ConsoleProgress, clock
from lazypipe.progress import PassDone, StageDone, StageStarted, TaskDone


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def time_passes(monkeypatch):
    """Move the clock of the console by hand."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])

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


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (75, "1:15"), (4000, "1:06:40")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown
