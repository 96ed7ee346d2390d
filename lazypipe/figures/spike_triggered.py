"""The picture of a spike-triggered average: one unit, on the channel where it moves most, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazypipe.figures.canvas import BLUE, GREY, with_axes
from lazypipe.figures.traces import (
    NORMAL_95,
    Trace,
    draw_band,
    limits,
    mark_significant,
    mark_spike,
    place_of,
    time_axis,
    trace_of,
    values_unit,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_LAGS = 40  # so many have a dot each


def spike_triggered(sta: Any, significance: Any = None, unit: Any = None) -> Figure:
    """The average of a unit (without it, that of most spikes) on its best channel, over milliseconds.

    Its band is the bootstrap's where ``significance`` is given, which also tells what shifted spikes would give and
    which lags are significant; else 1.96 standard errors. ConfigError for a unit that there is none of.
    """
    index = place_of(sta, unit)
    trace = trace_of(sta, index, significance)
    times, time_unit = time_axis(sta)
    figure, axes = with_axes()
    axes.spines["right"].set_visible(False)
    axes.set_title(_title(sta, trace), fontsize="medium")
    axes.set_xlabel(f"time from the spike ({time_unit})")
    axes.set_ylabel(f"mean ({values_unit(sta)})")
    axes.set_xlim(*limits(times))
    if trace.peak is None:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", color=GREY, fontsize="large")
        return figure
    if trace.chance is not None:
        reach = NORMAL_95 * trace.chance.std
        low, high = trace.chance.mean - reach, trace.chance.mean + reach
        axes.fill_between(
            times, low, high, color=GREY, alpha=0.25, linewidth=0, label=f"shifted spikes ± {NORMAL_95} SD"
        )
    draw_band(axes, times, trace, label=trace.band_is)
    marker = {"marker": "o", "markersize": 3} if len(times) <= FEW_LAGS else {}
    axes.plot(times, trace.mean, color=BLUE, linewidth=1.5, label="mean", **marker)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    mark_spike(axes, times, label="spike")
    if trace.chance is not None:
        label = f"significant (false discoveries ≤ {trace.chance.level:.0%})"
        mark_significant(axes, times, trace, label=label)
    figure.legend(loc="outside lower center", ncols=3 if trace.chance is not None else 4, frameon=False)
    return figure


def _title(sta: Any, trace: Trace) -> str:
    n_channels, shape = sta.recording.n_channels, sta.recording.sample_shape
    where = ""
    if n_channels > 1 and trace.channel is not None:
        row, column = divmod(trace.channel, shape[1]) if shape else (0, 0)
        place, kind = (f"pixel ({row}, {column})", "pixels") if shape else (f"channel {trace.channel}", "channels")
        where = f", {place}, where it moves most of {n_channels:,} {kind}"
    return f"Unit {trace.unit_id}{where}: {trace.count} spike{'s' * (trace.n_used != 1)}"
