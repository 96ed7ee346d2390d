"""Which lags of a spike-triggered average are more than chance, and how sure its values are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from lazypipe.blocks import Span
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import DroppedSpikesWarning, MemoryPlanError, PlanError
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.average import spike_triggered_average
from lazypipe.models.spike_triggered.passes import (
    SumOfRun,
    block_nbytes,
    chunk_length,
    fitting,
    fold_of_runs,
    in_groups,
    time_blocks,
)
from lazypipe.models.spike_triggered.question import Question, ask
from lazypipe.models.spike_triggered.stimulus import (
    OnLags,
    Stimulus,
    checked_channels,
    dropped_of,
    pieces_of,
    plan_of,
    require_count,
    require_data,
    require_fraction,
    require_whole,
)
from lazypipe.plan import FoldPlan, Host, Plan, live_states_of, or_say_what_fits
from lazypipe.stats.block_sums import MOST_NUMBERS, Sums, SumsByChannel, bootstrap_band
from lazypipe.stats.shift_surrogates import CutRun, ShiftSums, ShiftTotals, null_of, shift_blocks
from lazypipe.stats.spike_triggered import block_dtype

TITLE = "spike-triggered significance"
REMEDY = "or choose a shorter shift_block, fewer channels, or a shorter window."
MOST_SHIFTED = 2**20  # samples of a circle
MOST_BLOCKS, LEAST_WINDOWS = 200, 2  # blocks of time of the bootstrap; a block holds at least so many windows
GOOD_RUNS = 4


@dataclass(frozen=True, eq=False)
class Significance(OnLags):
    """What ``spike_triggered_significance`` found; arrays are (n_units, n_lags, k), NaN for units without spikes."""

    unit_ids: np.ndarray  # (n_units,)
    lags: np.ndarray  # (n_lags,) samples from the spike
    channels: np.ndarray  # (n_units, k) of the recording; -1 where a unit has none, as no spike was used
    mean: np.ndarray  # in the recording's units
    null_mean: np.ndarray
    null_std: np.ndarray
    z: np.ndarray  # (mean - null_mean) / null_std
    p_values: np.ndarray  # two-sided
    significant: np.ndarray  # bool
    band: np.ndarray  # (2, n_units, n_lags, k) lower and upper
    n_used: np.ndarray  # (n_units,) spikes
    n_dropped: dict[str, np.ndarray]  # by reason: "edge", "gap", "nan", "beyond_end"; each (n_units,)
    n_shifts: int
    n_blocks: int  # of time, that the bootstrap draws
    level: float
    confidence: float
    recording: Recording
    plan: Plan

    def __repr__(self) -> str:
        n_units, n_lags, k = self.mean.shape
        return (
            f"Significance({n_units:,} x {n_lags:,} x {k:,} (units x lags x channels), {self.n_shifts:,} shifts, "
            f"{int(self.significant.sum()):,} significant at {self.level:g})"
        )


def spike_triggered_significance(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    channels: Sequence[int] | None = None,
    window_unit: str = "samples",
    edges: str = "drop",
    weights: str = "count",
    nan: str = "raise",
    exclude: Sequence[tuple[int, int]] = (),
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    level: float = 0.05,
    seed: int = 0,
    shift_block: int = MOST_SHIFTED,
    engine: Engine | None = None,
) -> Significance:
    """Test the spike-triggered average, lag by lag, against all circular shifts of the spikes; band by bootstrap.

    Parameters
    ----------
    recording, spikes, window, window_unit, weights, exclude : as for ``spike_triggered_average``.
    channels : the same for every unit. None for each unit's best channel: the one whose average moves most
        (largest less smallest value over the lags).
    edges : "drop"; windows in part have no shifted counterpart.
    nan : "raise" at any sample of a chosen channel that is not finite, for spikes are shifted to all of them. "omit"
        leaves such windows out of the mean, and such samples out of the shifted sums.
    n_bootstrap, confidence : draws, and the share of them that the band holds.
    level : of the false discoveries among the lags (and channels) of one unit.
    seed : of the bootstrap. The shifts are all there are, and not drawn.
    shift_block : samples, at most, in which spikes are shifted round. Bounds the memory, and how far slow changes
        of rate or signal can be taken for chance.

    Returns
    -------
    Significance with ``mean``, ``null_mean``, ``null_std``, ``z``, ``p_values``, ``significant`` (each n_units,
    n_lags, k), ``band``, ``channels``, ``n_used``, ``n_dropped``, ``n_shifts``; in the recording's units.

    Notes
    -----
    The null: spikes and signal are independent, but each keeps its own order in time. The recording is cut into
    blocks of ``shift_block`` samples or fewer, of equal length within a stretch and never across a gap or an
    excluded interval (a recording no longer than that is one block); in each block all windows of a unit move on by
    s samples, round the block. Every s counts but those nearer to 0 than the window's length. A p-value is
    (1 + n) / (1 + n_shifts), n the shifts whose mean is as far from the mean of all as the average is. A block much
    shorter than most (they hold a tenth of the samples or less) goes round again: it makes the test the more
    careful. Circular shifts: Perkel, Gerstein & Moore, Biophys. J. 7:419 (1967); Harris, bioRxiv
    2020.11.29.402719. ``significant`` is the procedure of Benjamini & Hochberg, J. R. Stat. Soc. B 57:289 (1995).
    ``band`` draws up to 200 blocks of time with replacement: Künsch, Ann. Stat. 17:1217 (1989).

    Two passes, and one before them (the average) to find best channels; as many again for each group of units
    whose sums fit the budget. Memory: 8 bytes a sample of a block for each unit and channel, some 60 more for a
    transform, and the sums of windows of each block of time; nothing grows with the recording but 16 bytes a spike.

    Raises
    ------
    ConfigError, PlanError, MemoryPlanError : before any data is read.
    DataError : spikes and recording that do not fit together, NaN.
    """
    require_whole(edges, nan)
    require_count("n_bootstrap", n_bootstrap)
    require_count("shift_block", shift_block)
    require_fraction("confidence", confidence)
    require_fraction("level", level)
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    asked = checked_channels(channels, question.recording)
    with engine_or_own(engine) as running:
        pieces = pieces_of(question.recording, exclude)
        n_units, n_passes = question.windows.n_units, 2
        if channels is None and len(asked) > 1:
            chosen, n_passes = best_channels(question, weights, exclude, running), 3
        else:
            chosen = np.tile(asked, (n_units, 1))
        job = Job(question, chosen, pieces, shift_block, n_bootstrap, running)
        groups = job.groups()
        plan = plan_of(
            TITLE, question, running.host, groups[0].folds, n_passes - 2 + 2 * len(groups),
            8 * 8 * n_units * len(question.lags) * chosen.shape[1],
        )  # fmt: skip
        draws = np.random.default_rng(seed).multinomial(job.n_blocks, [1 / job.n_blocks] * job.n_blocks, n_bootstrap)
        found = [job.find(group, draws.astype(np.float64), confidence, level) for group in groups]
    arrays = [np.concatenate(parts, axis=1 if i == 6 else 0) for i, parts in enumerate(zip(*found, strict=True))]
    mean, null_mean, null_std, z, p_values, significant, band, used, not_finite = arrays
    chosen = np.where(used[:, None] > 0, chosen, -1)
    return Significance(
        question.spikes.unit_ids, question.lags, chosen, mean, null_mean, null_std, z, p_values, significant, band, used,
        dropped_of(question, not_finite), job.n_shifts, job.n_blocks, level, confidence, question.recording, plan,
    )  # fmt: skip


def best_channels(question: Question, weights: str, exclude: Sequence[tuple[int, int]], engine: Engine) -> np.ndarray:
    """(n_units, 1) the channel whose average moves most, 0 for a unit without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedSpikesWarning)  # told already
        average = spike_triggered_average(
            question.recording, question.spikes, question.window, nan=question.nan, weights=weights,
            exclude=exclude, spread=False, engine=engine,
        )  # fmt: skip
    return np.maximum(average.best_channel, 0)[:, None]


class Group(NamedTuple):
    """Units whose sums are held at once, and the two passes over the recording for them."""

    units: Span
    folds: tuple[FoldPlan, FoldPlan]


class Found(NamedTuple):
    """Arrays of ``Significance`` for some units."""

    mean: np.ndarray
    null_mean: np.ndarray
    null_std: np.ndarray
    z: np.ndarray
    p_values: np.ndarray
    significant: np.ndarray
    band: np.ndarray
    used: np.ndarray
    not_finite: np.ndarray


@dataclass(frozen=True, eq=False)
class Job:
    """A question, the channels of each unit, and where it is answered."""

    question: Question
    channels: np.ndarray  # (n_units, k)
    pieces: np.ndarray
    shift_block: int
    n_bootstrap: int
    engine: Engine

    @cached_property
    def blocks(self) -> tuple[tuple[Span, ...], int]:
        """Those that spikes are shifted in, and the offsets they share; PlanError where there is no shift."""
        recording, length = self.question.recording, len(self.question.lags)
        stimulus = Stimulus.of(recording, self.channels[0], self.pieces)
        require_data(self.question, stimulus)
        blocks, n_offsets = shift_blocks(self.pieces, self.shift_block, length)
        if n_offsets < 2 * length:
            raise PlanError(
                f"{recording.uri}: blocks of {n_offsets:,} samples leave no shift that is {length:,} samples (a window) "
                f"away from 0 on both sides. Shorten the window, raise shift_block, or exclude less."
            )
        return blocks, n_offsets

    @property
    def n_shifts(self) -> int:
        return self.blocks[1] - 2 * len(self.question.lags) + 1

    @property
    def n_blocks(self) -> int:
        """Blocks of time that the bootstrap draws."""
        n = self.question.recording.n_samples // (LEAST_WINDOWS * len(self.question.lags))
        return max(2, min(n, MOST_BLOCKS))

    def groups(self) -> list[Group]:
        """The fewest that let several tasks sum at once, else the fewest that fit; MemoryPlanError if none does."""
        n_units = self.question.windows.n_units

        def make(host: Host) -> list[Group]:
            kept: list[Group] | None = None
            error: MemoryPlanError | None = None
            for n_groups in dict.fromkeys([*(2**i for i in range(n_units.bit_length()) if 2**i < n_units), n_units]):
                try:
                    found = [Group(units, self.folds(units, host)) for units in in_groups(n_units, n_groups)]
                except MemoryPlanError as refused:
                    error = refused
                    continue
                kept = kept or found
                if len(found[0].folds[0].runs) >= min(GOOD_RUNS, len(self.blocks[0])):
                    return found
            if kept is None:
                assert error is not None
                raise error
            return kept

        return or_say_what_fits(make, self.engine.host, REMEDY)

    def stimulus(self, units: Span) -> tuple[Stimulus, np.ndarray]:
        """The channels of some units, and (n_units, k) where each of theirs is among them."""
        channels, places = np.unique(self.channels[units.slice], return_inverse=True)
        return Stimulus.of(self.question.recording, channels, self.pieces), places.reshape(len(units), -1)

    def shifts(self, units: Span) -> ShiftSums:
        """The statistic of all shifts."""
        stimulus, places = self.stimulus(units)
        windows, omit = self.question.windows.of_units(units), self.question.nan == "omit"
        return ShiftSums(windows, places, stimulus.channels, self.blocks[1], stimulus.stored, omit)

    def sums(self, units: Span, shift: np.ndarray) -> SumsByChannel:
        """The statistic of the windows as they are."""
        stimulus, places = self.stimulus(units)
        windows = self.question.windows.of_units(units)
        return SumsByChannel.of(windows, places, len(shift), stimulus.stored, shift, self.question.nan)

    def folds(self, units: Span, host: Host) -> tuple[FoldPlan, FoldPlan]:
        """The plans of both passes."""
        stimulus, _ = self.stimulus(units)
        matrix, shifts = stimulus.matrix, self.shifts(units)
        sums = self.sums(units, np.zeros(len(stimulus.channels)))
        answer = 8 * 9 * len(units) * len(self.question.lags) * self.channels.shape[1]
        reserved = self.question.nbytes + answer
        state = shifts.state_nbytes(*matrix.shape)
        blocks = self.blocks[0]
        n_runs = max(1, min(16, len(blocks) // 2))
        while n_runs > 1 and live_states_of(n_runs) * state > host.memory // 2:
            n_runs //= 2
        longest = max(len(block) for block in blocks)
        parts = [blocks[span.slice] for span in in_groups(len(blocks), n_runs)]
        cut = tuple(CutRun(i, part[0].start, part[-1].stop, longest, part) for i, part in enumerate(parts))
        ranking = 8 * 8 * self.blocks[1]
        first = fold_of_runs(f"{TITLE}, shifts", shifts, matrix, host, cut, reserved + ranking)

        step = chunk_length(matrix, sums.reads.before, host)
        spans = time_blocks(matrix.shape[0], self.n_blocks, step)
        each = sums.state_nbytes(*matrix.shape)
        task = 2 * each + block_nbytes(sums, matrix, min(step, spans[0].stop - spans[0].start + 1))
        task += 0 if host.shared else sums.nbytes
        kept = self.n_blocks * 8 * (len(units) + 1) * len(self.question.lags) * self.channels.shape[1]
        kept += 3 * 8 * self.n_bootstrap * self.n_blocks + 16 * MOST_NUMBERS + state + ranking
        second = fitting(f"{TITLE}, blocks of time", matrix, host, spans, task, reserved + kept)
        return first, second

    def find(self, group: Group, draws: np.ndarray, confidence: float, level: float) -> Found:
        """Both passes, and what follows from their sums."""
        units = group.units
        stimulus, places = self.stimulus(units)
        totals: ShiftTotals = self.engine.fold(self.shifts(units), stimulus.matrix, group.folds[0])
        n_lags, k = len(self.question.lags), self.channels.shape[1]
        shape = len(units), n_lags, k
        windows = np.diff(self.question.windows.edges)[units.slice]
        shift = stimulus.shift()
        sums = self.sums(units, shift)
        parts: list[Sums] = list(self.engine.map(SumOfRun(sums, stimulus.matrix), group.folds[1].runs, group.folds[1]))
        used, not_finite = sum(part.used for part in parts), sum(part.not_finite for part in parts)
        about = np.zeros_like(shift) if block_dtype(stimulus.stored) == np.int16 else shift  # integers are summed whole
        mean, null_mean, null_std, p_values = np.full((4, *shape), np.nan)
        band = np.full((2, *shape), np.nan)
        significant = np.zeros(shape, bool)
        for u in np.flatnonzero(used):
            total = np.stack([part.total[u] for part in parts])
            less = about[places[u]]
            mean[u] = (total.sum(axis=0) / used[u]).reshape(n_lags, k) + less
            counts = np.array([part.used[u] for part in parts], np.float64)
            band[:, u] = bootstrap_band(counts, total, draws, confidence).reshape(2, n_lags, k) + less
            for i in range(k):
                there = totals.counts[u, i] if totals.counts.size else float(windows[u])
                null = null_of(totals.sums[u, i], there, mean[u, :, i])
                null_mean[u, :, i], null_std[u, :, i], p_values[u, :, i] = null
            significant[u] = false_discovery_control(p_values[u], axis=None).reshape(n_lags, k) <= level
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(null_std > 0, (mean - null_mean) / null_std, np.nan)
        gain, offset = stimulus.gain[places][:, None, :], stimulus.offset[places][:, None, :]
        band = np.sort(band * gain + offset, axis=0)  # a negative gain turns it round
        return Found(
            mean * gain + offset, null_mean * gain + offset, null_std * np.abs(gain), z * np.sign(gain), p_values,
            significant, band, np.asarray(used), np.asarray(not_finite),
        )  # fmt: skip
