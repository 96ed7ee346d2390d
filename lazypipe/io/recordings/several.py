"""Several recordings as one: each a stretch of its own, so that no window crosses from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import ConfigError, DataError
from lazypipe.io.recordings.rates import hertz, same_rate
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.stacked import stack


def join(recordings: Sequence[Recording], starts: Sequence[int] | None) -> Recording:
    """One recording of all, in their order.

    ``starts`` says at which sample of the common clock each begins, whose sample 0 is at the start time of the
    first; without it each follows the one before without pause. Raises DataError where two differ in what
    one recording has once, or do not follow one another.
    """
    first = recordings[0]
    for other in recordings[1:]:
        _require_alike(first, other)
    spans: list[Span] = []
    for number, recording in enumerate(recordings):
        before = spans[-1].stop if spans else recording.spans[0].start
        if starts is None:
            _require_in_place(recording, recordings[number - 1], first, before, number)
        start = before if starts is None else starts[number]
        if spans and start < before:
            raise DataError(
                f"{recording.uri}: begins at sample {start:,}, before {recordings[number - 1].uri} ends at "
                f"{before:,}. Give starts in ascending order, as many samples apart as each source has."
            )
        shift = start - recording.spans[0].start
        spans += [Span(span.start + shift, span.stop + shift) for span in recording.spans]
    whole = spans == [Span(0, first.n_samples)]
    matrix = stack([recording.matrix for recording in recordings])
    return replace(first, matrix=matrix, stretches=() if whole else tuple(spans))


def checked_starts(starts: Any, n_sources: int) -> tuple[int, ...]:
    """``starts`` as samples, one a source; ConfigError if they are not."""
    try:
        samples = tuple(index(start) for start in starts)
    except TypeError as error:
        raise ConfigError(f"starts: is {starts!r:.60}. Give whole numbers of samples, one a source.") from error
    if len(samples) != n_sources:
        raise ConfigError(f"starts: has {len(samples)} entries for {n_sources} sources. Give one for each.")
    if min(samples) < 0:
        raise ConfigError(f"starts: {min(samples)} lies before the clock begins. Count samples from 0.")
    return samples


def _require_in_place(recording: Recording, previous: Recording, first: Recording, before: int, number: int) -> None:
    """DataError where a file tells another start time than the end of the one before."""
    rate = first.sampling_rate
    if number == 0 or rate is None or recording.start_time == 0:
        return
    expected = first.start_time + before / rate
    if abs(recording.start_time - expected) * rate > 0.5:
        raise DataError(
            f"{recording.uri}: begins at {recording.start_time:.10g} s by its own clock, {previous.uri} ends at "
            f"{expected:.10g} s. Say at which sample each begins with starts=[...]."
        )


def _require_alike(first: Recording, other: Recording) -> None:
    def differs(what: str, left: object, right: object, mend: str) -> DataError:
        return DataError(f"mismatched {what}: {first.uri} has {left}, {other.uri} {right}. {mend}")

    rates = first.sampling_rate, other.sampling_rate
    if (rates[0] is None) != (rates[1] is None):
        raise differs("rates", hertz(rates[0]), hertz(rates[1]), "Pass sampling_rate=.")
    if rates[0] is not None and rates[1] is not None and not same_rate(rates[0], rates[1]):
        raise differs("rates", hertz(rates[0]), hertz(rates[1]), "Resample one of them, or open them apart.")
    apart = "Open them apart."
    if first.sample_shape != other.sample_shape:
        raise differs("frames", first.shape[1:], other.shape[1:], apart)
    if first.n_channels != other.n_channels:
        raise differs("channels", first.n_channels, other.n_channels, apart)
    if first.columns != other.columns or first.matrix.shape[1] != other.matrix.shape[1]:
        raise differs("columns beside the channels", first.matrix.shape[1], other.matrix.shape[1], apart)
    if first.dtype != other.dtype:
        raise differs("dtypes", first.dtype, other.dtype, "Convert one of them.")
    if first.unit != other.unit:
        raise differs("units", first.unit or "none", other.unit or "none", "Pass gain= and unit=.")
    for name, default in (("gain", 1.0), ("offset", 0.0)):
        left, right = (default if getattr(r, name) is None else getattr(r, name) for r in (first, other))
        if not np.allclose(left, right, rtol=1e-9, atol=0):
            raise differs(f"{name}s", _some(left), _some(right), "Pass gain= for all, or open them apart.")


def _some(values: Any) -> str:
    numbers = np.unique(values)
    return f"{numbers[0]:.6g}" if len(numbers) == 1 else f"{numbers[0]:.6g} to {numbers[-1]:.6g}"
