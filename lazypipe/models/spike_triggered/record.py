"""What a result folder keeps of a spike-triggered average: its arrays, for Zarr, and a line a unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lazypipe.io.spikes import Spikes
from lazypipe.models.spike_triggered.average import SpikeTriggeredAverage
from lazypipe.results import Group, Stored, Table
from lazypipe.stats.peaks import peak_of

AXES = ("unit", "lag", "channel")


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

    def cells(self) -> dict[str, Any]:
        """Flat: ``dropped_edge`` and so on."""
        found = asdict(self)
        dropped = found.pop("dropped")
        at = list(found).index("best_channel")
        items = list(found.items())
        return dict(items[:at]) | {f"dropped_{why}": n for why, n in dropped.items()} | dict(items[at:])


def lines_of(sta: SpikeTriggeredAverage, spikes: Spikes) -> list[UnitLine]:
    """A line a unit, in their order; reads one unit at a time."""
    return [_line(one, n) for one, n in zip(units_of(sta), spikes.counts.tolist(), strict=True)]


def table_of(lines: list[UnitLine]) -> Table:
    """The lines as rows, after a head."""
    cells = [line.cells() for line in lines]
    return [list(cells[0]), *(["" if value is None else value for value in row.values()] for row in cells)]


def group_of(sta: SpikeTriggeredAverage, attributes: dict[str, Any]) -> Group:
    """``mean``, ``std``, ``sem`` (n_units, n_lags, n_channels), written unit by unit, and what they are of."""
    recording = sta.recording
    arrays = {
        "unit_ids": Stored.of(("unit",), sta.unit_ids),
        "lags": Stored.of(("lag",), sta.lags),
        "n_used": Stored.of(AXES[: sta.n_used.ndim], sta.n_used),
    }
    arrays |= {f"n_dropped_{why}": Stored.of(("unit",), n) for why, n in sta.n_dropped.items()}
    if recording.sampling_rate is not None:
        arrays["times"] = Stored.of(("lag",), sta.times)
    arrays["mean"] = Stored.of(AXES, sta.mean)
    if sta.std is not None:
        arrays["std"] = Stored.of(AXES, sta.std)
        arrays["sem"] = Stored(AXES, sta.std.shape, sta.std.dtype, lambda i: unit_of(sta, i).sem[0])  # type: ignore[index]
    told = {
        "kind": "lazypipe spike-triggered average",
        "sampling_rate": recording.sampling_rate,
        "unit": recording.unit,
        "window": [int(sta.lags[0]), int(sta.lags[-1]) + 1],
        "source": recording.uri,
        "sample_shape": None if recording.sample_shape is None else list(recording.sample_shape),
    }
    return Group(arrays, told | attributes)


def units_of(sta: SpikeTriggeredAverage) -> Iterator[SpikeTriggeredAverage]:
    """The average of each unit alone."""
    return (unit_of(sta, i) for i in range(len(sta.unit_ids)))


def unit_of(sta: SpikeTriggeredAverage, index: int) -> SpikeTriggeredAverage:
    """The average of the unit at that place alone, in the memory of the whole."""
    part = slice(index, index + 1)
    return replace(
        sta,
        unit_ids=sta.unit_ids[part],
        mean=np.asarray(sta.mean[part]),
        std=None if sta.std is None else np.asarray(sta.std[part]),
        n_used=sta.n_used[part],
        n_dropped={why: n[part] for why, n in sta.n_dropped.items()},
    )


def _line(one: SpikeTriggeredAverage, n_spikes: int) -> UnitLine:
    counts = one.unit_ids[0].item(), n_spikes, int(one.n_used.max())
    dropped = {why: int(n[0]) for why, n in one.n_dropped.items()}
    channel = int(one.best_channel[0])
    peak = None if channel < 0 else peak_of(one.mean[0, :, channel])
    if peak is None:
        return UnitLine(*counts, dropped, None, None, None, None, None)
    lag, rate = int(one.lags[peak.index]), one.recording.sampling_rate
    ms = None if rate is None else 1000.0 * lag / rate
    return UnitLine(*counts, dropped, channel, lag, ms, peak.value, peak.baseline)
