"""A clock from timestamps: their rate, and the stretches between gaps, or an error where they are irregular."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError

AT_ONCE = 2**20  # timestamps, 8 MiB of float64
JITTER = 0.1  # of a period, by which an interval may differ from it
GAP = 1.5  # periods: a longer interval is a pause
DRIFT = 0.5  # samples, by which a timestamp may differ from its place on the clock of its stretch


class Clock(NamedTuple):
    """``rate`` in Hz, seconds at sample 0, and the stretches in samples from there."""

    rate: float
    start_time: float
    stretches: tuple[Span, ...]


def read_clock(stamps: Any, given: float | None, where: str) -> Clock:
    """The clock of ``stamps`` (n,), seconds: an array or HDF5 dataset, read twice and never whole.

    The rate is that of all stretches together, or ``given`` where that is as good. A stretch begins at the
    sample nearest to its first timestamp. Raises DataError for timestamps that are not ascending, have no
    regular period, or drift from it by more than half a sample.
    """
    n = len(stamps)
    if n == 1:
        if given is None:
            raise DataError(f"{where} has a single timestamp, which tells no rate. Pass sampling_rate=.")
        return Clock(given, float(stamps[0]), (Span(0, 1),))
    edges, firsts, lasts = _stretches(stamps, where)
    rate = _rate(edges, firsts, lasts, given, where)
    _require_steady(stamps, edges, firsts, rate, where)
    starts = np.rint((firsts - firsts[0]) * rate).astype(np.int64)
    spans: list[Span] = []
    for start, length in zip(starts.tolist(), np.diff(edges).tolist(), strict=True):
        start = max(start, spans[-1].stop) if spans else start
        spans.append(Span(start, start + length))
    return Clock(rate, float(firsts[0]), tuple(spans))


def _chunks(stamps: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, timestamps), each beginning with the last of the one before."""
    for start in range(0, max(1, len(stamps) - 1), AT_ONCE):
        yield start, np.asarray(stamps[start : start + AT_ONCE + 1], np.float64)


def _stretches(stamps: Any, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(edges, first timestamps, last timestamps) of the stretches between gaps.

    DataError at the first interval that is neither a period nor a gap.
    """
    edges, firsts, lasts = [np.array([0])], [], []
    period = 0.0
    for start, values in _chunks(stamps):
        with np.errstate(invalid="ignore"):  # infinite ones are told below
            intervals = np.diff(values)
        if start == 0:
            period = float(np.median(intervals))
            firsts.append(values[:1])
        bad = np.flatnonzero(~(intervals > 0) | ~np.isfinite(intervals))
        if len(bad):
            k = start + int(bad[0]) + 1
            raise DataError(f"{where}: timestamp {k:,} is not a time later than the one before. Check what wrote it.")
        pauses = intervals > GAP * period
        odd = np.flatnonzero(~pauses & (np.abs(intervals - period) > JITTER * period))
        if len(odd):
            k, interval = start + int(odd[0]) + 1, float(intervals[odd[0]])
            raise DataError(
                f"{where}: irregular timestamps: number {k:,} comes {interval:.6g} s after the one before, others "
                f"{period:.6g} s. Resample it to a regular rate."
            )
        gaps = np.flatnonzero(pauses)
        edges.append(start + gaps + 1)
        lasts.append(values[gaps])
        firsts.append(values[gaps + 1])
    return np.concatenate([*edges, [len(stamps)]]), np.concatenate(firsts), np.concatenate([*lasts, values[-1:]])


def _rate(edges: np.ndarray, firsts: np.ndarray, lasts: np.ndarray, given: float | None, where: str) -> float:
    intervals = np.diff(edges) - 1
    seconds = float(np.sum(lasts - firsts))
    if not seconds:
        raise DataError(f"{where}: its timestamps are all apart by gaps, which tells no rate. Check what wrote it.")
    rate = float(np.sum(intervals)) / seconds
    longest = float(np.max(intervals))
    if given is not None and abs(given - rate) / rate * longest <= DRIFT:
        return given
    whole = float(np.rint(rate))  # 30000.000000007 is what rounding left of 30000
    return whole if abs(whole - rate) / rate * longest < 0.01 else rate


def _require_steady(stamps: Any, edges: np.ndarray, firsts: np.ndarray, rate: float, where: str) -> None:
    for start, values in _chunks(stamps):
        numbers = np.arange(start, start + len(values))
        stretch = np.searchsorted(edges, numbers, side="right") - 1
        off = np.abs((values - firsts[stretch]) * rate - (numbers - edges[stretch]))
        worst = int(np.argmax(off))
        if off[worst] > DRIFT:
            raise DataError(
                f"{where}: irregular timestamps: at {rate:.10g} Hz number {start + worst:,} is {off[worst]:.3g} "
                f"samples off. Resample it to a regular rate."
            )
