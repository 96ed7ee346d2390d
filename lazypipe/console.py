"""Progress of a run on stderr: a live display on a terminal, a plain line a pass elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from lazypipe.progress import Event, PassDone, StageDone, StageStarted, TaskDone

QUIET_SECONDS = 2.0  # shorter runs say nothing
LINE_SECONDS = 2.0  # plain lines come no faster than this


class ConsoleProgress:
    """Shows the events it is called with. Use it as a context manager; it leaves the terminal clean.

    Passes are counted from the ``StageStarted`` events; the time left is that of the tasks of this
    pass that are not done, at the pace of the pass so far, and of the passes that are expected after
    it, at the pace of those before.
    """

    def __init__(self, title: str, stream: TextIO | None = None):
        self.title = title
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._begun = self._stage_begun = self._last_line = time.monotonic()
        self._stage = ""
        self._passes_left: int | None = None
        self._index = 0
        self._residual: float | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._wrote = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._wrote:
            print(f"{self.title}: {time.monotonic() - self._begun:.0f} s in all", file=self.stream, flush=True)

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, StageStarted):
            self._stage, self._stage_begun = event.title, now
            self._passes_left = event.passes_left
            self._index += 1
            self._show(now, 0, event.n_tasks)
        elif isinstance(event, TaskDone):
            self._show(now, event.n_done, event.n_tasks)
        elif isinstance(event, StageDone):
            self._line(now, f"{event.title}: {event.seconds:.1f} s", LINE_SECONDS)
        elif isinstance(event, PassDone):
            self._residual = event.residual
            self._line(now, f"pass {event.index}: residual {event.residual:.1e}", LINE_SECONDS)

    def _show(self, now: float, n_done: int, n_tasks: int) -> None:
        left = self._seconds_left(now, n_done, n_tasks)
        if not self.live:
            said = f"{self._stage}: {n_done:,} of {n_tasks:,} tasks{left}"
            if 0 < n_done < n_tasks:
                self._line(now, said, 5 * LINE_SECONDS)
            return
        if self._bar is None:
            if now - self._begun < QUIET_SECONDS:
                return
            self._open()
        assert self._bar is not None
        residual = "" if self._residual is None else f"residual {self._residual:.1e}"
        self._bar.update(
            self._task,
            description=f"{self.title}: stage {self._index}, {self._stage}",
            completed=n_done,
            total=n_tasks,
            residual=residual,
            left=left.removeprefix(", "),
        )

    def _seconds_left(self, now: float, n_done: int, n_tasks: int) -> str:
        if n_done == 0:
            return ""
        pace = (now - self._stage_begun) / n_done
        seconds = pace * (n_tasks - n_done + n_tasks * (self._passes_left or 0))
        return f", {'about ' if self._passes_left else ''}{clock(seconds)} left"

    def _open(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} tasks"),
            TextColumn("{task.fields[residual]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(file=self.stream),
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=1, residual="", left="")
        self._bar.start()

    def _line(self, now: float, text: str, seconds: float) -> None:
        """One plain line, unless the run is young, the last line is, or the terminal shows it live."""
        if self.live or now - self._begun < QUIET_SECONDS or now - self._last_line < seconds:
            return
        print(f"{self.title}: {text}", file=self.stream, flush=True)
        self._last_line, self._wrote = now, True


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``4000`` as ``1:06:40``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
