"""What the contenders of peers.py share: a job, an answer, the trial of settings, and how they are measured.

A contender is a function of a Job that prepares, not timed, and returns the function that is timed. It runs in
a process of its own and prints lines of JSON, so that its memory and threads are its own; it imports what it
needs itself, so that no other's libraries count as its memory.
"""

import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import Memory, covariance64, largest_error, subspace_angle, watched_memory

LONG, SHORT = 20, 5  # seconds: what takes longer is run once; what takes less is tried twice


@dataclass
class Answer:
    """A covariance (D, D) or components (K, D), with what the table says beside it."""

    value: np.ndarray
    setting: str
    passes: int | None = None
    slice_of: tuple[slice, slice] | None = None  # the part of the matrix that was used, where not all


@dataclass
class Job:
    """What is to be done; with ``part`` on a tenth of the data, to try settings."""

    kind: str  # "tall" (covariance) or "wide" (PCA)
    path: Path
    memory: str  # lazypipe's budget for bounded runs
    n_components: int
    spark_rows: int
    spark_columns: int
    limit: float
    repeats: int | None
    part: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def x(self) -> np.ndarray:
        """The matrix, mapped; for a trial the first tenth of its long side."""
        x = np.load(self.path, mmap_mode="r")
        if not self.part:
            return x
        size = max(max(x.shape) // 10, min(20_000, max(x.shape)))
        return x[:size] if self.kind == "tall" else x[:, :size]

    def reference(self, name: str) -> Path:
        """ "covariance", or "gram" and "components": in float64, saved beside the matrix."""
        return self.path.with_name(f"{self.kind}-{name}.npy")

    def accuracy(self, answer: Answer) -> float:
        """Largest error in units of s_i s_j, or subspace angle, against float64; of a slice against its own."""
        if self.kind == "tall":
            wanted = self.reference("covariance")
            used = np.load(wanted) if answer.slice_of is None else covariance64(self.x[answer.slice_of])
            return largest_error(answer.value, used)
        if answer.slice_of is None:
            return subspace_angle(answer.value, np.load(self.reference("components")))
        from pca import reference

        path = self.path.with_name("slice.npy")
        np.save(path, self.x[answer.slice_of])
        return subspace_angle(answer.value, reference(path)[1])


@dataclass(frozen=True)
class Contender:
    """``part``: settings of which the fastest on a tenth is taken. ``whole``: settings from the cheapest to the
    dearest, of which the first is taken that reaches ``goal`` on the whole."""

    name: str
    kind: str
    title: str
    prepare: Callable[[Job], Callable[..., Answer]]
    part: tuple[dict[str, Any], ...] = ()
    whole: tuple[dict[str, Any], ...] = ()
    goal: float = 0.0
    ours: bool = False
    spark: bool = False  # memory is of the tree of processes


CONTENDERS: dict[str, Contender] = {}


def contender(kind: str, title: str, **options: Any) -> Callable[[Callable], Callable]:
    def register(prepare: Callable[[Job], Callable[..., Answer]]) -> Callable:
        CONTENDERS[prepare.__name__] = Contender(prepare.__name__, kind, title, prepare, **options)
        return prepare

    return register


def settings(**choices: tuple) -> tuple[dict[str, Any], ...]:
    """Every combination."""
    combinations: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        combinations = [{**before, name: value} for before in combinations for value in values]
    return tuple(combinations)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def in_time(run: Callable[[], Any], limit: float, peak: Memory | None = None) -> tuple[float, Any]:
    """Seconds and answer; past the limit the process says so, and its memory, and ends, whatever the run is at."""

    def give_up() -> None:
        tell(over=limit, **({} if peak is None else vars(peak)))
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(0)

    timer = threading.Timer(limit, give_up)
    timer.daemon = True
    timer.start()
    begun = time.perf_counter()
    try:
        answer = run()
        return time.perf_counter() - begun, answer
    finally:
        timer.cancel()


def run_in_time(run: Callable[[], Answer], limit: float, tree: bool) -> tuple[float, Memory, Answer]:
    """Seconds, memory and answer."""
    with watched_memory(tree=tree) as peak:
        took, answer = in_time(run, limit, peak)
        return took, peak, answer


def limit_memory() -> None:
    """To what is free: an allocation past it is then a MemoryError of this process alone."""
    free = int(0.95 * psutil.virtual_memory().available)
    resource.setrlimit(resource.RLIMIT_DATA, (free, resource.RLIM_INFINITY))


def measure(one: Contender, job: Job, setting: dict[str, Any]) -> None:
    """Run and print the row of the table."""
    seconds: list[float] = []
    peak = Memory()
    answer = None
    try:
        run = one.prepare(job)
        while not seconds or len(seconds) < (job.repeats or (1 if seconds[0] > LONG else 3)):
            answer = None  # the last one is not to count as memory of this one
            took, memory, answer = run_in_time(lambda: run(**setting), job.limit, one.spark)
            seconds.append(took)
            peak = Memory(max(peak.anonymous, memory.anonymous), max(peak.resident, memory.resident))
    except Exception as error:  # a refusal is a result
        return tell(failure=what_failed(error))
    assert answer is not None
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    used = answer.slice_of or (slice(None), slice(None))
    return tell(
        seconds=statistics.median(seconds), runs=seconds, anonymous=peak.anonymous, resident=peak.resident,
        setting=answer.setting, passes=answer.passes, accuracy=job.accuracy(answer),
        shape=[len(range(n)[part]) for n, part in zip(job.x.shape, used, strict=True)],
    )  # fmt: skip


def try_settings(one: Contender, job: Job) -> None:
    """Print the settings, best first, again after every try: {ranked: [...]}."""
    begun = time.perf_counter()
    ranked: list[dict[str, Any]] = [{}]
    if one.part:
        tried: list[tuple[float, dict[str, Any]]] = []
        run = one.prepare(replace(job, part=True))
        for setting in one.part:
            try:
                took = run_in_time(lambda: run(**setting), job.limit, one.spark)[0]  # noqa: B023
                if took < SHORT:  # the first try may have waited for imports and pages
                    took = min(took, run_in_time(lambda: run(**setting), job.limit, one.spark)[0])  # noqa: B023
            except Exception as error:
                print(f"{one.name} {setting}: {what_failed(error)}", file=sys.stderr)
                continue
            tried.append((took, setting))
            ranked = [setting for _, setting in sorted(tried, key=lambda pair: pair[0])]
            tell(ranked=ranked, tried=tried)
            if time.perf_counter() - begun > job.limit / 4:
                break
    if one.whole:
        run = one.prepare(job)
        reached = []
        for setting in one.whole:
            tell(whole=setting)
            try:
                answer = run_in_time(lambda: run(**ranked[0], **setting), job.limit, one.spark)[2]  # noqa: B023
            except Exception as error:
                print(f"{one.name} {setting}: {what_failed(error)}", file=sys.stderr)
                break  # dearer ones would fail too
            reached.append((job.accuracy(answer), setting))
            best = min(reached, key=lambda pair: pair[0])[1]
            tell(ranked=[{**ranked[0], **best}], reached=reached)
            if reached[-1][0] <= one.goal or time.perf_counter() - begun > job.limit:
                break


def contend(name: str, spec: Path, trial: bool, setting: dict[str, Any]) -> None:
    """What the process of a contender does."""
    one = CONTENDERS[name]
    fields = json.loads(spec.read_text())
    job = Job(**{**fields, "path": Path(fields["path"])})
    if not one.spark:  # the JVM reserves what it will not use
        limit_memory()
    with job.stack:
        if trial:
            try_settings(one, job)
        else:
            measure(one, job, setting)


def what_failed(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}"
