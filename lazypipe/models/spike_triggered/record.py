"""What a result folder keeps of a spike-triggered average: its arrays, for Zarr, and a line a unit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lazypipe.io.spikes import Spikes
from lazypipe.models.spike_triggered.result import SpikeTriggeredAverage
from lazypipe.models.spike_triggered.store import AXES, KIND
from lazypipe.results import Group, Stored, Table
from lazypipe.stats.units import best_channel, peak_of, unit_of

if TYPE_CHECKING:
    from lazypipe.models.spike_triggered.significance import Significance


@dataclass(frozen=True)
class UnitLine:
    """One unit in a few numbers; None where no spike of it was used, or where a number is not known."""

    unit: int | str
    spikes: int
    used: int  # at the lag that has most, where that differs
    dropped: dict[str, int]  # by reason
    best_channel: int | None  # the channel whose mean moves most between its lags
    peak_lag: int | None  # samples from the spike, where that channel lies furthest from its baseline
    peak_lag_ms: float | None
    peak_value: float | None
    baseline: float | None  # the median of that channel over the lags
    z: float | None = None  # at the peak, against shifted spikes
    p_value: float | None = None  # likewise
    n_significant: int | None = None  # lags of that channel

    def cells(self) -> dict[str, Any]:
        """Flat: ``dropped_edge`` and so on."""
        found = asdict(self)
        dropped = found.pop("dropped")
        at = list(found).index("best_channel")
        items = list(found.items())
        return dict(items[:at]) | {f"dropped_{why}": n for why, n in dropped.items()} | dict(items[at:])


def lines_of(sta: SpikeTriggeredAverage, spikes: Spikes, significance: Significance | None = None) -> list[UnitLine]:
    """A line a unit, in their order; reads one unit at a time."""
    lines = [_line(unit_of(sta, i), n) for i, n in enumerate(spikes.counts.tolist())]
    return lines if significance is None else [_tested(line, significance, i) for i, line in enumerate(lines)]


def table_of(lines: list[UnitLine]) -> Table:
    """The lines as rows, after a head."""
    cells = [line.cells() for line in lines]
    return [list(cells[0]), *(["" if value is None else value for value in row.values()] for row in cells)]


def group_of(
    sta: SpikeTriggeredAverage,
    attributes: dict[str, Any],
    significance: Significance | None = None,
    is_stored: bool = False,
) -> Group:
    """``mean``, ``std``, ``sem`` (n_units, n_lags, n_channels), written unit by unit, and what they are of.

    Where mean and deviation are in a store of their own, these three are left to it.
    """
    recording = sta.recording
    arrays = {
        "unit_ids": Stored.of(("unit",), sta.unit_ids),
        "lags": Stored.of(("lag",), sta.lags),
        "n_used": Stored.of(AXES[: sta.n_used.ndim], sta.n_used),
    }
    arrays |= {f"n_dropped_{why}": Stored.of(("unit",), n) for why, n in sta.n_dropped.items()}
    if recording.sampling_rate is not None:
        arrays["times"] = Stored.of(("lag",), sta.times)
    if not is_stored:
        arrays["mean"] = Stored.of(AXES, sta.mean)
    if sta.std is not None and not is_stored:
        arrays["std"] = Stored.of(AXES, sta.std)
        arrays["sem"] = Stored(AXES, sta.std.shape, sta.std.dtype, lambda i: unit_of(sta, i).sem[0])
    if significance is not None:
        arrays |= significance_arrays(significance)
    told = {
        "kind": KIND,
        "sampling_rate": recording.sampling_rate,
        "unit": recording.unit,
        "window": [int(sta.lags[0]), int(sta.lags[-1]) + 1],
        "source": recording.uri,
        "sample_shape": None if recording.sample_shape is None else list(recording.sample_shape),
    }
    return Group(arrays, told | attributes)


def significance_arrays(found: Significance) -> dict[str, Stored]:
    """Arrays of a group: (n_units, n_lags, k) for the k channels that were tested of each unit."""
    axes = ("unit", "lag", "tested")
    names = ("z", "p_values", "significant", "null_mean", "null_std")
    return {
        "tested_channels": Stored.of(("unit", "tested"), found.channels),
        "band": Stored.of(("bound", *axes), found.band),
        **{name: Stored.of(axes, getattr(found, name)) for name in names},
    }


def _tested(line: UnitLine, found: Significance, index: int) -> UnitLine:
    tested = found.channels[index].tolist()
    if line.best_channel not in tested or line.peak_lag is None:
        return line
    column = tested.index(line.best_channel)
    at = index, line.peak_lag - int(found.lags[0]), column
    z, p_value = float(found.z[at]), float(found.p_values[at])
    n_significant = int(found.significant[index, :, column].sum())
    return replace(line, z=z if math.isfinite(z) else None, p_value=p_value, n_significant=n_significant)


def _line(one: SpikeTriggeredAverage, n_spikes: int) -> UnitLine:
    counts = one.unit_ids[0].item(), n_spikes, int(one.n_used.max())
    dropped = {why: int(n[0]) for why, n in one.n_dropped.items()}
    channel = best_channel(one.mean[0])
    if channel is None:
        return UnitLine(*counts, dropped, None, None, None, None, None)
    peak = peak_of(one.mean[0, :, channel])
    lag, rate = int(one.lags[peak.at]), one.recording.sampling_rate
    ms = None if rate is None else 1000.0 * lag / rate
    return UnitLine(*counts, dropped, channel, lag, ms, peak.value, peak.baseline)
