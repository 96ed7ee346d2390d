"""Spike-triggered averages: lazypipe, and what people would use instead."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from averages import BATCH_VALUES, Answer, Job, contender
from contenders import settings


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
