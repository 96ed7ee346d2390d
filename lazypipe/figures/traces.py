"""What pictures of spike-triggered averages share: one unit on one channel, and the axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import BLUE, GREY, VERMILION
from lazypipe.stats.units import Peak, best_channel, peak_of, unit_of

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Chance:
    """What significance tells of one unit on one channel."""

    mean: np.ndarray  # (n_lags,) of shifted spikes
    std: np.ndarray
    significant: np.ndarray  # (n_lags,) bool
    level: float


@dataclass(frozen=True)
class Trace:
    """The average of one unit on its best channel; ``band`` is where the mean lies with that confidence, if known."""

    unit_id: Any
    n_used: int
    channel: int | None  # None where no spike was used
    mean: np.ndarray  # (n_lags,)
    band: tuple[np.ndarray, np.ndarray] | None  # each (n_lags,)
    peak: Peak | None  # likewise
    band_is: str = f"± {NORMAL_95} standard errors"
    chance: Chance | None = None

    @property
    def count(self) -> str:
        return f"n = {self.n_used:,}"


def trace_of(sta: Any, index: int, significance: Any = None) -> Trace:
    """Of the unit at that place, with the bootstrap's band where there is one, else 1.96 standard errors."""
    one = unit_of(sta, index)
    unit_id, n_used = one.unit_ids[0].item(), int(one.n_used.max())
    channel = best_channel(one.mean[0])
    if channel is None:
        return Trace(unit_id, n_used, None, np.full(len(one.lags), np.nan), None, None)
    mean = one.mean[0, :, channel].astype(np.float64)
    band: tuple[np.ndarray, np.ndarray] | None = None
    tested = [] if significance is None else significance.channels[index].tolist()
    if channel in tested:
        at = index, slice(None), tested.index(channel)
        chance = Chance(
            significance.null_mean[at], significance.null_std[at], significance.significant[at], significance.level
        )
        band = significance.band[0][at], significance.band[1][at]
        told = f"{significance.confidence:.0%} of bootstrap means"
        return Trace(unit_id, n_used, channel, mean, band, peak_of(mean), told, chance)
    if one.std is not None and n_used > 1:
        reach = NORMAL_95 * one.sem[0, :, channel].astype(np.float64)
        band = mean - reach, mean + reach
    return Trace(unit_id, n_used, channel, mean, band, peak_of(mean))


def used(sta: Any) -> np.ndarray:
    """(n_units,) spikes used; the most at any lag where that differs."""
    n_used = np.asarray(sta.n_used)
    return n_used if n_used.ndim == 1 else n_used.max(axis=1)


def most_used(sta: Any, n: int) -> np.ndarray:
    """Places of the ``n`` units of most spikes, in the order that the average has them."""
    order: np.ndarray = np.sort(np.argsort(-used(sta), kind="stable")[:n])
    return order


def place_of(sta: Any, unit: Any) -> int:
    """Where a unit is; None: the one of most spikes. ConfigError for one that there is none of."""
    if unit is None:
        return int(np.argmax(used(sta)))
    ids = sta.unit_ids.tolist()
    if unit not in ids:
        raise ConfigError(f"unit: there is no {unit!r}. Name one of {some(ids)}.")
    return int(ids.index(unit))


def some(values: Sequence[Any], n: int = 8) -> str:
    return ", ".join(str(value) for value in values[:n]) + (", ..." if len(values) > n else "")


def time_axis(sta: Any) -> tuple[np.ndarray, str]:
    """(n_lags,) of time from the spike and what it is in: milliseconds, or samples where no rate is known."""
    if sta.recording.sampling_rate is None:
        return np.asarray(sta.lags, np.float64), "samples"
    return 1000.0 * sta.lags / sta.recording.sampling_rate, "ms"


def shown_time(time: float) -> str:
    """To a tenth, with a minus that can be read."""
    return f"{round(time, 1):g}".replace("-", "−")


def values_unit(sta: Any) -> str:
    """What the values are in."""
    return sta.recording.unit or "units of the data"


def limits(times: np.ndarray) -> tuple[float, float]:
    """Of the axis of time: a little more than the window; a unit on either side of a single lag."""
    margin = 0.02 * float(times[-1] - times[0]) or 1.0
    return float(times[0]) - margin, float(times[-1]) + margin


def draw_band(axes: Any, times: np.ndarray, trace: Trace, **options: Any) -> None:
    """The band about the mean; about a single lag, a bar."""
    if trace.band is None:
        return
    if len(times) == 1:
        axes.vlines(times, *trace.band, color=BLUE, alpha=0.5, linewidth=4, **options)
    else:
        axes.fill_between(times, *trace.band, color=BLUE, alpha=0.25, linewidth=0, **options)


def mark_significant(axes: Any, times: np.ndarray, trace: Trace, **options: Any) -> None:
    """A bar at the foot of the axes under the lags that are significant."""
    if trace.chance is None or not trace.chance.significant.any():
        return
    half = 0.5 * float(times[1] - times[0]) if len(times) > 1 else 0.5
    edges = np.flatnonzero(np.diff(np.r_[False, trace.chance.significant, False].astype(int)))
    spans = [(times[a] - half, times[b - 1] - times[a] + 2 * half) for a, b in edges.reshape(-1, 2)]
    axes.broken_barh(spans, (0.0, 0.02), transform=axes.get_xaxis_transform(), color=VERMILION, linewidth=0, **options)


def mark_spike(axes: Any, times: np.ndarray, **options: Any) -> None:
    """A line at the spike, at 0, where the window reaches it within a tenth of its length."""
    reach = 0.1 * (times[-1] - times[0])
    if times[0] - reach <= 0 <= times[-1] + reach:
        axes.axvline(0, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1, **options)
