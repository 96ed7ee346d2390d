"""Covariances of windows around spikes, and the eigenvalues they have when the spikes are moved: maps of batches.

A batch is a few trains, whose second moments one task adds up over the whole recording and alone holds. So no state
is ever sent, and how trains are shared out changes no bit of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lazypipe.blocks import Run, Span, evenly
from lazypipe.engines import Engine
from lazypipe.engines.tasks import fold_windows
from lazypipe.io.matrix import Matrix
from lazypipe.models.spike_triggered.passes import block_nbytes, chunk_length, fitting
from lazypipe.plan import FoldPlan, Host
from lazypipe.stats.train_products import TrainProducts
from lazypipe.stats.window_products import Moments

TITLE = "covariance around spikes"
WORK = 6  # matrices of D x D that an eigendecomposition takes, its input and what leads to it included


class Batch(NamedTuple):
    """Trains of one task: units, and which of the moves each has; and the bases that units are looked at in."""

    units: np.ndarray  # (n,)
    moves: np.ndarray  # (n, n_circles)
    bases: dict[int, np.ndarray]  # unit -> (D, d); none for the whole space


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a covariance is compared with: ``W (C - prior) W``, with the scale of each dimension put right."""

    prior: np.ndarray  # (D, D), in units
    scale: np.ndarray  # (D,) units a stored value
    whitening: np.ndarray | None  # (D, D), W; None for 1

    def __call__(self, moments: Moments) -> np.ndarray:
        """(D, D), symmetric."""
        change = in_units(moments, self.scale)
        change -= self.prior
        if self.whitening is None:
            return change
        change = self.whitening @ change @ self.whitening
        return (change + change.T) / 2


def in_units(moments: Moments, scale: np.ndarray) -> np.ndarray:
    """The covariance (D, D) of values times ``scale``."""
    covariance = moments.covariance
    covariance *= np.outer(scale, scale)
    return covariance


@dataclass(frozen=True, eq=False)
class MomentsOfBatch:
    """A task: the moments of each train of a batch."""

    statistic: TrainProducts  # of no train yet
    matrix: Matrix
    step: int

    def __call__(self, batch: Batch) -> list[Moments]:
        statistic = replace(self.statistic, units=batch.units, moves=batch.moves)
        total = fold_windows(statistic, self.matrix, Run(0, 0, self.matrix.shape[0], self.step))
        return [statistic.moments(total, train) for train in range(len(batch.units))]


@dataclass(frozen=True, eq=False)
class SpectraOfBatch:
    """A task: the eigenvalues, in ascending order, of each train of a batch, in the basis of its unit."""

    moments: MomentsOfBatch
    comparison: Comparison

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        spectra = []
        for unit, moments in zip(batch.units.tolist(), self.moments(batch), strict=True):
            change = self.comparison(moments)
            basis = batch.bases.get(unit)
            if basis is not None:
                change = basis.T @ change @ basis
            spectra.append(np.linalg.eigvalsh(change))
        return spectra


@dataclass(frozen=True)
class BatchPlan:
    """How many trains a task has, and what all tasks take."""

    fold: FoldPlan
    size: int


def plan_batches(
    title: str, statistic: TrainProducts, matrix: Matrix, host: Host, slots: int, n_trains: int, reserved: int
) -> BatchPlan:
    """Few batches, for each reads the recording, but one for every task at once.

    MemoryPlanError if one train is too large.
    """
    step = chunk_length(matrix, statistic.reads.before, host)
    square = 8 * statistic.n_dimensions**2
    train = square + 8 * statistic.n_dimensions
    task = block_nbytes(statistic, matrix, step) + WORK * square
    task += 0 if host.shared else statistic.nbytes + 2 * square
    n_batches = min(max(slots, 1), n_trains)
    while True:
        size = -(-n_trains // n_batches)
        cut = tuple(Run(i, 0, matrix.shape[0], step) for i in range(-(-n_trains // size)))
        read = len(cut) * matrix.nbytes
        try:
            fold = fitting(title, matrix, host, cut, task + size * train, reserved, bytes_read=read)
        except MemoryError:
            if size == 1:
                raise
        else:
            if size == 1 or fold.concurrency >= min(host.threads, len(cut)):
                return BatchPlan(fold, size)
        n_batches = min(n_trains, n_batches + max(1, n_batches // 2))


def spectra_of(
    engine: Engine,
    work: SpectraOfBatch,
    units: np.ndarray,
    moves: np.ndarray,
    bases: dict[int, np.ndarray],
    plan: BatchPlan,
) -> dict[int, np.ndarray]:
    """By unit, the eigenvalues (n_moves, d) of each of ``units`` moved by each of ``moves`` (n_moves, n_circles)."""
    pairs = [(unit, i) for unit in units.tolist() for i in range(len(moves))]
    batches = []
    for span in evenly(Span(0, len(pairs)), -(-len(pairs) // plan.size)):
        among, which = (np.array(column) for column in zip(*pairs[span.slice], strict=True))
        batches.append(Batch(among, moves[which], {u: bases[u] for u in set(among.tolist()) if u in bases}))
    cut = tuple(plan.fold.runs[i % len(plan.fold.runs)] for i in range(len(batches)))
    fold = replace(plan.fold, runs=cut, bytes_read=len(cut) * work.moments.matrix.nbytes)
    found = [spectrum for batch in engine.map(work, batches, fold) for spectrum in batch]
    return {unit: np.stack(found[i * len(moves) : (i + 1) * len(moves)]) for i, unit in enumerate(units.tolist())}


def moments_of(engine: Engine, work: MomentsOfBatch, n_units: int, plan: BatchPlan) -> list[Moments]:
    """Those of each unit's own spikes."""
    n_circles = len(work.statistic.circles)
    spans = evenly(Span(0, n_units), -(-n_units // plan.size))
    batches = [Batch(np.arange(s.start, s.stop), np.zeros((len(s), n_circles), np.int64), {}) for s in spans]
    return [moments for batch in engine.map(work, batches, plan.fold) for moments in batch]
