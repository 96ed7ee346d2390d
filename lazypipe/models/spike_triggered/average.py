"""Spike-triggered averages of all units over all channels, in one reading of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.blocks import Block, Run, Span
from lazypipe.checkpoint import StateFolder
from lazypipe.engines import Engine, engine_or_own
from lazypipe.engines.checkpointed import Beside, Checkpointed
from lazypipe.engines.tasks import fold_windows
from lazypipe.errors import ConfigError
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.planning import (
    Tile,
    WindowPlan,
    part_of,
    plan_in_time,
    plan_saved,
    plan_windows,
)
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
    n_new_samples: int  # read now; the others came from the state

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
    state: str | Path | None = None,
    restart: bool = False,
    engine: Engine | None = None,
) -> SpikeTriggeredAverage:
    """Mean, standard deviation and standard error of a recording around the spikes of each unit.

    Parameters
    ----------
    recording : Recording, path or array: (n_samples,), (n_samples, n_channels) or (n_samples, height, width).
    spikes : Spikes, path, {unit: samples} or samples (n,) of one unit.
    window : (start, stop) from the spike, half open: (-149, 1) ends with the spike's own sample.
    window_unit : "samples", or "s" or "ms", rounded to samples once.
    edges : windows that reach beyond the recording, a gap or what is excluded: "drop" them, or use the lags that
        were recorded ("nan": a lag that none has is NaN).
    weights : several spikes of a unit in one sample "count" each, or as one ("binary").
    nan : a value that is not finite within a window is an error ("raise"), a reason to leave the window out, all
        its channels ("omit"), or spoils its lag and channel alone ("propagate").
    exclude : (start, stop) intervals in samples, half open, that no window may touch, as if they were gaps.
    spread : False computes the mean alone, in half the memory.
    ddof : the variance divides by n - ddof.
    dtype : of mean and deviation, "float64" or "float32"; sums are exact, or in float64, before that.
    chunk_length : samples a block; None takes what suits the budget. Changes no bit of the answer.
    state : a folder that keeps the sums after every epoch of blocks. Called again after a kill it redoes one; on
        a recording that grew it reads the new samples alone. ``restart`` forgets it first.

    Returns
    -------
    SpikeTriggeredAverage with ``unit_ids``, ``lags``, ``times``, ``mean``, ``std``, ``sem``, ``n_used``,
    ``n_dropped``; in the recording's units (µV) where it tells them.

    Notes
    -----
    One pass over the recording where the sums of all units fit the budget a few times, else a pass a tile of
    units (and channels); see ``plan_spike_triggered_average``. Integers of 16 bits or fewer are summed as
    integers, exactly; floats in float64 about a value of the data. Memory: blocks, and 8 bytes (12 where squares
    grow beyond 32 bits) a sum of integers, 16 of floats; independent of the recording's length but for 16 bytes
    a spike. The estimator is that of Dayan & Abbott, Theoretical Neuroscience (2001), chapter 1.

    Raises
    ------
    ConfigError, MemoryPlanError : before any data is read.
    DataError : spikes and recording that do not fit together, NaN, a state of something else, data that changed.
    """
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    with engine_or_own(engine) as running:
        job = Job(question, _statistic(question, spread, ddof, dtype), running, chunk_length, state is not None)
        planned, plan = job.plan()
        if state is None:
            found, n_new = job.compute(planned), question.recording.n_samples
        else:
            with StateFolder(state, restart) as folder:
                found, n_new = job.resume(planned, folder)
    return _result(question, found, plan, n_new)


def plan_spike_triggered_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    engine: Engine,
    spread: bool = True,
    ddof: int = 1,
    dtype: str = "float64",
    chunk_length: int | None = None,
    state: str | Path | None = None,
    **options: Any,
) -> Plan:
    """What ``spike_triggered_average`` would take on ``engine``: from metadata and the spikes."""
    question = ask(recording, spikes, window, **options)
    return Job(question, _statistic(question, spread, ddof, dtype), engine, chunk_length, state is not None).plan()[1]


def _statistic(question: Question, spread: bool, ddof: int, dtype: str) -> SpikeTriggered:
    if dtype not in RESULTS:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(RESULTS)}.")
    if not isinstance(ddof, int | float | np.integer | np.floating) or not ddof >= 0:
        raise ConfigError(f"ddof: {ddof!r} is no number of 0 or above. Use 1 (unbiased) or 0.")
    recording = question.recording
    return SpikeTriggered(
        question.windows, recording.columns, recording.dtype.name, None, spread, ddof, question.nan, dtype
    )


@dataclass(frozen=True, eq=False)
class Job:
    """A question, how it is answered, and where."""

    question: Question
    statistic: SpikeTriggered  # yet without its shift
    engine: Engine
    chunk_length: int | None
    saves: bool

    @property
    def matrix(self) -> Matrix:
        return self.question.recording.matrix

    def plan(self) -> tuple[WindowPlan, Plan]:
        """MemoryPlanError, with what would do, where nothing fits the budget."""
        if self.chunk_length is not None and self.chunk_length < 1:
            raise ConfigError(
                f"chunk_length: {self.chunk_length} is no number of samples. Give 1 or more, or leave it out."
            )
        recording, windows = self.question.recording, self.question.windows
        n_sums = windows.n_units * windows.length * recording.n_channels
        output = n_sums * np.dtype(self.statistic.result).itemsize * (2 if self.statistic.spread else 1)
        reserved = self.question.nbytes + output

        def make(host: Host) -> WindowPlan:
            if self.saves:
                return plan_saved(TITLE, self.statistic, self.matrix, host, reserved, self.chunk_length)[0]
            return plan_windows(
                TITLE, self.statistic, self.matrix, host, self.engine.slots, reserved, self.chunk_length
            )

        planned = or_say_what_fits(make, self.engine.host, REMEDY)
        plan = Plan(
            TITLE, recording.uri, (recording.n_samples, recording.n_channels), str(recording.dtype), self.engine.host,
            (planned.fold,), max(1, len(planned.tiles)), output_nbytes=output, nbytes=self.matrix.nbytes,
        )  # fmt: skip
        return planned, plan

    def compute(self, planned: WindowPlan) -> WindowMoments:
        """In one fold, or a tile a task."""
        statistic = replace(self.statistic, shift=_shift(self.question.recording))
        if not planned.tiles:
            total = self.engine.fold(statistic, self.matrix, planned.fold)
            return statistic.moments(with_open_windows(statistic, self.matrix, total))
        work = MakeTile(statistic, self.matrix, planned.fold.step)
        return _joined(statistic, planned.tiles, self.engine.map(work, planned.tiles, planned.fold))

    def resume(self, planned: WindowPlan, folder: StateFolder) -> tuple[WindowMoments, int]:
        """From what the folder holds: tile after tile; and how many samples were read for it."""
        done = [self._resume_tile(tile, i, len(planned.tiles), folder) for i, tile in enumerate(planned.tiles)]
        return _joined(self.statistic, planned.tiles, (found for found, _ in done)), max(n for _, n in done)

    def _resume_tile(self, tile: Tile, i: int, n_tiles: int, folder: StateFolder) -> tuple[WindowMoments, int]:
        question, recording = self.question, self.question.recording
        part = part_of(self.statistic, tile)
        identity = {
            "statistic": "spike-triggered moments",
            "source": recording.uri,
            "n_channels": recording.n_channels,
            "dtype": str(recording.dtype),
            "window": list(question.window),
            "edges": question.edges,
            "nan": question.nan,
            "spread": self.statistic.spread,
            "units": question.spikes.unit_ids.tolist(),
            "tile": [tile.units.start, tile.units.stop, tile.channels.start, tile.channels.stop],
        }
        beside = Beside("the spikes", part.windows.belonging_to)
        reserved = self.question.nbytes
        host, chunk = self.engine.host, self.chunk_length
        epoch = plan_saved(TITLE, part, self.matrix, host, reserved, chunk)[1]
        title = TITLE if n_tiles == 1 else f"{TITLE}, tile {i + 1} of {n_tiles}"
        saved = Checkpointed(folder, f"spikes-{i}" if n_tiles > 1 else "spikes", identity, beside, epoch)

        def context() -> dict[str, np.ndarray]:
            shift = _shift(recording)
            return {} if shift is None else {"shift": shift[tile.channels.slice]}

        def make(context: dict[str, np.ndarray]) -> SpikeTriggered:
            nonlocal part
            part = replace(part, shift=context.get("shift"))  # the saved one, where there is a state
            return part

        def cut(span: Span) -> FoldPlan:
            return plan_in_time(title, part, self.matrix, host, reserved, chunk, span)

        total, n_new = saved.fold(self.engine, SpikeTriggered, make, context, self.matrix, cut)
        return part.moments(with_open_windows(part, self.matrix, total)), n_new


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


def _result(question: Question, found: WindowMoments, plan: Plan, n_new: int) -> SpikeTriggeredAverage:
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
        n_new,
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
