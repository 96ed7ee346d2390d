"""Whitened averages: the linear filter of a unit, with the stimulus's own correlations undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lazypipe.blocks import Run
from lazypipe.checks import from_0
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.covariance import require_regular
from lazypipe.models.spike_triggered.passes import (
    REMEDY,
    chunk_length,
    fold_of_blocks,
    sums_of_blocks,
    time_blocks,
)
from lazypipe.models.spike_triggered.prior import Prior
from lazypipe.models.spike_triggered.question import ask
from lazypipe.models.spike_triggered.result import OnLags
from lazypipe.models.spike_triggered.spectra import in_units
from lazypipe.models.spike_triggered.stimulus import plan_of, require_whole
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits
from lazypipe.stats.block_sums import SumsByChannel
from lazypipe.stats.spike_triggered import block_dtype
from lazypipe.stats.window_products import Moments

TITLE = "whitened average"
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SEGMENTS = 5  # of time: each is predicted from the others
PARTS = 8  # of a segment, so that several tasks share one


@dataclass(frozen=True, eq=False)
class WhitenedAverage(OnLags):
    """What ``whitened_average`` found."""

    unit_ids: np.ndarray  # (n_units,)
    lags: np.ndarray  # (n_lags,) samples from the spike
    channels: np.ndarray  # (k,) of the recording
    filter: np.ndarray  # (n_units, n_lags, k), per unit of the stimulus; NaN for units without spikes
    mean: np.ndarray  # (n_units, n_lags, k) the average itself
    prior_mean: np.ndarray  # (n_lags, k) of all windows
    prior_covariance: np.ndarray  # (D, D), D = n_lags x k
    ridge: np.ndarray  # (n_units,) that was used, relative to the mean variance
    ridges: np.ndarray  # (n_ridges,) that were asked for
    scores: np.ndarray | None  # (n_units, n_ridges) of the prediction of held-out time; None for one ridge
    n_windows: int  # in the recording
    n_used: np.ndarray  # (n_units,) spikes
    n_dropped: dict[str, np.ndarray]  # by reason: "edge", "gap", "nan", "beyond_end"; each (n_units,)
    recording: Recording
    plan: Plan

    def __repr__(self) -> str:
        shape = " x ".join(f"{n:,}" for n in self.filter.shape)
        used = ", ".join(f"{ridge:g}" for ridge in np.unique(self.ridge[np.isfinite(self.ridge)]))
        return f"WhitenedAverage({shape} (units x lags x channels), ridge {used or 'none'})"


def whitened_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    ridge: float | Sequence[float] = RIDGES,
    channels: Sequence[int] | None = None,
    window_unit: str = "samples",
    edges: str = "drop",
    weights: str = "count",
    nan: str = "raise",
    exclude: Sequence[tuple[int, int]] = (),
    engine: Engine | None = None,
) -> WhitenedAverage:
    """The filter ``(C + ridge trace(C) / D)^-1 (average - mean)``, C the covariance of all windows of the recording.

    Parameters
    ----------
    recording, spikes, window, window_unit, weights, exclude : as for ``spike_triggered_average``.
    ridge : relative to the mean variance; 0 for none. Of several the best for each unit is taken, by prediction.
    channels : the same for every unit; None for all. A window of n_lags x k samples has D dimensions.
    edges : "drop"; windows in part have no covariance.
    nan : "raise" at any sample that is not finite, or "omit" the windows that hold one, as if it were a gap.
    engine : from ``open_engine``; None works on threads of this process.

    Returns
    -------
    WhitenedAverage with ``filter`` and ``mean`` (n_units, n_lags, k), ``ridge`` (n_units,), ``scores``,
    ``prior_mean``, ``prior_covariance``.

    Notes
    -----
    Where the stimulus has correlations, the average is the filter blurred by them; the filter is what linear
    regression of the spike count on the window gives, but for the rate as a factor. For a linear filter before a
    nonlinearity it is unbiased if the stimulus is elliptically distributed (Paninski, Network 14:437, 2003). Ridge
    and choice by held-out data: Theunissen et al., Network 12:289 (2001).

    ``scores``: the recording is cut into 5 segments of time; the count of spikes in each is predicted from the
    filter, mean and rate of the others; a score is the mean squared error that the filter takes off that of the
    constant rate, over the rate (which is about the variance of the count: about the share of it explained).

    Passes: one over all windows (one more with nan="omit", for floats) and one for the spikes. Memory on the driver:
    some 8 matrices of 8 D² bytes, 13 with several ridges. Time: an eigendecomposition, 6 with several ridges.

    Raises
    ------
    ConfigError, PlanError, MemoryPlanError : before any data is read. D above 4,096 is refused.
    DataError : NaN; a covariance that is singular, with a ridge of 0.
    """
    require_whole(edges, nan)
    ridges = checked_ridges(ridge)
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    prior = Prior.of(question, channels, exclude, SEGMENTS if len(ridges) > 1 else 1)
    n_units, n_lags, size = prior.windows.n_units, prior.length, prior.n_dimensions
    answer = 8 * (size**2 + 3 * n_units * size)
    with engine_or_own(engine) as running:
        folds = or_say_what_fits(lambda host: _plan(prior, host, answer), running.host, REMEDY)
        plan = plan_of(TITLE, question, running.host, folds, len(folds), answer)
        prior = prior.ready(running, folds[:-1])
        segments = _segments(prior, running, folds)
    whole = _sum(segments)
    covariance = in_units(whole.windows, prior.scale)
    values, vectors = np.linalg.eigh(covariance)
    require_regular(values, float(ridges.min()), question.recording.uri)

    scores, ridge_of = None, np.full(n_units, ridges[0])
    if len(ridges) > 1:
        scores = _scores(segments, ridges, prior.scale)
        ridge_of = ridges[np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1)]
    used = whole.spikes > 0
    ridge_of = np.where(used, ridge_of, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = whole.sums / whole.spikes[:, None]
    change = (mean - whole.windows.mean) * prior.scale
    filters = ((change @ vectors) / (values + ridge_of[:, None] * values.mean())) @ vectors.T
    shape = n_units, n_lags, len(prior.shift)
    return WhitenedAverage(
        question.spikes.unit_ids, question.lags, prior.stimulus.channels, filters.reshape(shape),
        prior.in_units(mean).reshape(shape), prior.in_units(whole.windows.mean).reshape(shape[1:]), covariance,
        ridge_of, ridges, scores, whole.windows.n, whole.spikes, question.dropped_with(prior.not_finite),
        question.recording, plan,
    )  # fmt: skip


def checked_ridges(ridge: Any) -> np.ndarray:
    """(n_ridges,) float64; ConfigError unless they are numbers of 0 or above."""
    several = [ridge] if np.ndim(ridge) == 0 else list(ridge)
    if not several:
        raise ConfigError("ridge: is empty. Give at least one number of 0 or above.")
    return np.array([from_0(one, "ridge") for one in several])


class Segment(NamedTuple):
    """Sums over a part of the recording, about the shift, of stored values."""

    windows: Moments  # of all windows
    spikes: np.ndarray  # (n_units,)
    sums: np.ndarray  # (n_units, D) of the windows around them


def _sum(segments: Sequence[Segment]) -> Segment:
    first, *others = segments
    for other in others:
        first = Segment(first.windows + other.windows, first.spikes + other.spikes, first.sums + other.sums)
    return first


def _sums(prior: Prior) -> SumsByChannel:
    """The statistic of the spikes' windows."""
    k = len(prior.shift)
    channels = np.tile(np.arange(k), (prior.windows.n_units, 1))
    return SumsByChannel.of(prior.windows, channels, k, prior.stimulus.stored, prior.shift, "raise")


def _plan(prior: Prior, host: Host, answer: int) -> tuple[FoldPlan, ...]:
    matrix, sums = prior.stimulus.matrix, _sums(prior)
    # All parts, and what is made of them: covariances of segments, of the rest, and their eigenvectors.
    kept = PARTS * SEGMENTS * 8 * prior.windows.n_units * prior.n_dimensions
    kept += 8 * prior.n_dimensions**2 * (8 + (prior.n_segments if prior.n_segments > 1 else 0))
    held = prior.question.nbytes + answer + kept
    title = "windows around spikes"
    return *prior.plans(host, answer), fold_of_blocks(title, sums, matrix, host, _parts(prior, host), held)


def _parts(prior: Prior, host: Host) -> tuple[Run, ...]:
    """Of time, so many a segment."""
    step = chunk_length(prior.stimulus.matrix, prior.length, host)
    return time_blocks(prior.stimulus.matrix.shape[0], PARTS * SEGMENTS, step)


def _segments(prior: Prior, engine: Engine, folds: tuple[FoldPlan, ...]) -> list[Segment]:
    """Both passes."""
    moments = prior.moments(engine, folds[-2])
    sums = _sums(prior)
    found = sums_of_blocks(engine, sums, prior.stimulus.matrix, _parts(prior, engine.host), folds[-1])
    # Integers are summed whole: the shift comes off here.
    off = block_dtype(prior.stimulus.stored) == np.int16
    n_parts = len(found) // len(moments)
    segments = []
    for i, windows in enumerate(moments):
        parts = found[i * n_parts : (i + 1) * n_parts]
        spikes = np.sum([part.used for part in parts], axis=0)
        total = np.sum([part.total for part in parts], axis=0)
        total -= spikes[:, None] * np.tile(prior.shift, prior.length) if off else 0
        segments.append(Segment(windows, spikes, total))
    return segments


def _scores(segments: Sequence[Segment], ridges: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n_units, n_ridges): what the filter of all other segments takes off the squared error, over the rate."""
    n_units = len(segments[0].spikes)
    gained, n_windows = np.zeros((n_units, len(ridges))), 0
    for i, held in enumerate(segments):
        rest = _sum([segment for j, segment in enumerate(segments) if j != i])
        if held.windows.n < 1 or rest.windows.n < 2:
            continue
        n, mean = held.windows.n, rest.windows.mean
        n_windows += n
        values, vectors = np.linalg.eigh(in_units(rest.windows, scale))
        rate = rest.spikes / rest.windows.n
        # Sums over held-out windows x, about the mean of the others: of x, of x x', and of x around spikes.
        moved = held.windows.sums - n * mean
        spread = held.windows.products - np.outer(held.windows.sums, mean) - np.outer(mean, moved)
        spread *= np.outer(scale, scale)
        around = (held.sums - held.spikes[:, None] * mean - rate[:, None] * moved) * scale
        change = (rest.sums / rest.windows.n - rate[:, None] * mean) * scale
        for j, ridge in enumerate(ridges):
            shrunk = values + ridge * values.mean()
            filters = ((change @ vectors) / np.where(shrunk > 0, shrunk, np.inf)) @ vectors.T
            gained[:, j] += 2 * np.einsum("ud,ud->u", filters, around)
            gained[:, j] -= np.einsum("ud,ud->u", filters @ spread, filters)
    with np.errstate(divide="ignore", invalid="ignore"):
        every = _sum(segments)
        return gained / n_windows / (every.spikes / every.windows.n)[:, None]
