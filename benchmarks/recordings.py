"""Recordings to measure with, of any length, written about as fast as the disk takes them.

Noise, an 8 Hz field that all channels share, and the waveforms of units near their channels. The noise of one
second is drawn once and begins elsewhere in every second: averages are compared with exact sums over the same
file, so it matters to nobody that it repeats.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

BEFORE, AFTER = 20, 40  # samples of a unit's waveform around its spike
REACH = 3.0  # channels: the standard deviation of a waveform's spread over the probe
MARGIN = 1_000  # samples at both ends without spikes, so that every window is whole for everyone
BLOCK_NBYTES = 2**24
STEP = 2**-10  # floats are whole multiples of it, so that sums of them can be taken exactly


@dataclass(frozen=True)
class Recording:
    """What a recording holds; amplitudes are in the units of its samples."""

    n_samples: int
    n_channels: int = 384
    dtype: str = "int16"
    sampling_rate: int = 30_000
    n_units: int = 50
    rates: tuple[float, float] = (10.0, 50.0)  # Hz, of the slowest and of the fastest unit
    offset: float = 0.0
    spread: float = 20.0  # standard deviation of the noise
    field: float = 60.0
    peak: float = 150.0  # of a unit's waveform
    seed: int = 0

    @property
    def nbytes(self) -> int:
        return self.n_samples * self.n_channels * np.dtype(self.dtype).itemsize

    @cached_property
    def spikes(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples (n_spikes,) int64 in order, and the unit of each."""
        random = np.random.default_rng([self.seed, 0])
        seconds = self.n_samples / self.sampling_rate
        counts = random.poisson(np.linspace(*self.rates, self.n_units) * seconds)
        samples = random.integers(MARGIN, self.n_samples - MARGIN, counts.sum())
        units = np.repeat(np.arange(self.n_units), counts)
        order = np.lexsort((units, samples))
        return samples[order], units[order]

    @cached_property
    def waveforms(self) -> tuple[np.ndarray, np.ndarray]:
        """(n_units, samples, channels) around each unit's own channel, and the first of these channels."""
        time = np.arange(-BEFORE, AFTER).reshape(-1, 1)
        shape = 0.4 * np.exp(-(((time - 15) / 8.0) ** 2) / 2) - np.exp(-((time / 4.0) ** 2) / 2)
        width = min(self.n_channels, int(6 * REACH))
        near = np.exp(-(((np.arange(width) - width // 2) / REACH) ** 2) / 2)
        first = np.random.default_rng([self.seed, 1]).integers(0, self.n_channels - width + 1, self.n_units)
        return np.repeat(self.stored(self.peak * shape * near)[None], self.n_units, axis=0), first

    @cached_property
    def noise(self) -> np.ndarray:
        """Two seconds (samples, channels), the second like the first."""
        random = np.random.default_rng([self.seed, 2])
        values = random.standard_normal((self.sampling_rate, self.n_channels), np.float32)
        values *= np.float32(self.spread)
        values += np.float32(self.offset)
        return np.concatenate([self.stored(values)] * 2)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """In the dtype of the recording, rounded to whole numbers or to STEP."""
        step = 1 if np.issubdtype(self.dtype, np.integer) else STEP
        return (np.rint(values / step) * step).astype(self.dtype)

    def block(self, start: int, stop: int) -> np.ndarray:
        """Samples start to stop, at most a second of them."""
        rate = self.sampling_rate
        at = int(np.random.default_rng([self.seed, 3, start]).integers(rate))
        field = self.field * np.sin(2 * np.pi * 8 / rate * np.arange(start, stop))
        values = self.noise[at : at + stop - start] + self.stored(field).reshape(-1, 1)
        samples, units = self.spikes
        waveforms, channels = self.waveforms
        width = waveforms.shape[2]
        first, last = np.searchsorted(samples, [start - AFTER + 1, stop + BEFORE])
        for sample, unit in zip(samples[first:last].tolist(), units[first:last].tolist(), strict=True):
            a, b = max(start, sample - BEFORE), min(stop, sample + AFTER)
            part = waveforms[unit, a - sample + BEFORE : b - sample + BEFORE]
            values[a - start : b - start, channels[unit] : channels[unit] + width] += part
        return values

    def write(self, path: Path) -> None:
        """The samples, row-major, to ``path``; ``samples`` and ``units`` beside it, to .npz."""
        samples, units = self.spikes
        np.savez(path.with_suffix(".npz"), samples=samples, units=units)
        row = self.nbytes // self.n_samples
        step = min(self.sampling_rate, BLOCK_NBYTES // row)
        self.noise, self.waveforms  # noqa: B018 - computed once, before threads ask for them
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:

            def write(start: int) -> None:
                left = memoryview(self.block(start, min(start + step, self.n_samples))).cast("B")
                at = start * row
                while left:
                    written = os.pwrite(file, left, at)
                    left, at = left[written:], at + written

            with ThreadPoolExecutor(2) as pool:
                for _ in pool.map(write, range(0, self.n_samples, step)):
                    pass
        finally:
            os.close(file)
