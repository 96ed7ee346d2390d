"""What the contenders of spikes.py share: a job, an answer, exact sums to judge it by, and how they are measured.

A contender is a function of a Job and a setting that prepares, not timed, and returns the function that is
timed. As in contenders.py it runs in a process of its own and imports what it needs itself; the interpreter may
be another one, whose libraries do not go with lazypipe's.
"""

import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import Memory
from contenders import LONG, SHORT, in_time, limit_memory, tell, what_failed
from numpy.lib.stride_tricks import sliding_window_view

WARM_SECONDS = 0.2  # what is shorter is run more often, and for that long before it counts
BATCH_VALUES = 2**20  # of windows whose exact sums are taken at once


@dataclass
class Answer:
    """Arrays (units, lags, channels), of samples as they are stored; the SD divides by n."""

    mean: np.ndarray
    std: np.ndarray | None = None
    planned: int | None = None  # bytes of the whole process, where the contender foretells them


@dataclass
class Job:
    """What is to be averaged: a file of samples, row-major, raw or .npy, and an .npz of ``samples`` and ``units``."""

    case: str
    path: Path
    spikes: Path
    n_channels: int
    dtype: str
    sampling_rate: float
    window: tuple[int, int]  # samples, half open
    spread: bool  # the SD too
    result: str  # the dtype wanted of lazypipe
    memory: str  # lazypipe's budget
    workers: int
    limit: float
    repeats: int | None
    part: tuple[Path, Path]  # recording and spikes to warm up and to try settings with
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def parted(self) -> "Job":
        return replace(self, path=self.part[0], spikes=self.part[1], stack=ExitStack())

    @cached_property
    def signal(self) -> np.ndarray:
        """(n_samples, n_channels), mapped."""
        if self.path.suffix == ".npy":
            return np.load(self.path, mmap_mode="r").reshape(-1, self.n_channels)
        return np.memmap(self.path, self.dtype, "r").reshape(-1, self.n_channels)

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples in order and the unit of each, of those whose window lies in the recording."""
        with np.load(self.spikes) as saved:
            samples = saved["samples"].astype(np.int64)
            units = saved["units"].astype(np.int64) if "units" in saved else np.zeros(len(samples), np.int64)
        whole = (samples + self.window[0] >= 0) & (samples + self.window[1] <= len(self.signal))
        return samples[whole], units[whole]

    @property
    def n_units(self) -> int:
        return int(self.events[1].max()) + 1

    @property
    def n_lags(self) -> int:
        return self.window[1] - self.window[0]

    def starts(self, unit: int) -> np.ndarray:
        """Where the windows of a unit begin."""
        samples, units = self.events
        return samples[units == unit] + self.window[0]

    def windows(self, starts: np.ndarray) -> np.ndarray:
        """(n, lags * channels), gathered."""
        flat = self.signal.reshape(-1)
        return sliding_window_view(flat, self.n_lags * self.n_channels)[:: self.n_channels][starts]


@dataclass(frozen=True)
class Contender:
    """``tries``: settings of which the fastest on the part is taken."""

    name: str
    title: str
    cases: tuple[str, ...]  # what their names begin with
    prepare: Callable[..., Callable[[], Answer]]
    tries: Callable[[Job], tuple[dict[str, Any], ...]]
    ours: bool = False
    apart: bool = False  # in the interpreter that holds the peers
    tree: bool = False  # it starts processes

    def answers(self, case: str) -> bool:
        return case.startswith(self.cases)


CONTENDERS: dict[str, Contender] = {}


def contender(
    title: str, *cases: str, tries: Callable[[Job], tuple[dict[str, Any], ...]] = lambda job: ({},), **options: Any
) -> Callable[[Callable], Callable]:
    def register(prepare: Callable[..., Callable[[], Answer]]) -> Callable:
        CONTENDERS[prepare.__name__] = Contender(prepare.__name__, title, cases, prepare, tries, **options)
        return prepare

    return register


def exact(job: Job, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD (lags, channels) of a unit from int64 sums, divided as integers of any length are."""
    scale = 1 if np.issubdtype(job.signal.dtype, np.integer) else 2**10  # H1's stimulus comes in steps of 2**-10
    starts = job.starts(unit)
    batch = max(1, BATCH_VALUES // (job.n_lags * job.n_channels))

    def sums(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = squares = np.zeros(job.n_lags * job.n_channels, np.int64)
        for i in range(0, len(starts), batch):
            windows = job.windows(starts[i : i + batch])
            whole = (windows * scale).astype(np.int64) if scale > 1 else windows.astype(np.int64)
            if scale > 1 and not (whole == windows * scale).all():
                raise ValueError(f"{job.path}: samples are not whole multiples of 1/{scale}.")
            total = total + whole.sum(axis=0)
            squares = squares + np.einsum("ij,ij->j", whole, whole)
        return total, squares

    with ThreadPoolExecutor(job.workers) as pool:
        parts = list(pool.map(sums, np.array_split(starts, job.workers)))
    n = len(starts)
    total = np.sum([part[0] for part in parts], axis=0).astype(object)
    squares = np.sum([part[1] for part in parts], axis=0).astype(object)
    shape = job.n_lags, job.n_channels
    mean = (total / (n * scale)).astype(np.float64)
    variance = ((n * squares - total * total) / (n * scale) ** 2).astype(np.float64)
    return mean.reshape(shape), np.sqrt(variance).reshape(shape)


def save_exact(job: Job, path: Path) -> None:
    """Of the first, the middle and the last unit."""
    units = sorted({0, job.n_units // 2, job.n_units - 1})
    found = [exact(job, unit) for unit in units]
    np.savez(path, units=units, mean=[mean for mean, _ in found], std=[std for _, std in found], start=job.window[0])


def errors(job: Job, answer: Answer, path: Path) -> dict[str, Any]:
    """The largest of mean and SD against the exact ones, and the least and the largest SD."""
    with np.load(path) as saved:
        units, start = saved["units"], job.window[0] - int(saved["start"])
        wanted = {key: saved[key][:, start : start + job.n_lags] for key in ("mean", "std")}
    told = {"mean_error": float(np.abs(answer.mean[units] - wanted["mean"]).max())}
    if answer.std is not None:
        std = answer.std[units]
        told |= {"std_error": float(np.abs(std - wanted["std"]).max()), "stds": [float(std.min()), float(std.max())]}
        told["stds_wanted"] = [float(wanted["std"].min()), float(wanted["std"].max())]
    return told


@contextlib.contextmanager
def watched(tree: bool) -> Iterator[Memory]:
    """Peak memory. Shared memory counts as allocated; what processes share is counted once (PSS)."""
    peak, over, this = Memory(), threading.Event(), psutil.Process()

    def fields(path: str) -> dict[str, int]:
        with open(path) as file:
            lines = [line.split() for line in file]
        return {line[0][:-1]: int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}

    def watch() -> None:
        while not over.wait(0.1 if tree else 0.01):
            anonymous = resident = 0
            if tree:
                for pid in (this.pid, *(child.pid for child in this.children(recursive=True))):
                    with contextlib.suppress(OSError):
                        found = fields(f"/proc/{pid}/smaps_rollup")
                        anonymous += found["Pss_Anon"] + found["Pss_Shmem"]
                        resident += found["Pss"]
            else:
                found = fields("/proc/self/status")
                anonymous, resident = found["RssAnon"] + found["RssShmem"], found["VmRSS"]
            peak.anonymous, peak.resident = max(peak.anonymous, anonymous), max(peak.resident, resident)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def warm_up(one: Contender, job: Job, setting: dict[str, Any]) -> None:
    """On the part: imports, compilers and pools have then done what they do once."""
    part = job.parted
    with part.stack:
        run = one.prepare(part, **setting)
        begun = time.perf_counter()
        while True:
            in_time(run, job.limit)
            if time.perf_counter() - begun > WARM_SECONDS:
                return


def measure(one: Contender, job: Job, setting: dict[str, Any], wanted: Path) -> None:
    """Print the row of the table."""
    seconds: list[float] = []
    try:
        warm_up(one, job, setting)
        run = one.prepare(job, **setting)
        with watched(one.tree) as peak:
            answer = None
            while not seconds or len(seconds) < (job.repeats or repeats_for(seconds[0])):
                answer = None  # the last one is not to count as memory of this one
                took, answer = in_time(run, job.limit)
                seconds.append(took)
    except Exception as error:  # a refusal is a result
        return tell(failure=what_failed(error))
    assert answer is not None
    judged = errors(job, answer, wanted) if wanted.exists() else {}
    return tell(
        seconds=statistics.median(seconds), runs=seconds, anonymous=peak.anonymous, resident=peak.resident,
        planned=answer.planned, spread=answer.std is not None, **judged,
    )  # fmt: skip


def repeats_for(seconds: float) -> int:
    return 1 if seconds > LONG else 3 if seconds > WARM_SECONDS else 15


def try_settings(one: Contender, job: Job) -> None:
    """Print them, best first, again after every try."""
    begun, tried = time.perf_counter(), []
    for setting in one.tries(job):
        part = job.parted
        try:
            with part.stack:
                run = one.prepare(part, **setting)
                took = [in_time(run, job.limit)[0]]
                while took[0] < SHORT and len(took) < 2:  # the first may have waited for imports
                    took.append(in_time(run, job.limit)[0])
        except Exception as error:
            print(f"{one.name} {setting}: {what_failed(error)}", file=sys.stderr)
            continue
        tried.append((min(took), setting))
        tell(ranked=[setting for _, setting in sorted(tried, key=lambda pair: pair[0])], tried=tried)
        if time.perf_counter() - begun > job.limit / 4:
            break


def contend(name: str, spec: Path, trial: bool, setting: dict[str, Any]) -> None:
    """What the process of a contender does."""
    one, job = CONTENDERS[name], read_job(spec)
    limit_memory()
    with job.stack:
        if trial:
            try_settings(one, job)
        else:
            measure(one, job, setting, spec.with_name("exact.npz"))


def read_job(spec: Path) -> Job:
    told = json.loads(spec.read_text())
    paths = {"path": Path(told["path"]), "spikes": Path(told["spikes"]), "part": tuple(map(Path, told["part"]))}
    return Job(**{**told, **paths, "window": tuple(told["window"])})
