"""From what is stored to samples: times are rounded once, to the nearest sample, here.

A time that is k/rate in float64 gives k: its error, and that of the arithmetic, are a few units in the 16th
digit, so the product is within k·1e-15 of k, and nearer to it than to any other as long as k is below 1e14.
Flooring would put one spike in ten a sample too early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lazypipe.errors import DataError

PER_SECOND = {"s": 1.0, "ms": 1000.0}
VALUES_AT_ONCE = 1 << 18  # 2 MiB of float64: stays in cache, and adds nothing to the peak
LARGEST = 2.0**53  # the last float64 up to which each integer has one of its own


@dataclass(frozen=True)
class Clock:
    """What the stored values are: samples, or times from which ``start_time`` seconds are sample 0."""

    times: str = "samples"
    sampling_rate: float | None = None  # Hz; None for samples
    start_time: float = 0.0  # seconds

    def samples(self, values: np.ndarray, locate: Callable[[int], str], uri: str) -> np.ndarray:
        """``values`` (n,) as int64 samples, themselves where they are; ``locate`` tells where value i lies.

        Raises DataError for what is no number, not finite, no whole sample, beyond int64, or stored too
        coarsely to tell one sample from the next.
        """
        kind = values.dtype.kind
        if kind not in "iuf":
            found = {"b": "truth values", "O": "objects"}.get(kind, f"dtype {values.dtype}")
            raise DataError(f"{uri}: its spikes are {found}. Store samples as integers, or times as floats.")
        if kind != "f" and self.sampling_rate is None:
            if values.dtype == np.uint64:
                beyond = _first(values > np.uint64(np.iinfo(np.int64).max))
                if beyond is not None:
                    raise DataError(
                        f"{uri}: {locate(beyond)}: sample {values[beyond]:,} is beyond int64. Was a negative one cast?"
                    )
            return values.astype(np.int64, copy=False)
        if kind == "f":
            self._require_fine(values, uri)
        samples = np.empty(len(values), np.int64)
        for start in range(0, len(values), VALUES_AT_ONCE):
            block = values[start : start + VALUES_AT_ONCE]
            samples[start : start + len(block)] = self._rounded(block, start, locate, uri)
        return samples

    def _rounded(self, block: np.ndarray, start: int, locate: Callable[[int], str], uri: str) -> np.ndarray:
        exact = block.astype(np.float64)
        bad = _first(~np.isfinite(exact))
        if bad is not None:
            raise DataError(f"{uri}: {locate(start + bad)}: the time is {block[bad]}. Leave such spikes out.")
        if self.sampling_rate is not None:
            with np.errstate(over="ignore"):  # told below
                exact /= PER_SECOND[self.times]
                exact -= self.start_time
                exact *= self.sampling_rate
        rounded = np.rint(exact)
        if self.sampling_rate is None:
            bad = _first(rounded != exact)
            if bad is not None:
                raise DataError(
                    f"{uri}: {locate(start + bad)}: {block[bad]} is no whole sample. "
                    f"Pass times='s' with sampling_rate= if these are seconds, 'ms' if milliseconds."
                )
        bad = _first(np.abs(rounded) > LARGEST)
        if bad is not None:
            raise DataError(
                f"{uri}: {locate(start + bad)}: {block[bad]} is beyond the samples that a float64 can tell apart. "
                f"Check the unit of its times."
            )
        return rounded

    def _require_fine(self, values: np.ndarray, uri: str) -> None:
        """DataError if neighbouring float32 are a sample or more apart at the largest time: at 30 kHz after 8.5 min."""
        if len(values) == 0 or values.dtype.itemsize >= 8 or values.dtype.kind != "f":
            return
        largest = max(abs(values.min()), abs(values.max()))
        if not np.isfinite(largest):
            return  # told where each value is looked at
        if self.sampling_rate is None:
            if np.spacing(largest) > 1:
                raise DataError(
                    f"{uri}: {values.dtype} cannot tell neighbouring samples apart at {largest:,.0f}. Store integers."
                )
            return
        spacing = float(np.spacing(largest)) / PER_SECOND[self.times]
        if spacing * self.sampling_rate >= 1:
            raise DataError(
                f"{uri}: {values.dtype} times are {spacing:.2g} s apart at {largest:g} {self.times}, "
                f"{spacing * self.sampling_rate:.2g} samples. Store float64 times, or samples."
            )

    def told(self, value: np.generic) -> str:
        """A stored value as text, with its unit."""
        return f"sample {value:,}" if self.sampling_rate is None else f"{value} {self.times}"


def _first(is_bad: np.ndarray) -> int | None:
    """Where the first is, if any."""
    index = int(is_bad.argmax()) if is_bad.size else 0
    return index if is_bad.size and is_bad[index] else None
