"""The picture of all units: traces side by side, a heat map of many units, or the frames of a movie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.figures.canvas import BLUE, DIVERGING, GREY, NO_VALUE, blank
from lazypipe.figures.labels import NAMED, titled
from lazypipe.figures.traces import (
    Trace,
    draw_band,
    limits,
    mark_significant,
    mark_spike,
    most_used,
    shown_time,
    time_axis,
    trace_of,
    used,
    values_unit,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 24
FEW = 6  # units of one channel that are drawn as traces; more become a heat map
ROWS = 200  # of a heat map
SATURATED = 99.5  # percent of a heat map's values that its colours tell apart
PANEL, LARGE_PANEL = (1.75, 1.45), (3.2, 2.2)  # inches
FEW_PANELS = 6  # so many are large


def units(sta: Any, significance: Any = None) -> Figure:
    """Every unit: its average on its best channel, or, for a movie, its frame, at the lag where it moves most.

    Many units of one channel are the rows of a heat map. What does not fit (more than 24 panels, 200 rows)
    is left out, those of fewest spikes first, and the title says how many. Traces have the bands and the marks of
    ``significance`` where it is given.
    """
    n_units = len(sta.unit_ids)
    if sta.recording.sample_shape is not None:
        return _frames(sta, most_used(sta, PANELS))
    if sta.recording.n_channels == 1 and n_units > FEW:
        return _heat_map(sta, most_used(sta, ROWS))
    return _traces(sta, most_used(sta, PANELS), significance)


def _traces(sta: Any, shown: np.ndarray, significance: Any) -> Figure:
    times, time_unit = time_axis(sta)
    traces = [trace_of(sta, int(i), significance) for i in shown]
    n_columns = _n_columns(len(shown))
    figure, panels = _grid(len(shown), n_columns)
    of_many = sta.recording.n_channels > 1
    for i, (axes, trace) in enumerate(zip(panels, traces, strict=True)):
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.set_yticks([])
        _named(axes, trace, f"channel {trace.channel}, " if of_many and trace.peak else "")
        axes.set_xlim(*limits(times))
        axes.tick_params(labelsize="small", length=2.5)
        if i + n_columns < len(shown):
            axes.set_xticklabels([])
        if trace.peak is None:
            continue
        mark_spike(axes, times)
        draw_band(axes, times, trace)
        axes.plot(times, trace.mean, color=BLUE, linewidth=1.1, marker="o" if len(times) == 1 else "", markersize=3)
        _scale_bar(axes, sta.recording.unit)
        mark_significant(axes, times, trace)
    figure.supxlabel(f"time from the spike ({time_unit})", fontsize="medium")
    own = "\neach unit on its own scale" if len(shown) > 1 else ""
    figure.supylabel(f"mean ({values_unit(sta)}){own}", fontsize="medium")
    figure.suptitle(_title(traces, of_many) + _left_out(sta, shown), fontsize="medium")
    return figure


def _title(traces: list[Trace], of_many: bool) -> str:
    bands = {trace.band_is for trace in traces if trace.band is not None}
    bars = any(trace.chance is not None for trace in traces)
    notes = [f"band: {bands.pop()}" if bands else "", "bars: significant lags" if bars else ""]
    return titled("Mean on the channel where each unit moves most" if of_many else "Mean", notes)


def _heat_map(sta: Any, shown: np.ndarray) -> Figure:
    times, time_unit = time_axis(sta)
    traces = [trace_of(sta, int(i)) for i in shown]
    values = np.full((len(shown), len(times)), np.nan)
    for i, trace in enumerate(traces):
        if trace.peak is not None:
            values[i] = trace.mean - trace.peak.baseline
    figure = blank(7.0, min(8.5, max(3.2, 1.3 + 0.17 * len(shown))))
    axes = figure.add_subplot()
    step = float(times[1] - times[0]) if len(times) > 1 else 1.0
    extent = (times[0] - step / 2, times[-1] + step / 2, len(shown) - 0.5, -0.5)
    reach, clipped = _reach(values)
    image = axes.imshow(
        values, aspect="auto", extent=extent, cmap=_colours(), vmin=-reach, vmax=reach, interpolation="nearest"
    )
    mark_spike(axes, times)
    for row in (i for i, trace in enumerate(traces) if trace.peak is None):
        axes.text(
            float(times.mean()), row, "no spikes", ha="center", va="center", color=GREY, fontsize="x-small",
            bbox={"facecolor": NO_VALUE, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_xlim(extent[:2])
    axes.set_xlabel(f"time from the spike ({time_unit})")
    every = math.ceil(len(shown) / NAMED)
    names = [f"{trace.unit_id} ({trace.n_used:,})" for trace in traces[::every]]
    axes.set_yticks(range(0, len(shown), every), names, fontsize="small")
    axes.set_ylabel("unit (spikes used)" + (f", one in {every} named" if every > 1 else ""))
    bar = figure.colorbar(image, ax=axes, extend="both" if clipped else "neither", pad=0.02)
    bar.set_label(f"mean − its median over the lags\n({values_unit(sta)})")
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Mean of each unit{_left_out(sta, shown)}", fontsize="medium")
    return figure


def _frames(sta: Any, shown: np.ndarray) -> Figure:
    times, time_unit = time_axis(sta)
    n_columns = _n_columns(len(shown))
    figure, panels = _grid(len(shown), n_columns)
    image = None
    for axes, index in zip(panels, shown, strict=True):
        trace = trace_of(sta, int(index))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(GREY)
        axes.spines[:].set_linewidth(0.6)
        if trace.peak is None:
            axes.imshow(np.full(sta.recording.sample_shape, np.nan), cmap=_colours())
            _named(axes, trace, "\n")
            continue
        frame = np.asarray(sta.in_shape(sta.mean[index, trace.peak.at]), np.float64)
        frame = frame - np.nanmedian(sta.mean[index])
        reach = _nonzero(np.nanmax(np.abs(frame)))
        image = axes.imshow(frame / reach, cmap=_colours(), vmin=-1, vmax=1, interpolation="nearest")
        _named(axes, trace, f"{shown_time(times[trace.peak.at])} {time_unit}, ± {reach:.3g}\n")
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=0.6, pad=0.02)
        bar.set_label("mean − baseline, as a share of the\nunit's largest (± value above it)", fontsize="small")
        bar.ax.tick_params(labelsize="x-small")
        bar.outline.set_visible(False)
    figure.suptitle(
        f"Frame at the lag where each unit moves most; values in {values_unit(sta)}{_left_out(sta, shown)}",
        fontsize="medium",
    )
    return figure


def _grid(n: int, n_columns: int) -> tuple[Figure, list[Any]]:
    """A figure of ``n`` panels, row after row."""
    width, height = LARGE_PANEL if n <= FEW_PANELS else PANEL
    n_rows = -(-n // n_columns)
    figure = blank(max(5.0, width * n_columns + 0.5), max(2.8, height * n_rows + 0.9))
    return figure, [figure.add_subplot(n_rows, n_columns, i + 1) for i in range(n)]


def _n_columns(n: int) -> int:
    """At most 4, of many 6, so that a page's width can be read, and such that the last row is as full as can be."""
    if n <= FEW_PANELS:
        return 2 if n == 4 else min(n, 3)
    candidates = (4, 3) if n <= 16 else (6, 5, 4)
    return min(candidates, key=lambda columns: (-n % columns + 2 * (columns < math.sqrt(n)), -columns))


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps[DIVERGING].with_extremes(bad=NO_VALUE)


def _named(axes: Any, trace: Trace, what: str) -> None:
    """The unit over its panel, and, where it has none, that it has no spikes."""
    axes.set_title(f"unit {trace.unit_id}\n{what}{trace.count}", fontsize="small", pad=2)
    if trace.peak is None:
        axes.text(
            0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize="small"
        )


def _scale_bar(axes: Any, unit: str) -> None:
    """A bar of 1, 2 or 5 times a power of ten, at the left, with its length in the unit."""
    low, high = axes.get_ylim()
    length = _round_length(0.5 * (high - low))
    across = axes.get_yaxis_transform()
    axes.plot([-0.03, -0.03], [low, low + length], transform=across, color="black", linewidth=1.2, clip_on=False)
    axes.text(
        -0.06, low + length / 2, f"{length:g} {unit}".strip(), transform=across, rotation=90, ha="right", va="center",
        fontsize="small",
    )  # fmt: skip
    axes.set_ylim(low, high)


def _round_length(most: float) -> float:
    power = 10.0 ** math.floor(math.log10(most))
    return next(float(f"{m * power:.6g}") for m in (5, 2, 1) if m * power <= most * (1 + 1e-9))


def _reach(values: np.ndarray) -> tuple[float, bool]:
    """What the colours reach to on either side of 0, and whether values lie beyond it."""
    sizes = np.abs(values[~np.isnan(values)])
    if not len(sizes):
        return 1.0, False
    reach = _nonzero(np.percentile(sizes, SATURATED))
    return reach, bool(sizes.max() > reach)


def _nonzero(value: Any) -> float:
    return float(value) or 1.0


def _left_out(sta: Any, shown: np.ndarray) -> str:
    n_all = len(sta.unit_ids)
    left = n_all - len(shown)
    fewest = ", those of fewest spikes" if len(set(used(sta).tolist())) > 1 else ""
    return f"\n({len(shown)} of {n_all:,} units; {left:,} left out{fewest})" if left else ""
