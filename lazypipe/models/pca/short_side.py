"""The rows as the short side, read by column stripes: each stripe holds every row, and one read a pass does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lazypipe.blocks import Run, Span
from lazypipe.engines.checkpointed import Checkpointed
from lazypipe.engines.tasks import blocks_of
from lazypipe.io.matrix import Matrix
from lazypipe.models.pca.ritz import Ritz
from lazypipe.models.pca.sides import Components, OnRows, Problem, unmixed
from lazypipe.stats import Centring, ColumnProduct, Gram, StripeProjection
from lazypipe.stats.products import ColumnProductState, stripe_product


class ShortSide(OnRows):
    """Vectors of length N; a pass reads column stripes."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.matrix: Matrix = problem.matrix
        self.n_passes = self.n_omitted = self.n_constant = 0
        self.total_variance = np.nan
        self.scale: np.ndarray | None = None
        self.fill: np.ndarray | None = None
        self._mean: np.ndarray | None = None  # where a pass over the rows found it
        weight, weights = float(problem.matrix.shape[0]), None
        if not problem.asked.plain:
            found = problem.standardised()
            self.n_passes = 1
            self.matrix, self.scale, self.fill, self._mean = found.matrix, found.scale, found.fill, found.mean
            self.n_omitted, self.n_constant = found.n_omitted, found.n_constant
            weight, weights = found.weight, found.weights
        self.centring = Centring.of(problem.matrix.shape[0], weights) if problem.asked.center else None
        self.degrees = problem.asked.degrees(weight)

    def _project(self, basis: np.ndarray, title: str) -> np.ndarray:
        plan = self.problem.choice.stripes
        assert plan is not None
        statistic = StripeProjection(np.ascontiguousarray(basis, self.problem.dtype))
        product: np.ndarray = self.problem.engine.fold(statistic, self.matrix, replace(plan, title=title))
        return product

    def apply(self, basis: np.ndarray) -> np.ndarray:
        first = np.isnan(self.total_variance)
        title = f"pass {self.n_passes + 1}"
        basis = self._off(basis.copy()).astype(self.problem.dtype)
        plan = replace(self.problem.choice.product, title=title)
        statistic = ColumnProduct(basis, self.centring, with_squares=first)
        state = self.problem.journal.recall(
            title.replace(" ", "-"),
            ColumnProductState,
            lambda: self.problem.engine.fold(statistic, self.matrix, plan),
            basis,
        )
        self.n_passes += 1
        if first:
            self.total_variance = float(state.squares / self.degrees)
        return state.product / self.degrees

    def gram(self) -> np.ndarray:
        """``Yc Ycᵀ / degrees`` itself, in one pass."""
        journal, engine, product = self.problem.journal, self.problem.engine, self.problem.choice.product
        if journal.folder is None:
            gram = engine.fold(Gram(self.centring), self.matrix, product)
        else:
            data = {key: value for key, value in journal.identity.items() if key not in ("fingerprint", "n_columns")}
            identity = {"statistic": "gram", **data, "prepared": self._prepared()}
            saved = Checkpointed(journal.folder, "gram", identity)
            gram, _ = saved.fold(
                engine,
                Gram,
                lambda _: Gram(self.centring),
                dict,
                self.matrix,
                self.problem.choice.cut_product,
            )
        self.n_passes += 1
        gram /= self.degrees
        self.total_variance = float(np.trace(gram))
        return gram

    def _prepared(self) -> str | None:
        """What was done to the entries, by the fingerprint of the vectors; None where nothing was."""
        return None if self.problem.asked.plain else self.matrix.fingerprint()

    def components(self, ritz: Ritz) -> Components:
        n_columns = self.matrix.shape[1]
        k = len(ritz.values)
        lengths = np.linalg.norm(ritz.residuals, axis=0)
        unit = ritz.residuals / np.where(lengths > 0, lengths, 1)  # float32 would lose their digits
        basis = np.hstack([ritz.vectors, unit]).astype(self.problem.dtype)
        scale = np.sqrt(np.maximum(ritz.values, 0) * self.degrees)
        scale = np.where(scale > 0, scale, 1)

        components = np.empty((k, n_columns), self.problem.dtype)
        mean = np.empty(n_columns)
        squares = np.zeros(k)
        norms = np.zeros(k)
        stripes = self.problem.choice.stripes
        assert stripes is not None
        plan = replace(stripes, title="components")
        emission = Emission(self.matrix, basis, self.centring, plan.mapped)
        for part in self.problem.engine.map(emission, plan.runs, plan):
            components[:, part.columns.slice] = part.vectors.T
            mean[part.columns.slice] = part.mean
            squares += part.squares
            norms += part.norms
        self.n_passes += 1
        components /= np.sqrt(np.where(norms > 0, norms, 1))[:, None].astype(self.problem.dtype)
        residuals = np.sqrt(squares) * lengths / scale / np.maximum(ritz.values, np.finfo(float).tiny)
        components = unmixed(components)
        return Components(components, mean if self._mean is None else self._mean, residuals)


class EmittedPart(NamedTuple):
    """The components of some columns, before they are scaled."""

    columns: Span
    mean: np.ndarray  # (n,) float64
    vectors: np.ndarray  # (n, k) rows of Ycᵀ U
    norms: np.ndarray  # (k,) sums of squares of ``vectors``
    squares: np.ndarray  # (k,) sums of squares of Ycᵀ R, for the residuals


@dataclass(frozen=True)
class Emission:
    """A task: Ycᵀ [U R] for the columns of one run."""

    matrix: Matrix
    basis: np.ndarray  # (n_rows, 2 k): U beside R
    centring: Centring | None
    mapped: bool

    def __call__(self, run: Run) -> EmittedPart:
        k = self.basis.shape[1] // 2
        span = Span(run.start, run.stop)
        mean = np.empty(len(span))
        vectors = np.empty((len(span), k), self.basis.dtype)
        norms, squares = np.zeros(k), np.zeros(k)
        for block in blocks_of(self.matrix, "columns", run, self.mapped):
            stripe = stripe_product(block, self.basis, self.centring)
            at = slice(stripe.columns.start - run.start, stripe.columns.stop - run.start)
            mean[at] = stripe.mean
            vectors[at] = stripe.product[:, :k]
            norms += np.square(stripe.product[:, :k], dtype=np.float64).sum(axis=0)
            squares += np.square(stripe.product[:, k:], dtype=np.float64).sum(axis=0)
        return EmittedPart(span, mean, vectors, norms, squares)
