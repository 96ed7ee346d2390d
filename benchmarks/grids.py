"""What the contenders of sweep.py share: a job, the fits of its cells, and how they are measured.

A contender is a function of a Job that prepares, not timed, and returns what is timed. As in contenders.py it runs
in a process of its own and imports what it needs itself.
"""

import json
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import watched_memory
from contenders import LONG, in_time, tell, what_failed

SMALL = 1_000  # rows up to which sizes are small

Cell = tuple[int, float]  # size, C


@dataclass
class Fit:
    """A cell. ``coef`` (classes, D) and ``intercept`` (classes,) are of entries divided by 255."""

    size: int
    C: float
    seconds: float | None = None  # of the fit, scores not included
    iterations: int | None = None
    converged: bool | None = None
    objective: float | None = None  # as the contender says it
    validation_accuracy: float | None = None
    coef: np.ndarray | None = field(default=None, repr=False)
    intercept: np.ndarray | None = field(default=None, repr=False)

    def told(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("coef", "intercept")}


@dataclass
class Job:
    """What is to be fitted: letters in ``folder``, parts of the grid by name, on so many threads."""

    folder: Path
    parts: dict[str, tuple[int, ...]]  # sizes: "small", "whole", and single ones by their number
    strengths: tuple[float, ...]
    threads: int
    memory: str  # lazypipe's budget
    trial: tuple[int, ...]  # sizes to try settings with
    curves: tuple[int, ...]  # sizes of the learning curves
    limit: float  # seconds for a part
    repeats: int | None
    stack: ExitStack = field(default_factory=ExitStack)

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.npy")

    @cached_property
    def labels(self) -> np.ndarray:
        return np.load(self.path("labels")).astype(np.int64)

    @cached_property
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries / 255, float32, and labels."""
        rows = np.load(self.path("validation_rows")).astype(np.float32) / np.float32(255)
        return rows, np.load(self.path("validation_labels")).astype(np.int64)

    def scaled(self, mapped: bool = False) -> np.ndarray:
        """The rows / 255, float32, from the file that they were written to once."""
        largest = max(size for sizes in self.parts.values() for size in sizes)
        rows = np.load(self.path("scaled"), mmap_mode="r")[:largest]
        return rows if mapped else np.array(rows)

    @property
    def scratch(self) -> Path:
        """A folder that is removed after the stage."""
        return self.folder / "scratch"

    def planes(self, label: str) -> Path:
        return self.folder / "planes" / f"{label}.npz"


def pairs_of(job: Job) -> list[tuple[str, str]]:
    """The files of training and validation rows and labels, as ``lp.regularization_sweep`` takes them."""
    return [(job.path("rows"), job.path("labels")), (job.path("validation_rows"), job.path("validation_labels"))]


@dataclass
class Ready:
    """``run`` is timed; the others are asked afterwards. ``refit``: the same fits, where ``run`` keeps no planes."""

    run: Callable[[tuple[int, ...]], list[Fit]]
    setting: str = ""
    planned: Callable[[], int | None] = lambda: None
    refit: Callable[[tuple[int, ...]], list[Fit]] | None = None


@dataclass(frozen=True)
class Contender:
    """``parts``: which of "small", "whole" and "single" it does."""

    name: str
    title: str
    prepare: Callable[[Job], Ready]
    parts: tuple[str, ...]
    ours: bool = False
    tree: bool = False  # it starts processes

    def does(self, part: str) -> bool:
        return (part if part in ("small", "whole") else "single") in self.parts


CONTENDERS: dict[str, Contender] = {}


def contender(title: str, *parts: str, **options: Any) -> Callable[[Callable], Callable]:
    def register(prepare: Callable[[Job], Ready]) -> Callable:
        CONTENDERS[prepare.__name__] = Contender(prepare.__name__, title, prepare, parts, **options)
        return prepare

    return register


def cpu_seconds() -> float:
    """That this process and all that it started have used."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def contend(name: str, spec: Path, threads: int) -> None:
    """What the process of a contender does: a line of JSON for each part, and the planes of its cells in a file."""
    one, job = CONTENDERS[name], read_job(spec, threads)
    with job.stack:
        try:
            ready = one.prepare(job)
        except Exception as error:
            return tell(failure=what_failed(error))
        kept: dict[str, np.ndarray] = {}
        for part, sizes in job.parts.items():
            if not one.does(part):
                continue
            try:
                fits = measure(one, job, ready, part, sizes)
                if part == "whole" and ready.refit is not None:
                    fits = same(fits, ready.refit(sizes))
            except Exception as error:
                return tell(part=part, failure=what_failed(error))
            kept |= as_arrays(fits)
            save(job.planes(f"{name}-{threads}"), kept)
    return tell(done=True)


def measure(one: Contender, job: Job, ready: Ready, part: str, sizes: tuple[int, ...]) -> list[Fit]:
    """Print the row of a part; its fits."""
    runs: list[tuple[float, float]] = []
    fits: list[Fit] = []
    with watched_memory(0.25 if one.tree else 0.01, one.tree) as peak:
        while not runs or len(runs) < (job.repeats or (1 if runs[0][0] > LONG else 3)):
            fits = []
            before = cpu_seconds()
            took, fits = in_time(lambda: ready.run(sizes), job.limit)
            runs.append((took, cpu_seconds() - before))
    tell(
        part=part, sizes=sizes, seconds=statistics.median(run[0] for run in runs),
        cpu=statistics.median(run[1] for run in runs), runs=runs, anonymous=peak.anonymous, resident=peak.resident,
        planned=ready.planned(), setting=ready.setting, cells=[fit.told() for fit in fits],
    )  # fmt: skip
    return fits


def same(timed: list[Fit], again: list[Fit]) -> list[Fit]:
    """The second fits, told whether their objectives are those of the timed ones, bit for bit."""
    wanted = {(fit.size, fit.C): fit.objective for fit in timed}
    tell(refit_equal=all(wanted[fit.size, fit.C] == fit.objective for fit in again))
    return again


def as_arrays(fits: list[Fit]) -> dict[str, np.ndarray]:
    """Coefficients and intercepts side by side (classes, D + 1), of the cells that have them."""
    return {f"{fit.size} {fit.C!r}": np.column_stack([fit.coef, fit.intercept]) for fit in fits if fit.coef is not None}


def read_planes(path: Path) -> dict[Cell, np.ndarray]:
    """What ``as_arrays`` made, by cell; nothing where there is no file."""
    if not path.exists():
        return {}
    with np.load(path) as saved:
        return {(int(key.split()[0]), float(key.split()[1])): saved[key] for key in saved.files}


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if arrays:
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.replace(path)


def read_job(spec: Path, threads: int) -> Job:
    told = json.loads(spec.read_text())
    parts = {part: tuple(sizes) for part, sizes in told.pop("parts").items()}
    lists = {name: tuple(told.pop(name)) for name in ("strengths", "trial", "curves")}
    return Job(**{**told, **lists, "parts": parts, "folder": Path(told["folder"]), "threads": threads})
