"""Progress of a run on stderr: a live display on a terminal, a plain line a pass elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from lazypipe.progress import EpochDone, Event, PassDone, StageDone, StageStarted, StepsDone, TaskDone, WorkerSaid
from lazypipe.sizes import show_bytes

QUIET_SECONDS = 2.0  # shorter runs say nothing
LINE_SECONDS = 2.0  # plain lines come no faster than this
TASK_LINE_SECONDS = 10.0  # nor lines within a pass or an epoch than this
SPEEDS = ("samples_per_second", "waiting", "device_memory")
NOT_SHOWN = ("learning_rate",)


class ConsoleProgress:
    """Shows the events it is called with. Use it as a context manager; it leaves a terminal clean.

    The time left is that of the work of this stage that is not done: by the share of it that tasks tell, else by
    their number. In a stage called ``pass i``, that of the passes expected after it (``expected_passes``, from the
    plan) comes on top, at the same pace. Of a network in training it is that of the epochs of its stage, once the
    first one, or a ``StageStarted`` of the stage (else of "training"), has told how many steps they are.
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
        self._training = Training("")
        self._unsaid = ""  # the last epoch, where no line was due
        self._bar: _Display | None = None
        self._task = TaskID(0)
        self._wrote = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._say_last_epoch()
            if self._wrote:
                self._write(f"{self._seconds():.0f} s in all")

    def __call__(self, event: Event) -> None:
        if isinstance(event, WorkerSaid):
            self._pass_on(event)
            return
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
        elif isinstance(event, StepsDone | EpochDone):
            self._learn(now, event)

    def _pass_on(self, event: WorkerSaid) -> None:
        """What a worker warns of, at once: above the display of a terminal."""
        if event.level < logging.WARNING:
            return
        line = f"worker {event.worker}: {event.text}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            self.stream.write(f"{self.title}: {line}\n")
            self.stream.flush()

    def _learn(self, now: float, event: StepsDone | EpochDone) -> None:
        if event.stage != self._training.stage or event.step < self._training.step:  # or another network
            self._say_last_epoch()
            self._training = Training(event.stage)
        training = self._training
        training.add(now, event, self._stage.n_tasks if self._stage.title == (event.stage or "training") else 0)
        left = training.left(now)
        if self.live:
            if self._open_if_due() and self._bar is not None:
                self._bar.below = training.told(True)
                self._bar.update(
                    self._task,
                    description=f"{self.title}: {event.stage or 'training'}",
                    completed=training.share,
                    tasks=training.place(),
                    residual="",
                    left=left,
                )
            return
        stage = f"{event.stage}, " if event.stage else ""
        text = f"{stage}{training.place()}: {training.told(False)}{left and f', {left}'}"
        ended = isinstance(event, EpochDone)
        said = self._line(now, text, LINE_SECONDS if ended else TASK_LINE_SECONDS)
        if ended or said:
            self._unsaid = "" if said else text

    def _say_last_epoch(self) -> None:
        """How a stage ended, which is what one looks for, also where its last epochs were fast."""
        if self._unsaid and self._seconds() >= QUIET_SECONDS:
            self._write(self._unsaid)
            self._last_line = time.monotonic()
        self._unsaid = ""

    def _update(self, now: float, n_done: int, share: float | None = None) -> None:
        n_tasks = self._stage.n_tasks
        done = n_done / max(1, n_tasks) if share is None else share
        left = self._left(now, done)
        if not self.live:
            if 0 < n_done < n_tasks:
                tasks = f"{n_done:,} of {n_tasks:,} tasks"
                self._line(now, f"{self._title()}, {tasks}{_of_work(n_done, n_tasks, share)}{left}", TASK_LINE_SECONDS)
            return
        if self._open_if_due() and self._bar is not None:
            self._bar.below = ""
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

    def _open_if_due(self) -> bool:
        if self._bar is None and self._seconds() >= QUIET_SECONDS:
            self._open()
        return self._bar is not None

    def _open(self) -> None:
        self._bar = _Display(
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

    def _line(self, now: float, text: str, seconds: float) -> bool:
        """A plain line, unless a terminal shows it live, the run is young, or the last line is; whether it came."""
        due = not self.live and self._seconds() >= QUIET_SECONDS and now - self._last_line >= seconds
        if due:
            self._write(text)
            self._last_line = now
        return due

    def _write(self, text: str) -> None:
        self.stream.write(f"{self.title}: {text}\n")
        self.stream.flush()
        self._wrote = True


class _Display(Progress):
    """Bars, and a text below them that may take several lines: a table's columns would be cut on a narrow terminal."""

    below = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.below:
            yield Padding(self.below, (0, 0, 0, 2))


@dataclass
class Training:
    """How far one stage of training is, and what was measured last."""

    stage: str
    step: int = 0
    epoch: int = 0  # that are over
    n_epochs: int = 0  # 0 until it is known
    n_steps: float = 0.0  # of the whole stage, likewise
    measures: Mapping[str, float] = field(default_factory=dict)
    judged: Mapping[str, float] = field(default_factory=dict)  # on validation rows, after the last epoch
    speeds: Mapping[str, float] = field(default_factory=dict)
    first: tuple[float, int] | None = None  # when the pace was first taken, and at which step
    ended: bool = False  # the last event was the end of an epoch

    def add(self, now: float, event: StepsDone | EpochDone, n_steps: int) -> None:
        """``n_steps`` are those of the whole stage, as far as is known before its first epoch ends; else 0."""
        if isinstance(event, EpochDone):
            self.epoch, self.n_epochs = event.epoch, event.n_epochs
            self.n_steps = event.n_epochs * event.step / max(1, event.epoch)
            self.judged = _of_kind("validation_", event.measures)
            self.measures = _of_kind("train_", event.measures)
        else:
            self.measures = {name: v for name, v in event.measures.items() if name not in NOT_SHOWN + SPEEDS}
            self.n_steps = self.n_steps or n_steps
        self.speeds = {**self.speeds, **{name: v for name, v in event.measures.items() if name in SPEEDS}}
        self.step, self.ended = event.step, isinstance(event, EpochDone)
        # a training that goes on from a checkpoint begins at its step: the pace is that since the first event
        self.first = self.first or (now, event.step)

    @property
    def share(self) -> float:
        return min(1.0, self.step / self.n_steps) if self.n_steps else 0.0

    def place(self) -> str:
        """Which epoch, or step while no epoch has ended."""
        if self.ended:
            return f"epoch {self.epoch:,} of {self.n_epochs:,}"
        if self.n_epochs:
            return f"epoch {min(self.epoch + 1, self.n_epochs):,} of {self.n_epochs:,}, step {self.step:,}"
        return f"step {self.step:,}" + (f" of {self.n_steps:,.0f}" if self.n_steps else "")

    def told(self, live: bool) -> str:
        """Measures, those on validation rows in brackets, and speeds; a live display keeps those of the last epoch."""
        judged = dict(self.judged) if self.ended or live else {}
        said = []
        for name, value in self.measures.items():
            bracket = f" (validation {_number(name, judged.pop(name))})" if name in judged else ""
            said.append(f"{name.replace('_', ' ')} {_number(name, value)}{bracket}")
        said += [f"validation {name.replace('_', ' ')} {_number(name, value)}" for name, value in judged.items()]
        speeds = self.speeds
        if "samples_per_second" in speeds:
            said.append(f"{speeds['samples_per_second']:,.0f} samples/s")
        if "waiting" in speeds:
            said.append(f"{speeds['waiting']:.0%} waiting for data")
        if speeds.get("device_memory"):
            said.append(f"{show_bytes(speeds['device_memory'])} on the device")
        return ", ".join(said)

    def left(self, now: float) -> str:
        """``1:20 left`` once there is a pace to tell it from; training that stops early takes less."""
        if self.first is None or self.step <= self.first[1] or self.step >= self.n_steps:
            return ""
        begun, step = self.first
        seconds = (now - begun) / (self.step - step) * (self.n_steps - self.step)
        return f"{clock(seconds)} left" + (f" of {self.stage}" if self.stage else "")


def _of_kind(prefix: str, measures: Mapping[str, float]) -> dict[str, float]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in measures.items() if name.startswith(prefix)}


def _number(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "accuracy" else f"{value:.4g}"


def _of_work(n_done: int, n_tasks: int, share: float | None) -> str:
    """The share of the work where the count of the tasks tells another one."""
    return "" if share is None or abs(share - n_done / n_tasks) < 0.01 else f" ({share:.0%} of the work)"


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``4000`` as ``1:06:40``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
