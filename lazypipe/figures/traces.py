"""What pictures of spike-triggered averages share: one unit on one channel, and the axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import GREY
from lazypipe.stats.peaks import Peak, peak_of

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Trace:
    """The average of one unit on its best channel; ``band`` is where the mean lies with 95%, if that is known."""

    unit_id: Any
    n_used: int
    channel: int  # -1 where no spike was used
    mean: np.ndarray  # (n_lags,)
    band: tuple[np.ndarray, np.ndarray] | None  # each (n_lags,)
    peak: Peak | None

    @property
    def count(self) -> str:
        return f"n = {self.n_used:,}"


def trace_of(sta: Any, index: int) -> Trace:
    """Of the unit at that place, with 1.96 standard errors about its mean."""
    one = one_unit(sta, index)
    n_used = int(one.n_used.max())
    channel = int(one.best_channel[0]) if n_used else -1
    mean = np.asarray(one.mean[0, :, max(channel, 0)], np.float64)
    band = None
    if one.std is not None and n_used > 1:
        reach = NORMAL_95 * np.asarray(one.sem[0, :, max(channel, 0)], np.float64)
        band = mean - reach, mean + reach
    return Trace(one.unit_ids[0].item(), n_used, channel, mean, band, peak_of(mean) if n_used else None)


def one_unit(sta: Any, index: int) -> Any:
    """The average of one unit alone, without a copy; of a large one only that much is computed with."""
    part = slice(index, index + 1)
    return replace(
        sta,
        unit_ids=sta.unit_ids[part],
        mean=np.asarray(sta.mean[part]),
        std=None if sta.std is None else np.asarray(sta.std[part]),
        n_used=sta.n_used[part],
        n_dropped={why: n[part] for why, n in sta.n_dropped.items()},
    )


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


def unit_of(sta: Any) -> str:
    """What the values are in."""
    return sta.recording.unit or "units of the data"


def mark_spike(axes: Any, times: np.ndarray, **options: Any) -> None:
    """A line at the spike, at 0, where the window reaches it within a tenth of its length."""
    reach = 0.1 * (times[-1] - times[0])
    if times[0] - reach <= 0 <= times[-1] + reach:
        axes.axvline(0, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1, **options)
