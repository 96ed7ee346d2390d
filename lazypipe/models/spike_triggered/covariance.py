"""Spike-triggered covariance: along which directions spikes change the spread of what came before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.checks import from_0
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DataError
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.passes import REMEDY
from lazypipe.models.spike_triggered.prior import Prior
from lazypipe.models.spike_triggered.question import Question, ask
from lazypipe.models.spike_triggered.result import OnLags
from lazypipe.models.spike_triggered.spectra import (
    TITLE,
    BatchPlan,
    Comparison,
    MomentsOfBatch,
    SpectraOfBatch,
    in_units,
    moments_of,
    plan_batches,
    spectra_of,
)
from lazypipe.models.spike_triggered.step_down import step_down
from lazypipe.models.spike_triggered.stimulus import (
    plan_of,
    require_count,
    require_fraction,
    require_seed,
    require_whole,
)
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits
from lazypipe.stats.train_products import TrainProducts, draw_moves

JOB = "spike-triggered covariance"
SINGULAR = 1e-12  # of the largest eigenvalue: what is smaller is rounding


@dataclass(frozen=True, eq=False)
class SpikeTriggeredCovariance(OnLags):
    """What ``spike_triggered_covariance`` found. Dimension D = n_lags x k, a lag's channels next to one another."""

    unit_ids: np.ndarray  # (n_units,)
    lags: np.ndarray  # (n_lags,) samples from the spike
    channels: np.ndarray  # (k,) of the recording
    prior_mean: np.ndarray  # (D,) of all windows, in the recording's units
    prior_covariance: np.ndarray  # (D, D)
    mean: np.ndarray  # (n_units, D) of windows around spikes; NaN without any
    covariance: np.ndarray  # (n_units, D, D), dividing by n_used - 1; NaN for fewer than two
    eigenvalues: np.ndarray  # (n_units, D) of the change in covariance, largest first
    eigenvectors: np.ndarray  # (n_units, D, D), a row each, of length 1; the largest entry is positive
    significant: np.ndarray  # (n_units, D) bool
    limits: np.ndarray  # (n_units, 2) that eigenvalues by chance keep within, in the last step of the test
    n_windows: int  # in the recording
    n_used: np.ndarray  # (n_units,) spikes
    n_dropped: dict[str, np.ndarray]  # by reason: "edge", "gap", "nan", "beyond_end"; each (n_units,)
    whitening: np.ndarray | None  # (D, D); None where the covariances were compared as they are
    level: float
    recording: Recording
    plan: Plan

    def filters(self, unit: Any) -> np.ndarray:
        """(n, n_lags, k) significant filters of a unit, by its id, those that change the spread most first.

        Of length 1, in the space of the stimulus: a whitened eigenvector e is the filter W e.
        """
        found = np.flatnonzero(self.unit_ids == unit)
        if len(found) != 1:
            raise ConfigError(f"unit: {unit!r} is none of the {len(self.unit_ids):,} units.")
        u = int(found[0])
        chosen = np.flatnonzero(self.significant[u])
        chosen = chosen[np.argsort(-np.abs(self.eigenvalues[u, chosen]), kind="stable")]
        filters = self.eigenvectors[u, chosen]
        if self.whitening is not None:
            filters = filters @ self.whitening
            filters /= np.linalg.norm(filters, axis=1, keepdims=True)
            filters *= signs(filters)
        return filters.reshape(len(chosen), len(self.lags), len(self.channels))

    def __repr__(self) -> str:
        n_units, size = self.eigenvalues.shape
        return (
            f"SpikeTriggeredCovariance({n_units:,} units, {size:,} dimensions ({len(self.lags):,} lags x "
            f"{len(self.channels):,} channels), {int(self.significant.sum()):,} significant at {self.level:g})"
        )


def spike_triggered_covariance(
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
    n_surrogates: int = 200,
    level: float = 0.05,
    whiten: bool = False,
    ridge: float = 0.0,
    seed: int = 0,
    engine: Engine | None = None,
) -> SpikeTriggeredCovariance:
    """Directions in which the windows around spikes vary more, or less, than all windows of the recording.

    Parameters
    ----------
    recording, spikes, window, window_unit, weights, exclude : as for ``spike_triggered_average``.
    channels : the same for every unit; None for all. A window of n_lags x k samples has D dimensions.
    edges : "drop"; windows in part have no covariance.
    nan : "raise" at any sample that is not finite, or "omit" the windows that hold one, as if it were a gap.
    n_surrogates : trains to compare each unit with, moved in time by chance; at least 2 / level - 1.
    level : probability of finding one false direction in a unit, at either end of the spectrum.
    whiten : False looks at ``C_spike - C_prior``, whose eigenvalues are in the units of the stimulus squared, as is
        right for white stimuli. True looks at ``W C_spike W - 1`` with ``W = (C_prior + ridge trace / D)^-1/2``,
        which undoes the stimulus's own correlations: eigenvalues are relative changes of variance, and ``filters``
        turns directions back into filters of the stimulus.
    ridge : of the whitening, relative to the mean variance.
    seed : of the surrogates.
    engine : from ``open_engine``; None works on threads of this process.

    Returns
    -------
    SpikeTriggeredCovariance with ``prior_mean``, ``prior_covariance``, ``mean``, ``covariance``, ``eigenvalues``,
    ``eigenvectors``, ``significant``, ``filters(unit)``.

    Notes
    -----
    Covariances are each about their own mean (the average is not projected out, so its direction may come back
    among the filters), exact for all windows that lie whole in a stretch and touch nothing excluded. The test is
    the nested one of Schwartz, Pillow, Rust & Simoncelli, J. Vision 6(4):13 (2006): the eigenvalues beyond the
    extremes that ``n_surrogates`` moved trains have are significant, and are taken out of the space, until no other
    lies beyond. Within each piece of the recording a surrogate moves all windows of the unit by the same number of
    samples, round and round, no nearer to 0 than the window's length; each is a window of the recording too.

    Passes: one over all windows (one more with nan="omit", for floats), one for the spikes, and one for the
    surrogates and for each further step of their test; the last two as many times as there are batches of
    trains, which hold 8 D² bytes each. Work: spikes x D² for each surrogate. Memory: the answer, 24 D² bytes a unit.

    Raises
    ------
    ConfigError, PlanError, MemoryPlanError : before any data is read. D above 4,096 is refused.
    DataError : NaN; a prior that is singular, where it is to be whitened without a ridge.
    """
    require_whole(edges, nan)
    require_count("n_surrogates", n_surrogates)
    require_fraction("level", level)
    require_seed(seed)
    ridge = from_0(ridge, "ridge")
    if level * (1 + n_surrogates) * (1 + 1e-9) < 2:
        raise ConfigError(
            f"n_surrogates: {n_surrogates:,} cannot show anything at level {level:g}, on two sides. Use "
            f"{int(np.ceil(2 / level)) - 1:,} or more."
        )
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    prior = Prior.of(question, channels, exclude)
    with engine_or_own(engine) as running:
        planned = or_say_what_fits(lambda host: _plan(prior, host, running.slots, n_surrogates), running.host, REMEDY)
        plan = plan_of(JOB, question, running.host, planned.folds, sum(planned.reads), _answer_nbytes(prior))
        prior = prior.ready(running, planned.priors)
        return _find(question, prior, running, planned, plan, (n_surrogates, level, seed), (whiten, ridge))


@dataclass(frozen=True)
class Planned:
    """The passes, in their order."""

    priors: tuple[FoldPlan, ...]
    spikes: BatchPlan
    surrogates: BatchPlan

    @property
    def folds(self) -> tuple[FoldPlan, ...]:
        return (*self.priors, self.spikes.fold, self.surrogates.fold)

    @property
    def reads(self) -> list[int]:
        """How often each reads the recording."""
        return [1] * len(self.priors) + [len(plan.fold.runs) for plan in (self.spikes, self.surrogates)]


def _answer_nbytes(prior: Prior) -> int:
    return 8 * prior.n_dimensions**2 * (1 + 2 * prior.windows.n_units)


def _plan(prior: Prior, host: Host, slots: int, n_surrogates: int) -> Planned:
    n_units, size, matrix = prior.windows.n_units, prior.n_dimensions, prior.stimulus.matrix
    moves = np.broadcast_to(np.zeros(1, np.int64), (n_surrogates, len(prior.stimulus.starts(prior.length))))
    statistic = _trains(prior)
    held = prior.question.nbytes + prior.windows.nbytes + _answer_nbytes(prior) + 2 * 8 * size**2 + moves.nbytes
    square, spectra = 8 * size**2, 16 * n_units * n_surrogates * size
    plans = prior.plans(host, held)
    held += 6 * square  # of the driver's own eigendecompositions
    spikes = plan_batches(TITLE, statistic, matrix, host, slots, n_units, held + n_units * square)
    title, n_trains = f"{TITLE}, moved", n_units * n_surrogates
    surrogates = plan_batches(title, statistic, matrix, host, slots, n_trains, held + spectra)
    return Planned(plans, spikes, surrogates)


def _trains(prior: Prior) -> TrainProducts:
    """The statistic, of no train yet."""
    circles = prior.stimulus.starts(prior.length)
    no_moves = np.empty((0, len(circles)), np.int64)
    none = np.empty(0, np.int64)
    return TrainProducts(prior.windows, circles, none, no_moves, prior.shift, prior.stimulus.stored)


def _find(
    question: Question,
    prior: Prior,
    engine: Engine,
    planned: Planned,
    plan: Plan,
    test: tuple[int, float, int],
    whitening: tuple[bool, float],
) -> SpikeTriggeredCovariance:
    n_surrogates, level, seed = test
    n_units, size, scale = prior.windows.n_units, prior.n_dimensions, prior.scale
    whole = prior.moments(engine, planned.priors[-1])[0]
    prior_covariance = in_units(whole, scale)
    if whole.n < 2:
        raise DataError(f"{question.recording.uri}: one window alone has no covariance. Shorten the window.")
    whitens = inverse_root(prior_covariance, whitening[1], question.recording.uri) if whitening[0] else None
    comparison = Comparison(prior_covariance, scale, whitens)
    statistic, matrix = _trains(prior), prior.stimulus.matrix
    work = MomentsOfBatch(statistic, matrix, planned.spikes.fold.step)

    mean, eigenvalues = np.full((2, n_units, size), np.nan)
    covariance, eigenvectors = np.full((2, n_units, size, size), np.nan)
    for u, moments in enumerate(moments_of(engine, work, n_units, planned.spikes)):
        if moments.n:
            mean[u] = prior.in_units(moments.mean)
        if moments.n > 1:
            covariance[u] = in_units(moments, scale)
            values, vectors = np.linalg.eigh(comparison(moments))
            eigenvalues[u], vectors = values[::-1], vectors.T[::-1]
            eigenvectors[u] = vectors * signs(vectors)

    drawn = draw_moves(statistic.circles, prior.length, n_surrogates, seed)
    moved = SpectraOfBatch(work, comparison)

    def spectra_in(bases: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        some = {unit: basis for unit, basis in bases.items() if basis.size}
        return spectra_of(engine, moved, np.array(list(bases)), drawn, some, planned.surrogates)

    significant, limits = step_down(eigenvalues, eigenvectors, spectra_in, level)
    return SpikeTriggeredCovariance(
        question.spikes.unit_ids, question.lags, prior.stimulus.channels, prior.in_units(whole.mean), prior_covariance,
        mean, covariance, eigenvalues, eigenvectors, significant, limits, whole.n, np.diff(prior.windows.edges),
        question.dropped_with(prior.not_finite), whitens, level, question.recording, plan,
    )  # fmt: skip


def signs(vectors: np.ndarray) -> np.ndarray:
    """(n, 1) what makes the largest entry of each row positive."""
    largest = np.argmax(np.abs(vectors), axis=1)[:, None]
    return np.where(np.take_along_axis(vectors, largest, axis=1) < 0, -1.0, 1.0)


def inverse_root(covariance: np.ndarray, ridge: float, uri: str) -> np.ndarray:
    """``(C + ridge trace / D)^-1/2`` (D, D); DataError if that is singular."""
    values, vectors = np.linalg.eigh(covariance)
    require_regular(values, ridge, uri)
    return (vectors / np.sqrt(values + ridge * values.mean())) @ vectors.T


def require_regular(eigenvalues: np.ndarray, ridge: float, uri: str) -> None:
    """DataError where the covariance of all windows has no inverse, which a ridge would give it."""
    if not eigenvalues[-1] > 0:
        raise DataError(f"{uri}: the chosen channels never change, so no filter can be told. Choose others.")
    least = eigenvalues[0] + ridge * eigenvalues.mean()
    if not least > SINGULAR * eigenvalues[-1]:
        raise DataError(
            f"{uri}: the covariance of its windows is singular: the least of {len(eigenvalues):,} eigenvalues is "
            f"{least:.3g}, the largest {eigenvalues[-1]:.3g}. Pass ridge=1e-3, or fewer lags or channels."
        )
