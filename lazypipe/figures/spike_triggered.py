"""The picture of a spike-triggered average: one unit, on the channel where it moves most, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.figures.canvas import BLUE, GREY, with_axes
from lazypipe.figures.traces import Trace, mark_spike, place_of, time_axis, trace_of, unit_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_LAGS = 40  # so many have a dot each


def spike_triggered(sta: Any, significance: Any = None, unit: Any = None) -> Figure:
    """The average of a unit (without it, that of most spikes) on its best channel, over milliseconds.

    Its band is the bootstrap's where ``significance`` is given, else 1.96 standard errors. ConfigError for a unit
    that there is none of.
    """
    index = place_of(sta, unit)
    trace = trace_of(sta, index)
    times, time_unit = time_axis(sta)
    figure, axes = with_axes()
    axes.spines["right"].set_visible(False)
    axes.set_title(_title(sta, trace), fontsize="medium")
    axes.set_xlabel(f"time from the spike ({time_unit})")
    axes.set_ylabel(f"mean ({unit_of(sta)})")
    axes.margins(x=0.01)
    if trace.peak is None:
        axes.set_xlim(*_around(times))
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", color=GREY, fontsize="large")
        mark_spike(axes, times)
        return figure
    if trace.band is not None:
        axes.fill_between(times, *trace.band, color=BLUE, alpha=0.25, linewidth=0, label="± 1.96 standard errors")
    marker = {"marker": "o", "markersize": 3} if len(times) <= FEW_LAGS else {}
    axes.plot(times, trace.mean, color=BLUE, linewidth=1.5, label="mean", **marker)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    mark_spike(axes, times, label="spike")
    if len(times) == 1:
        axes.set_xlim(*_around(times))
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def _title(sta: Any, trace: Trace) -> str:
    n_channels, shape = sta.recording.n_channels, sta.recording.sample_shape
    where = ""
    if n_channels > 1 and trace.channel >= 0:
        row, column = divmod(trace.channel, shape[1]) if shape else (0, 0)
        place, kind = (f"pixel ({row}, {column})", "pixels") if shape else (f"channel {trace.channel}", "channels")
        where = f", {place}, where it moves most of {n_channels:,} {kind}"
    return f"Unit {trace.unit_id}{where}: {trace.count} spike{'s' * (trace.n_used != 1)}"


def _around(times: np.ndarray) -> tuple[float, float]:
    reach = max(float(times[-1] - times[0]), 1.0)
    return float(times[0]) - 0.02 * reach, float(times[-1]) + 0.02 * reach
