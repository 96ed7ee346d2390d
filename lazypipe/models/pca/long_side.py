"""The columns as the side that is iterated: row blocks, D-long vectors, and a first pass for the mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lazypipe.models.covariance import folded
from lazypipe.models.pca.ritz import Ritz, relative_norms
from lazypipe.models.pca.sides import Components, Problem, filled_up, orthonormal
from lazypipe.models.preparation import Standardised, column_scale
from lazypipe.stats import RowProduct


class LongSide:
    """Vectors of length D; a pass reads row blocks."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.n_passes = self.n_omitted = self.n_constant = 0
        self.total_variance = self.degrees = np.nan
        self.scale: np.ndarray | None = None
        self.fill: np.ndarray | None = None
        self.mean = np.zeros(0)
        self._found: Standardised | None = None

    @property
    def rank(self) -> int:
        return self.problem.matrix.shape[1]

    def prepare(self) -> None:
        """The means, the scales and the total variance, in one pass."""
        found = self._found = self.problem.standardised()
        self.n_passes += 1
        self.total_variance = found.total_variance
        self.degrees = self.problem.asked.degrees(found.weight)
        self.mean, self.scale, self.fill = found.mean, found.scale, found.fill
        self.n_omitted, self.n_constant = found.n_omitted, found.n_constant

    def start(self, width: int, seed: int) -> np.ndarray:
        previous = self.problem.journal.previous
        return orthonormal(filled_up(None if previous is None else previous.T, self.rank, width, seed))

    def apply(self, basis: np.ndarray) -> np.ndarray:
        found = self._found
        assert found is not None
        title = f"pass {self.n_passes + 1}"
        statistic = RowProduct(basis.astype(self.problem.dtype), found.rest, found.weight)
        plan = replace(self.problem.choice.product, title=title)
        product = self.problem.journal.recall(
            title.replace(" ", "-"), np.ndarray, lambda: self.problem.engine.fold(statistic, found.matrix, plan), basis
        )
        self.n_passes += 1
        return product / self.degrees

    def covariance(self) -> np.ndarray:
        """C itself, in one pass; in two where gaps are filled with means, or scales are wanted about zero."""
        problem, asked = self.problem, self.problem.asked
        moments = problem.moments() if problem.choice.moments is not None else None
        filling = moments.mean if moments is not None and asked.nan == "mean" else None
        ddof = 1 if asked.center else 0
        result, _ = folded(
            problem.matrix, ddof, asked, problem.engine, problem.choice.product, filling, problem.journal.folder
        )
        self.n_passes += 1 + (moments is not None)
        self.mean = result.mean if asked.center else np.zeros_like(result.mean)
        self.n_omitted = problem.matrix.shape[0] - result.n_rows
        self.degrees = asked.degrees(result.weight)
        covariance = result.covariance
        self.fill = result.mean if asked.nan == "mean" else None
        if asked.scale:
            mean, variance = result.mean, covariance.diagonal()
            if moments is not None and asked.scales_about_zero:  # a difference of moments would have lost it
                mean, variance = moments.mean, moments.variance
            self.scale, self.n_constant = column_scale(problem.matrix, asked, mean, variance)
            gain = 1 / self.scale
            for i, row in enumerate(covariance):
                row *= gain[i] * gain
        self.total_variance = float(np.trace(covariance))
        return covariance

    def components(self, ritz: Ritz) -> Components:
        components = np.ascontiguousarray(ritz.vectors.T.astype(self.problem.dtype))
        return Components(components, self.mean, relative_norms(ritz.residuals, ritz.values))
