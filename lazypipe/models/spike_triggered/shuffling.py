"""The two passes of a test of significance: sums for all shifts of the spikes, and sums block by block of time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from lazypipe.blocks import Run, Span, evenly
from lazypipe.engines import Engine
from lazypipe.errors import MemoryPlanError, PlanError
from lazypipe.io.matrix import Matrix
from lazypipe.models.spike_triggered.passes import (
    chunk_length,
    fold_of_blocks,
    fold_of_runs,
    sums_of_blocks,
    time_blocks,
)
from lazypipe.models.spike_triggered.question import Question
from lazypipe.models.spike_triggered.stimulus import Stimulus, require_data
from lazypipe.plan import FoldPlan, Host, or_say_what_fits, runs_that_fit
from lazypipe.stats.block_sums import MOST_NUMBERS, Sums, SumsByChannel, bootstrap_band
from lazypipe.stats.shift_surrogates import CutRun, ShiftSums, ShiftTotals, fft_size, null_of, shift_blocks
from lazypipe.stats.spike_triggered import block_dtype

TITLE = "spike-triggered significance"
REMEDY = "or choose a shorter shift_block, fewer channels, or a shorter window."
MOST_SHIFTED = 2**20  # samples of a circle
MOST_BLOCKS, LEAST_WINDOWS = 200, 2  # blocks of time of the bootstrap; a block holds at least so many windows
GOOD_RUNS = 4


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
    band: np.ndarray  # (n_units, 2, n_lags, k)
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
    n_choices: int  # channels that the one of a unit was chosen from, for what its average looks like; else 1
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
                f"{recording.uri}: blocks of {n_offsets:,} samples leave no shift that is a window ({length:,}) away "
                f"from 0 on both sides. Shorten the window, raise shift_block, or exclude less."
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
                    found = [Group(units, self.folds(units, host)) for units in evenly(Span(0, n_units), n_groups)]
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
        blocks, n_offsets = self.blocks
        largest = max(fft_size(length) for length in {len(block) for block in blocks})
        return ShiftSums(windows, places, stimulus.channels, n_offsets, largest, stimulus.stored, omit)

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
        n_runs = runs_that_fit(max(1, min(16, len(blocks) // 2)), state, host.memory // 2)
        longest = max(len(block) for block in blocks)
        parts = [blocks[span.slice] for span in evenly(Span(0, len(blocks)), n_runs)]
        cut = tuple(CutRun(i, part[0].start, part[-1].stop, longest, part) for i, part in enumerate(parts))
        ranking = 8 * 8 * self.blocks[1]
        first = fold_of_runs(f"{TITLE}, shifts", shifts, matrix, host, cut, reserved + ranking)

        kept = self.n_blocks * 8 * (len(units) + 1) * len(self.question.lags) * self.channels.shape[1]
        kept += 3 * 8 * self.n_bootstrap * self.n_blocks + 16 * MOST_NUMBERS + state + ranking
        blocks_of_time = self.blocks_of_time(matrix, host)
        second = fold_of_blocks(f"{TITLE}, blocks of time", sums, matrix, host, blocks_of_time, reserved + kept)
        return first, second

    def blocks_of_time(self, matrix: Matrix, host: Host) -> tuple[Run, ...]:
        """Those that the bootstrap draws."""
        step = chunk_length(matrix, len(self.question.lags), host)
        return time_blocks(matrix.shape[0], self.n_blocks, step)

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
        blocks = self.blocks_of_time(stimulus.matrix, self.engine.host)
        parts: list[Sums] = sums_of_blocks(self.engine, sums, stimulus.matrix, blocks, group.folds[1])
        used = np.sum([part.used for part in parts], axis=0)
        not_finite = np.sum([part.not_finite for part in parts], axis=0)
        about = np.zeros_like(shift) if block_dtype(stimulus.stored) == np.int16 else shift  # integers are summed whole
        mean, null_mean, null_std, p_values = np.full((4, *shape), np.nan)
        band = np.full((len(units), 2, n_lags, k), np.nan)
        significant = np.zeros(shape, bool)
        for u in np.flatnonzero(used):
            total = np.stack([part.total[u] for part in parts])
            less = about[places[u]]
            mean[u] = (total.sum(axis=0) / used[u]).reshape(n_lags, k) + less
            counts = np.array([part.used[u] for part in parts], np.float64)
            band[u] = bootstrap_band(counts, total, draws, confidence).reshape(2, n_lags, k) + less
            for i in range(k):
                there = totals.counts[u, i] if totals.counts.size else float(windows[u])
                null = null_of(totals.sums[u, i], there, mean[u, :, i])
                null_mean[u, :, i], null_std[u, :, i], p_values[u, :, i] = null
            significant[u] = discovered(p_values[u], self.n_choices, level)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(null_std > 0, (mean - null_mean) / null_std, np.nan)
        gain, offset = stimulus.gain[places][:, None, :], stimulus.offset[places][:, None, :]
        band = np.sort(band * gain[:, None] + offset[:, None], axis=1)  # a negative gain turns it round
        return Found(
            mean * gain + offset, null_mean * gain + offset, null_std * np.abs(gain), z * np.sign(gain), p_values,
            significant, band, used, not_finite,
        )  # fmt: skip


def discovered(p_values: np.ndarray, n_choices: int, level: float) -> np.ndarray:
    """Which of the p-values of one unit are discoveries, at that rate of false ones.

    Where its channel is the best of several, those that were passed over are tests too, of p-value 1 at worst: of 32
    channels of noise the best one would have significant lags in every other unit.
    """
    passed_over = np.ones(p_values.size * (n_choices - 1))
    adjusted = false_discovery_control(np.concatenate([p_values.ravel(), passed_over]))
    return adjusted[: p_values.size].reshape(p_values.shape) <= level
