"""Spike-triggered averages: lazypipe, what people would use instead, and the exact sums that judge them.

A contender is a function of a Job and a setting that prepares, not timed, and returns the function that is
timed. As in contenders.py it runs in a process of its own and imports what it needs itself; the interpreter may
be another one, whose libraries do not go with lazypipe's.
"""

import contextlib
import json
import os
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
from contenders import LONG, SHORT, limit_memory, settings, tell, what_failed
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


@contender("lazypipe", "", tries=lambda job: settings(engine=("dask", "serial")), ours=True)
def lazypipe(job: Job, engine: str) -> Callable[[], Answer]:
    import lazypipe as lp

    slots = {"workers": job.workers} if engine == "dask" else {}
    running = job.stack.enter_context(lp.open_engine(engine, memory=job.memory, **slots))
    raw = {} if job.path.suffix == ".npy" else {"n_channels": job.n_channels, "dtype": job.dtype}
    recording = lp.open_recording(str(job.path), sampling_rate=job.sampling_rate, **raw)
    spikes = lp.read_spikes(str(job.spikes))

    def run() -> Answer:
        found = lp.spike_triggered_average(
            recording, spikes, window=job.window, engine=running, dtype=job.result, spread=job.spread, ddof=0
        )
        return Answer(found.mean, found.std if job.spread else None, found.plan.peak_nbytes)

    return run


@contender("NumPy, all windows of a unit at once", "stimulus", "dense")
def numpy_at_once(job: Job) -> Callable[[], Answer]:
    """What everybody writes first."""

    def run() -> Answer:
        windows = job.windows(job.starts(0)).reshape(-1, job.n_lags, job.n_channels)
        return Answer(windows.mean(axis=0)[None], windows.std(axis=0)[None] if job.spread else None)

    return run


def _batches(job: Job) -> tuple[dict[str, Any], ...]:
    most = BATCH_VALUES * 16 // (job.n_lags * job.n_channels)
    return settings(batch=tuple(n for n in (1, 8, 64, 512, 4096) if n == 1 or n <= most))


@contender("NumPy in batches of windows, by hand", "", tries=_batches)
def numpy_in_batches(job: Job, batch: int) -> Callable[[], Answer]:
    """What a careful person writes: sums that are exact of integers, on as many threads as there are cores."""

    def sums(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        signal, size = job.signal, job.n_lags
        whole = np.issubdtype(signal.dtype, np.integer)
        fits = whole and len(starts) * 2**15 < 2**31
        dtype = np.dtype(np.int32 if fits else np.int64 if whole else np.float64)
        total, squares = np.zeros((size, job.n_channels), dtype), np.zeros((size, job.n_channels))
        product = np.empty_like(squares)
        if batch == 1:
            for start in starts.tolist():
                window = signal[start : start + size]
                total += window
                if job.spread:
                    np.multiply(window, window, dtype=np.float64, out=product)
                    squares += product
            return total, squares
        for i in range(0, len(starts), batch):
            windows = job.windows(starts[i : i + batch])
            total += windows.sum(axis=0, dtype=dtype).reshape(total.shape)
            if job.spread:
                windows = windows.astype(np.float64)
                squares += np.einsum("ij,ij->j", windows, windows).reshape(squares.shape)
        return total, squares

    def moments(unit: int, pool: ThreadPoolExecutor) -> tuple[np.ndarray, np.ndarray]:
        starts = job.starts(unit)
        parts = list(pool.map(sums, np.array_split(starts, job.workers)))
        mean = np.sum([part[0] for part in parts], axis=0) / len(starts)
        squares = np.sum([part[1] for part in parts], axis=0) / len(starts)
        return mean, np.sqrt(np.maximum(squares - mean**2, 0))

    def run() -> Answer:
        shape = job.n_units, job.n_lags, job.n_channels
        mean = np.empty(shape, job.result)
        std = np.empty(shape, job.result) if job.spread else None
        with ThreadPoolExecutor(job.workers) as pool:
            for unit in range(job.n_units):
                mean[unit], deviation = moments(unit, pool)
                if std is not None:
                    std[unit] = deviation
        return Answer(mean, std)

    return run


def _spikeinterface_settings(job: Job) -> tuple[dict[str, Any], ...]:
    # Integers are squared as integers and overflow: for the SD they have to be made floats (return_in_uV).
    scaled = (True,) if job.spread else (False, True)
    return settings(pool_engine=("thread", "process"), return_in_uV=scaled, chunk_duration=("500ms", "2s", "8s"))


@contender(
    "SpikeInterface, estimate_templates", "array", "narrow", "dense", "offset",
    tries=_spikeinterface_settings, apart=True, tree=True,
)  # fmt: skip
def spikeinterface(job: Job, **setting: Any) -> Callable[[], Answer]:
    from spikeinterface.core import read_binary
    from spikeinterface.core.base import minimum_spike_dtype
    from spikeinterface.core.waveform_tools import estimate_templates_with_accumulator

    recording = read_binary(
        job.path, sampling_frequency=job.sampling_rate, dtype=job.dtype, num_channels=job.n_channels,
        gain_to_uV=1.0, offset_to_uV=0.0,
    )  # fmt: skip
    samples, units = job.events
    spikes = np.zeros(len(samples), minimum_spike_dtype)
    spikes["sample_index"], spikes["unit_index"] = samples, units

    def run() -> Answer:
        found = estimate_templates_with_accumulator(
            recording, spikes, np.arange(job.n_units), -job.window[0], job.window[1], return_std=job.spread,
            n_jobs=job.workers, progress_bar=False, **setting,
        )  # fmt: skip
        return Answer(*found) if job.spread else Answer(found)

    return run


@contender("pynapple, compute_event_triggered_average", "stimulus", apart=True)
def pynapple_average(job: Job) -> Callable[[], Answer]:
    """The mean: it has no SD."""
    import pynapple

    step = 1 / job.sampling_rate
    signal, events = _pynapple(job)
    window = (-job.window[0] * step, (job.window[1] - 1) * step)

    def run() -> Answer:
        found = pynapple.compute_event_triggered_average(signal, events, binsize=step, window=window)
        return Answer(np.asarray(found.values)[None])

    return run


@contender("pynapple, compute_perievent and NumPy", "stimulus", apart=True)
def pynapple_perievent(job: Job) -> Callable[[], Answer]:
    """All windows, of which mean and SD are taken."""
    import pynapple

    step = 1 / job.sampling_rate
    signal, events = _pynapple(job)
    window = (-job.window[0] * step, (job.window[1] - 1) * step)

    def run() -> Answer:
        found = pynapple.compute_perievent(signal, events, window=window).values
        return Answer(found.mean(axis=1)[None, :, None], found.std(axis=1)[None, :, None])

    return run


def _pynapple(job: Job) -> tuple[Any, Any]:
    import pynapple

    times = np.arange(len(job.signal)) / job.sampling_rate
    signal = pynapple.Tsd(t=times, d=np.array(job.signal[:, 0]))
    return signal, pynapple.Ts(t=times[job.events[0]])


@contender("elephant, spike_triggered_average", "stimulus", apart=True)
def elephant(job: Job) -> Callable[[], Answer]:
    """The mean: it has no SD."""
    import neo
    import quantities as pq
    from elephant.sta import spike_triggered_average

    step = pq.s / job.sampling_rate
    signal = neo.AnalogSignal(np.array(job.signal), units="V", sampling_rate=job.sampling_rate * pq.Hz)
    # It takes the floor: a time in the middle of its sample keeps rounding from moving it to the one before.
    spikes = neo.SpikeTrain((job.events[0] + 0.5) * step, t_stop=signal.t_stop)
    window = (job.window[0] * step, job.window[1] * step)
    return lambda: Answer(spike_triggered_average(signal, spikes, window).magnitude[None])


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


def in_time(run: Callable[[], Answer], limit: float) -> tuple[float, Answer]:
    """Seconds and answer; past the limit the process says so and ends."""

    def give_up() -> None:
        tell(over=limit)
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
