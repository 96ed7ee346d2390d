"""Progress of a run on stderr: a live display on a terminal, a plain line a pass elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from lazypipe.progress import Event, PassDone, StageDone, StageStarted, TaskDone

QUIET_SECONDS = 2.0  # shorter runs say nothing
LINE_SECONDS = 2.0  # plain lines come no faster than this
TASK_LINE_SECONDS = 10.0  # nor lines within a pass than this


class ConsoleProgress:
    """Shows the events it is called with. Use it as a context manager; it leaves a terminal clean.

    The time left is that of the work of this stage that is not done: by the share of it that tasks tell, else by
    their number. In a stage called ``pass i``, that of the passes expected after it (``expected_passes``, from the
    plan) comes on top, at the same pace.
    """

    def __init__(self, title: str, stream: TextIO | None = None):
        self.title = title
        self.expected_passes: int | None = None
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._begun: float | None = None  # at the first event: what starts an engine or a store is no work
        self._stage = StageStarted("", 1)
        self._stage_begun = self._last_line = 0.0
        self._residual = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._wrote = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._wrote:
            self._write(f"{self._seconds():.0f} s in all")

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = self._last_line = now
        if isinstance(event, StageStarted):
            self._stage, self._stage_begun = event, now
            self._update(now, 0)
        elif isinstance(event, TaskDone):
            self._update(now, event.n_done, event.share)
        elif isinstance(event, StageDone):
            self._line(now, f"{event.title} done in {clock(event.seconds)}", TASK_LINE_SECONDS)
        elif isinstance(event, PassDone):
            self._residual = f"residual {event.residual:.1e}"
            left = self._left(now, 1.0)
            self._line(now, f"pass {event.index}: {self._residual}{left}", LINE_SECONDS)

    def _update(self, now: float, n_done: int, share: float | None = None) -> None:
        n_tasks = self._stage.n_tasks
        done = n_done / max(1, n_tasks) if share is None else share
        left = self._left(now, done)
        if not self.live:
            if 0 < n_done < n_tasks:
                tasks = f"{n_done:,} of {n_tasks:,} tasks"
                self._line(now, f"{self._title()}, {tasks}{_of_work(n_done, n_tasks, share)}{left}", TASK_LINE_SECONDS)
            return
        if self._bar is None and self._seconds() >= QUIET_SECONDS:
            self._open()
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=f"{self.title}: {self._title()}",
                completed=done,
                tasks=f"{n_done:,}/{n_tasks:,} tasks",
                residual=self._residual,
                left=left.removeprefix(", "),
            )

    def _passes_after(self) -> int | None:
        """Passes expected after this stage; None where that is not known."""
        word, _, index = self._stage.title.partition(" ")
        if word != "pass" or not index.isdigit() or self.expected_passes is None:
            return None
        return max(0, self.expected_passes - int(index))

    def _title(self) -> str:
        of = "" if self._passes_after() is None else f" of about {self.expected_passes}"
        return f"{self._stage.title}{of}"

    def _left(self, now: float, done: float) -> str:
        """``, 1:20 left`` once that share of the stage is done, or nothing while there is no pace to tell it from."""
        after = self._passes_after() or 0
        if done == 0 or (done == 1 and after == 0):
            return ""
        about = "about " if after else ""
        return f", {about}{clock((now - self._stage_begun) / done * (1 - done + after))} left"

    def _seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def _open(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[tasks]}"),
            TextColumn("{task.fields[residual]}"),
            TextColumn("{task.fields[left]}"),
            console=Console(file=self.stream),
            transient=True,
        )
        self._task = self._bar.add_task(f"{self.title}: {self._title()}", total=1.0, tasks="", residual="", left="")
        self._bar.start()

    def _line(self, now: float, text: str, seconds: float) -> None:
        """A plain line, unless a terminal shows it live, the run is young, or the last line is."""
        if not self.live and self._seconds() >= QUIET_SECONDS and now - self._last_line >= seconds:
            self._write(text)
            self._last_line = now

    def _write(self, text: str) -> None:
        self.stream.write(f"{self.title}: {text}\n")
        self.stream.flush()
        self._wrote = True


def _of_work(n_done: int, n_tasks: int, share: float | None) -> str:
    """The share of the work where the count of the tasks tells another one."""
    return "" if share is None or abs(share - n_done / n_tasks) < 0.01 else f" ({share:.0%} of the work)"


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``4000`` as ``1:06:40``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
