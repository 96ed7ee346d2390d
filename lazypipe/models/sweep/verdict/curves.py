"""The scores of a sweep as arrays, and one model's curve over the sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lazypipe.models.sweep.result import RegularizationSweep, best_place_of, mean_over_seeds
from lazypipe.models.sweep.verdict.noise import NORMAL, seed_error, standard_error
from lazypipe.models.sweep.verdict.parts import BestCell, ModelScore


class Curves:
    """The scores of a sweep as arrays (models, strengths, sizes, seeds), NaN where there is none."""

    def __init__(self, sweep: RegularizationSweep) -> None:
        self.sweep = sweep
        self.train, self.validation = sweep.cube("train"), sweep.cube("validation")

    def best(self) -> BestCell | None:
        sweep, at = self.sweep, self.sweep.best_place()
        if at is None:
            return None
        model, strength, size = at
        mean, seeds = float(sweep.means()[at]), self.validation[at][np.isfinite(self.validation[at])]
        return BestCell(
            sweep.models[model], float(sweep.strengths[strength]), int(sweep.sizes[size]), len(seeds),
            mean, float(self.standard_error(mean)),
            float(seeds.std(ddof=1)) if len(seeds) > 1 else None, float(sweep.means("train")[at]),
        )  # fmt: skip

    def standard_error(self, score: Any) -> np.ndarray:
        """Of the validation rows."""
        return standard_error(score, self.sweep.n_validation, self.sweep.classes is None)


class Curve:
    """One model at the sizes that have a score: ``means`` (strengths, sizes), and the best strength at each."""

    def __init__(self, curves: Curves, name: str) -> None:
        sweep, model = curves.sweep, curves.sweep.models.index(name)
        self.curves, self.model = curves, name
        order = np.argsort(sweep.sizes)
        order = order[np.isfinite(curves.validation[model]).any(axis=(0, 2))[order]]
        every = np.arange(len(order))
        self.sizes = np.array(sweep.sizes, np.int64)[order]
        self.seeds = curves.validation[model][:, order]
        self.means = mean_over_seeds(self.seeds)
        self.at = np.array([_strength_at(self.seeds[:, i], sweep.strengths) for i in every], np.int64)
        self.strengths = np.array(sweep.strengths, np.float64)[self.at]
        self.best = self.seeds[self.at, every]  # (sizes, seeds)
        self.scores = self.means[self.at, every]
        self.train = mean_over_seeds(curves.train[model][:, order])[self.at, every]
        self.standard_error = curves.standard_error(self.scores)

    def noise(self, size: int, other: int) -> float:
        """Half the 95% interval of the best score at a size; of the seeds, what its lead over another strength has.

        One score's noise, not that of a difference: strengths have their validation rows in common, and so differ
        by less than independent scores would.
        """
        return NORMAL * math.hypot(self.standard_error[size], seed_error(self.best[size] - self.seeds[other, size]))

    def score_at(self, size: int) -> ModelScore:
        i = int(np.flatnonzero(self.sizes == size)[0])
        se = math.hypot(self.standard_error[i], seed_error(self.best[i]))
        return ModelScore(self.model, size, float(self.strengths[i]), float(self.scores[i]), se)


def _strength_at(scores: np.ndarray, strengths: Sequence[float]) -> int:
    """The best of the strengths of scores (strengths, seeds), some of which there are."""
    at = best_place_of(scores[None, :, None], (0,), strengths)
    assert at is not None, "sizes without a score are left out"
    return at[1]
