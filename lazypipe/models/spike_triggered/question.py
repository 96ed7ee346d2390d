"""What is asked of a recording and its spikes: checked, in samples, before anything is read."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import ConfigError, DataError, DroppedSpikesWarning
from lazypipe.io.recordings import open_recording
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.spikes import Spikes, read_spikes
from lazypipe.stats.spike_triggered import NanPolicy
from lazypipe.stats.windows import Dropped, Edges, Weights, Windows, find_windows

SECONDS = {"s": 1.0, "ms": 1e-3}
SAME_RATE = 1e-9  # relative
FARTHEST = 2**40  # samples


@dataclass(frozen=True, eq=False)
class Question:
    """A recording, the windows around the spikes of each unit, and what to do with those that are not whole."""

    recording: Recording
    spikes: Spikes
    window: tuple[int, int]  # samples, half open
    windows: Windows
    dropped: Dropped
    edges: Edges
    nan: NanPolicy

    @property
    def lags(self) -> np.ndarray:
        """(n_lags,) samples from the spike."""
        return np.arange(*self.window)

    def dropped_with(self, not_finite: np.ndarray) -> dict[str, np.ndarray]:
        """(n_units,) spikes that were not used, by reason; ``not_finite`` of them for a NaN."""
        edge, gap, beyond_end = self.dropped
        return {"edge": edge, "gap": gap, "nan": not_finite, "beyond_end": beyond_end}

    @property
    def nbytes(self) -> int:
        """Of spikes and windows, in every process."""
        return self.spikes.samples.nbytes + self.windows.nbytes


def ask(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    window_unit: str = "samples",
    edges: str = "drop",
    weights: str = "count",
    nan: str = "raise",
    exclude: Sequence[tuple[int, int]] = (),
) -> Question:
    """The question, checked; warns of spikes beyond the end of the recording.

    Raises ConfigError for options that are none, DataError for spikes and recordings that do not belong together.
    """
    recording = open_recording(recording)
    spikes = read_spikes(spikes)
    for name, value, known in (("edges", edges, Edges), ("weights", weights, Weights), ("nan", nan, NanPolicy)):
        if value not in get_args(known):
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(get_args(known))}.")
    lags = window_in_samples(window, window_unit, recording.sampling_rate)
    rates = spikes.sampling_rate, recording.sampling_rate
    if None not in rates and not math.isclose(*rates, rel_tol=SAME_RATE):
        raise DataError(
            f"{spikes.uri}: times were rounded at {rates[0]:.10g} Hz, {recording.uri} has {rates[1]:.10g} Hz. "
            f"Read the spikes with sampling_rate={rates[1]:.10g}."
        )
    windows, dropped = find_windows(
        spikes.samples,
        spikes.edges,
        lags,
        recording.spans,
        excluded_spans(exclude),
        cast(Edges, edges),
        cast(Weights, weights),
    )
    n_late = int(dropped.beyond_end.sum())
    if n_late:
        warnings.warn(
            f"{spikes.uri}: {n_late:,} of {len(spikes.samples):,} spikes lie beyond the end of {recording.uri} (sample "
            f"{recording.stop:,}) and are left out. Check that the two belong together, and their sampling rates.",
            DroppedSpikesWarning,
            stacklevel=3,
        )
    return Question(recording, spikes, lags, windows, dropped, cast(Edges, edges), cast(NanPolicy, nan))


def window_in_samples(window: Any, unit: str, rate: float | None) -> tuple[int, int]:
    """``window`` as (start, stop) in whole samples, half open; ConfigError unless start < stop."""
    try:
        start, stop = window
        bounds = float(start), float(stop)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"window: {window!r:.60} is no pair. Give (start, stop), for instance (-149, 1).") from error
    if not all(map(math.isfinite, bounds)):
        raise ConfigError(f"window: {window!r} is not finite. Give (start, stop), for instance (-149, 1).")
    if unit in SECONDS:
        if rate is None:
            raise ConfigError("window: in time, but the recording has no sampling rate. Open it with sampling_rate=.")
        found = round(bounds[0] * SECONDS[unit] * rate), round(bounds[1] * SECONDS[unit] * rate)
    elif unit == "samples":
        if not all(isinstance(bound, numbers.Integral) or bound == int(bound) for bound in (start, stop)):
            raise ConfigError(
                f"window: {window!r} is not in whole samples. Round it, or say window_unit='s' or 'ms' (--window-unit)."
            )
        found = int(start), int(stop)
    else:
        raise ConfigError(f"window_unit: {unit!r} is not one of samples, s, ms.")
    if max(map(abs, found)) > FARTHEST:
        raise ConfigError(
            f"window: {window!r:.60} {unit} reaches farther than {FARTHEST:,} samples. Give a nearer one."
        )
    if found[0] >= found[1]:
        told = f"{window!r} {unit}" + ("" if unit == "samples" else f", {found} samples,")
        raise ConfigError(f"window: {told} holds no sample. Its start must be before its stop, which is not in it.")
    return found


def excluded_spans(intervals: Any) -> tuple[Span, ...]:
    """``exclude`` as spans; ConfigError for an interval that is none."""
    spans = []
    if not isinstance(intervals, Iterable):
        raise ConfigError(f"exclude: {intervals!r} is no list of intervals. Give [(start, stop), ...] in samples.")
    for interval in intervals:
        try:
            start, stop = (int(bound) for bound in interval)
            if (start, stop) != tuple(interval):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"exclude: {interval!r} is no (start, stop) in whole samples.") from error
        if start > stop:
            raise ConfigError(f"exclude: {interval!r} ends before it starts. Give (start, stop) in samples, half open.")
        spans.append(Span(start, stop))
    return tuple(spans)
