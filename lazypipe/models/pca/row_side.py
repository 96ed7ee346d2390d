"""The rows as the short side of a source that gives whole rows only (sparse, list columns).

``Y Yᵀ U`` takes two reads: ``T = Yᵀ U`` as a fold, then ``Y T`` as a map over the same rows. Vectors stay N
long; T, D x p, is held by the driver and sent to the workers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lazypipe.models.pca.projection import Projection, projected
from lazypipe.models.pca.ritz import Ritz
from lazypipe.models.pca.sides import Components, OnRows, Problem, unmixed
from lazypipe.stats import AdjointProduct, Centring


class RowSide(OnRows):
    """Vectors of length N; a product reads the rows twice."""

    def __init__(self, problem: Problem):
        self.problem = problem
        found = problem.standardised()
        self.n_passes = 1
        self.matrix, self.scale, self.fill, self.mean = found.matrix, found.scale, found.fill, found.mean
        self.n_omitted, self.n_constant = found.n_omitted, found.n_constant
        self.total_variance = found.total_variance
        self.centring = Centring.of(problem.matrix.shape[0], found.weights) if problem.asked.center else None
        self.degrees = problem.asked.degrees(found.weight)

    def apply(self, basis: np.ndarray) -> np.ndarray:
        title = f"pass {self.n_passes + 1}"

        def product() -> np.ndarray:
            return self._project(self._adjoint(basis, title), f"pass {self.n_passes + 2}")

        result = self.problem.journal.recall(title.replace(" ", "-"), np.ndarray, product, basis)
        self.n_passes += 2
        return self._off(result.copy()) / self.degrees

    def _adjoint(self, basis: np.ndarray, title: str) -> np.ndarray:
        """``Ycᵀ U`` (n_columns, p): U is free of what centring takes off."""
        basis = self._off(basis.copy()).astype(self.problem.dtype)
        plan = replace(self.problem.choice.product, title=title)
        product: np.ndarray = self.problem.engine.fold(AdjointProduct(basis), self.matrix, plan)
        return product

    def _project(self, basis: np.ndarray, title: str) -> np.ndarray:
        plan = replace(self.problem.choice.product, title=title)
        basis = np.ascontiguousarray(basis, self.problem.dtype)
        return projected(Projection(self.matrix, basis, np.zeros(basis.shape[1])), self.problem.engine, plan)

    def components(self, ritz: Ritz) -> Components:
        # Of the residuals first, and apart: D x 2k at once would be the most that a fit holds.
        lengths = np.linalg.norm(ritz.residuals, axis=0)
        unit = ritz.residuals / np.where(lengths > 0, lengths, 1)
        squares = np.linalg.norm(self._adjoint(unit, "residuals"), axis=0)
        product = self._adjoint(ritz.vectors, "components")
        self.n_passes += 2
        norms = np.linalg.norm(product, axis=0)
        product /= np.where(norms > 0, norms, 1)
        components = np.ascontiguousarray(product.T, self.problem.dtype)
        del product
        scale = np.sqrt(np.maximum(ritz.values, 0) * self.degrees)
        residuals = squares * lengths / np.where(scale > 0, scale, 1) / np.maximum(ritz.values, np.finfo(float).tiny)
        return Components(unmixed(components), self.mean, residuals)
