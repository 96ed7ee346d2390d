"""Spike-triggered averages of all units over all channels, in one reading of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Block, Run, Span
from lazypipe.engines import Engine, engine_or_own
from lazypipe.engines.tasks import fold_windows
from lazypipe.errors import ConfigError
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.planning import Tile, WindowPlan, part_of, plan_windows
from lazypipe.models.spike_triggered.question import Question, ask
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits
from lazypipe.stats.spike_triggered import SpikeTriggered, WindowMoments, WindowSums, block_dtype

TITLE = "spike-triggered average"
REMEDY = "or ask for fewer units, channels or lags, dtype='float32', or spread=False."
SHIFT_ROWS = 256
RESULTS = ("float64", "float32")


@dataclass(frozen=True, eq=False)
class SpikeTriggeredAverage:
    """What ``spike_triggered_average`` found; arrays are (n_units, n_lags, n_channels)."""

    unit_ids: np.ndarray  # (n_units,)
    lags: np.ndarray  # (n_lags,) samples from the spike, which is at 0
    mean: np.ndarray
    std: np.ndarray | None  # dividing by n_used - ddof; NaN where that is not above 0
    n_used: np.ndarray  # (n_units,) spikes; (n_units, n_lags) with edges="nan"
    n_dropped: dict[str, np.ndarray]  # by reason: "edge", "gap", "nan", "beyond_end"; each (n_units,)
    recording: Recording
    plan: Plan

    @property
    def times(self) -> np.ndarray:
        """(n_lags,) seconds from the spike. ConfigError where the recording has no sampling rate."""
        rate = self.recording.sampling_rate
        if rate is None:
            raise ConfigError(f"{self.recording.uri}: its sampling rate is not known. Open it with sampling_rate=.")
        return self.lags / rate

    @property
    def sem(self) -> np.ndarray | None:
        """Standard error of the mean: ``std / sqrt(n_used)``; computed anew each time."""
        if self.std is None:
            return None
        n = self.n_used[:, None, None] if self.n_used.ndim == 1 else self.n_used[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.std / np.sqrt(n).astype(self.std.dtype)

    @property
    def best_channel(self) -> np.ndarray:
        """(n_units,) the channel whose mean moves most between its lags; -1 where no spike was used."""
        best = np.full(len(self.unit_ids), -1)
        for i, mean in enumerate(self.mean):
            moved = mean.max(axis=0) - mean.min(axis=0)
            if not np.isnan(moved).all():
                best[i] = np.nanargmax(moved)
        return best

    def in_shape(self, values: np.ndarray) -> np.ndarray:
        """An array (..., n_channels) in the shape of a sample: (..., height, width) of a movie."""
        shape = self.recording.sample_shape or (self.recording.n_channels,)
        return values.reshape(*values.shape[:-1], *shape)

    def __repr__(self) -> str:
        used = self.n_used if self.n_used.ndim == 1 else self.n_used.max(axis=1)
        dropped = ", ".join(f"{int(n.sum()):,} {why}" for why, n in self.n_dropped.items() if n.any())
        shape = " x ".join(f"{n:,}" for n in self.mean.shape)
        return (
            f"SpikeTriggeredAverage({shape} (units x lags x channels), {int(used.sum()):,} spikes used"
            + (f", dropped: {dropped})" if dropped else ")")
        )


def spike_triggered_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    window_unit: str = "samples",
    edges: str = "drop",
    weights: str = "count",
    nan: str = "raise",
    exclude: Sequence[tuple[int, int]] = (),
    spread: bool = True,
    ddof: int = 1,
    dtype: str = "float64",
    chunk_length: int | None = None,
    engine: Engine | None = None,
) -> SpikeTriggeredAverage:
    """Mean, standard deviation and standard error of a recording around the spikes of each unit."""
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    with engine_or_own(engine) as running:
        statistic = _statistic(question, spread, ddof, dtype, _shift(question.recording))
        planned, plan = _plan(question, statistic, running, chunk_length)
        found = _compute(question, statistic, running, planned)
    return _result(question, found, plan)


def plan_spike_triggered_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    engine: Engine,
    spread: bool = True,
    dtype: str = "float64",
    chunk_length: int | None = None,
    **options: Any,
) -> Plan:
    """What ``spike_triggered_average`` would take on ``engine``: from metadata and the spikes."""
    question = ask(recording, spikes, window, **options)
    shift = np.zeros(question.recording.n_channels)
    return _plan(question, _statistic(question, spread, 1, dtype, shift), engine, chunk_length)[1]


def _statistic(question: Question, spread: bool, ddof: int, dtype: str, shift: np.ndarray | None) -> SpikeTriggered:
    if dtype not in RESULTS:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(RESULTS)}.")
    if not isinstance(ddof, int | float | np.integer | np.floating) or not ddof >= 0:
        raise ConfigError(f"ddof: {ddof!r} is no number of 0 or above. Use 1 (unbiased) or 0.")
    recording = question.recording
    return SpikeTriggered(
        question.windows, recording.columns, recording.dtype.name, shift, spread, ddof, question.nan, dtype
    )


def _plan(
    question: Question, statistic: SpikeTriggered, engine: Engine, chunk_length: int | None
) -> tuple[WindowPlan, Plan]:
    if chunk_length is not None and chunk_length < 1:
        raise ConfigError(f"chunk_length: {chunk_length} is no number of samples. Give 1 or more, or leave it out.")
    recording, matrix = question.recording, question.recording.matrix
    n_sums = question.windows.n_units * question.windows.length * recording.n_channels
    output = n_sums * np.dtype(statistic.result).itemsize * (2 if statistic.spread else 1)
    reserved = question.nbytes + output

    def make(host: Host) -> WindowPlan:
        return plan_windows(TITLE, statistic, matrix, host, engine.slots, reserved, chunk_length)

    planned = or_say_what_fits(make, engine.host, REMEDY)
    passes = max(1, len(planned.tiles))
    plan = Plan(
        TITLE, matrix.uri, (recording.n_samples, recording.n_channels), str(matrix.dtype), engine.host,
        (planned.fold,), passes, output_nbytes=output, nbytes=matrix.nbytes,
    )  # fmt: skip
    return planned, plan


def _compute(
    question: Question, statistic: SpikeTriggered, engine: Engine, planned: WindowPlan
) -> WindowMoments:
    matrix = question.recording.matrix
    if not planned.tiles:
        total = engine.fold(statistic, matrix, planned.fold)
        return statistic.moments(with_open_windows(statistic, matrix, total))
    work = MakeTile(statistic, matrix, planned.fold.step)
    return _joined(statistic, planned.tiles, engine.map(work, planned.tiles, planned.fold))


@dataclass(frozen=True, eq=False)
class MakeTile:
    """A task: the moments of one tile, from the whole recording."""

    statistic: SpikeTriggered
    matrix: Matrix
    step: int

    def __call__(self, tile: Tile) -> WindowMoments:
        part = part_of(self.statistic, tile)
        total = fold_windows(part, self.matrix, Run(0, 0, self.matrix.shape[0], self.step))
        return part.moments(with_open_windows(part, self.matrix, total))


def with_open_windows(statistic: SpikeTriggered, matrix: Matrix, total: WindowSums) -> WindowSums:
    """``total`` and the windows that the end of the recording cuts off, where these are wanted."""
    n_rows = matrix.shape[0]
    if not len(statistic.windows.clipped_of(Span(n_rows, n_rows + 1)).unit):
        return total
    reads = statistic.reads
    rows = Span(max(0, n_rows - reads.before), n_rows)
    values = np.empty((len(rows), len(reads.columns)), reads.dtype)
    with matrix.open() as reader:
        reader.read(rows, reads.columns, values)
    return statistic.add_open(total, Block(values, Span(n_rows, n_rows), reads.columns, matrix.uri, len(rows)))


def _joined(statistic: SpikeTriggered, tiles: Sequence[Tile], found: Iterable[WindowMoments]) -> WindowMoments:
    """The tiles in one; each is let go of as it comes."""
    shape = statistic.windows.n_units, statistic.windows.length, len(statistic.columns)
    mean = np.empty(shape, statistic.result)
    std = np.empty(shape, statistic.result) if statistic.spread else None
    used: np.ndarray | None = None
    not_finite = np.zeros(shape[0], np.int64)
    for tile, part in zip(tiles, found, strict=True):
        place = tile.units.slice, slice(None), tile.channels.slice
        mean[place] = part.mean
        if std is not None:
            std[place] = part.std
        if used is None:
            used = np.zeros((shape[0], part.used.shape[1]), np.int64)
        used[tile.units.slice] = part.used
        not_finite[tile.units.slice] = part.not_finite
    assert used is not None
    return WindowMoments(used, not_finite, mean, std)


def _result(question: Question, found: WindowMoments, plan: Plan) -> SpikeTriggeredAverage:
    recording = question.recording
    for array in (found.mean, found.std):
        if array is not None and recording.gain is not None:
            np.multiply(array, recording.gain, out=array)
    if found.std is not None and recording.gain is not None:
        np.abs(found.std, out=found.std)
    if recording.offset is not None:
        np.add(found.mean, recording.offset, out=found.mean)
    edge, gap, beyond_end = question.dropped
    n_lags = len(question.lags)
    used = found.used[:, 0] if question.edges == "drop" else np.broadcast_to(found.used, (len(edge), n_lags)).copy()
    return SpikeTriggeredAverage(
        question.spikes.unit_ids,
        question.lags,
        found.mean,
        found.std,
        used,
        {"edge": edge, "gap": gap, "nan": found.not_finite, "beyond_end": beyond_end},
        recording,
        plan,
    )


def _shift(recording: Recording) -> np.ndarray | None:
    """A value (n_channels,) that each channel takes near its begin, to take off floats before they are squared.

    A value of the data, and not a mean: differences of numbers with few digits then have few digits too, and
    sums of them round nothing.
    """
    if block_dtype(recording.dtype) == np.int16:
        return None
    rows = Span(0, min(SHIFT_ROWS, recording.n_samples))
    values = np.empty((len(rows), recording.n_channels), np.float64)
    with recording.matrix.open() as reader:
        reader.read(rows, recording.columns, values)
    values[~np.isfinite(values)] = np.nan
    values.sort(axis=0)  # NaN last
    middle = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 0) // 2
    return np.nan_to_num(values[middle, np.arange(values.shape[1])])
