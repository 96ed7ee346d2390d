"""Which lags of a spike-triggered average are more than chance, and how sure its values are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DroppedSpikesWarning
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.average import spike_triggered_average
from lazypipe.models.spike_triggered.question import Question, ask
from lazypipe.models.spike_triggered.result import OnLags, SpikeTriggeredAverage
from lazypipe.models.spike_triggered.shuffling import MOST_SHIFTED, TITLE, Found, Job
from lazypipe.models.spike_triggered.stimulus import (
    checked_channels,
    pieces_of,
    plan_of,
    require_count,
    require_fraction,
    require_seed,
    require_whole,
)
from lazypipe.plan import Plan


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
    average: SpikeTriggeredAverage | None = None,
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
    level : the rate of false discoveries among the lags (and channels) of one unit.
    seed : of the bootstrap. The shifts are all there are, and not drawn.
    shift_block : samples, at most, in which spikes are shifted round. Bounds the memory, and how far slow changes
        of rate or signal can be taken for chance.
    average : the average of the same windows, in memory or in a store, where it is there already: best channels are
        found on it, which saves the pass before the two.
    engine : from ``open_engine``; None works on threads of this process.

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
    Where a best channel is found on the spikes that are tested, the channels passed over count as tests that showed
    nothing, n_lags x n_channels in all: name ``channels`` beforehand for a test that sees more. (The band knows of
    no choice.) ``band`` draws up to 200 blocks of time with replacement: Künsch, Ann. Stat. 17:1217 (1989).

    Two passes, and one before them (the average, unless it is given) to find best channels; two more for each
    further group of units whose sums fit the budget. Memory: 8 bytes a sample of a block for each unit and channel,
    some 60 more for a transform, and the sums of windows of each block of time; nothing grows with the recording but
    16 bytes a spike.

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
    require_seed(seed)
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    asked = checked_channels(channels, question.recording)
    if average is not None:
        require_average_of(question, average)
    with engine_or_own(engine) as running:
        pieces = pieces_of(question.recording, exclude)
        n_units, n_choices = question.windows.n_units, len(asked) if channels is None else 1
        is_averaged = n_choices > 1 and average is None
        if n_choices == 1:
            chosen = np.tile(asked, (n_units, 1))
        elif average is None:
            chosen = best_channels(average_of(question, weights, exclude, running))
        else:
            chosen = best_channels(average)
        job = Job(question, chosen, pieces, shift_block, n_bootstrap, n_choices, running)
        groups = job.groups()
        plan = plan_of(
            TITLE, question, running.host, groups[0].folds, is_averaged + 2 * len(groups),
            8 * 8 * n_units * len(question.lags) * chosen.shape[1],
        )  # fmt: skip
        draws = np.random.default_rng(seed).multinomial(job.n_blocks, [1 / job.n_blocks] * job.n_blocks, n_bootstrap)
        found = [job.find(group, draws.astype(np.float64), confidence, level) for group in groups]
    whole = Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return Significance(
        question.spikes.unit_ids, question.lags, np.where(whole.used[:, None] > 0, chosen, -1), whole.mean,
        whole.null_mean, whole.null_std, whole.z, whole.p_values, whole.significant, np.moveaxis(whole.band, 1, 0),
        whole.used, question.dropped_with(whole.not_finite), job.n_shifts, job.n_blocks, level, confidence,
        question.recording, plan,
    )  # fmt: skip


def require_average_of(question: Question, average: SpikeTriggeredAverage) -> None:
    """ConfigError unless the average is of the same units, lags, channels and windows."""
    dropped = question.dropped_with(average.n_dropped["nan"])
    same = {
        "units": np.array_equal(average.unit_ids, question.spikes.unit_ids),
        "lags": np.array_equal(average.lags, question.lags),
        "channels": average.mean.shape[-1] == question.recording.n_channels,
        "windows": average.n_used.ndim == 1  # edges="nan" counts them lag by lag
        and all(np.array_equal(average.n_dropped[why], n) for why, n in dropped.items()),
    }
    if other := [what for what, is_same in same.items() if not is_same]:
        raise ConfigError(f"average: is of other {other[0]} than asked here. Give that of the same, or leave it out.")


def average_of(
    question: Question, weights: str, exclude: Sequence[tuple[int, int]], engine: Engine
) -> SpikeTriggeredAverage:
    """The mean alone, over all channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedSpikesWarning)  # told already
        return spike_triggered_average(
            question.recording, question.spikes, question.window, nan=question.nan, weights=weights,
            exclude=exclude, spread=False, engine=engine,
        )  # fmt: skip


def best_channels(average: SpikeTriggeredAverage) -> np.ndarray:
    """(n_units, 1) the channel whose average moves most, 0 for a unit without any."""
    return np.maximum(average.best_channel, 0)[:, None]
