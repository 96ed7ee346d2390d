"""Products with the centred second moment, on the shorter side that the source can deliver.

With N rows and D columns, ``C = Xcᵀ Xc / (N - 1)`` (D, D) and ``Xc Xcᵀ / (N - 1)`` (N, N) share their
eigenvalues; a vector u of the short one gives the component ``v = Xcᵀ u / sqrt(λ (N - 1))``, written
out in one more pass over column stripes. On the short side a pass holds N x p, whatever D is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from lazypipe.blocks import Run, Span, compute_dtype
from lazypipe.engines import Engine
from lazypipe.engines.tasks import blocks_of
from lazypipe.io.matrix import Matrix
from lazypipe.models.pca.ritz import Ritz, relative_norms
from lazypipe.plan import FoldPlan
from lazypipe.stats import ColumnProduct, Gram, Moments, RowProduct
from lazypipe.stats.covariance import Covariance, CovarianceMatrix
from lazypipe.stats.products import stripe_product
from lazypipe.stats.provisional import provisional_shift


class Components(NamedTuple):
    components: np.ndarray  # (k, n_columns), compute dtype, unit rows
    mean: np.ndarray  # (n_columns,) float64
    residuals: np.ndarray  # (k,) ‖C v - λ v‖ / λ


class Side(Protocol):
    """A side of the matrix: what a solver iterates on, and how its vectors become components."""

    n_passes: int
    total_variance: float

    def apply(self, basis: np.ndarray) -> np.ndarray:
        """``C @ basis`` for this side's C, in one pass."""

    def components(self, ritz: Ritz) -> Components:
        """The components for Ritz pairs of this side."""


class ShortSide:
    """Rows: vectors of length N; a pass reads column stripes."""

    def __init__(self, matrix: Matrix, engine: Engine, product: FoldPlan, stripes: FoldPlan):
        self.matrix, self.engine = matrix, engine
        self.product, self.stripes = product, stripes
        self.n_passes = 0
        self.total_variance = np.nan

    def start(self, width: int, seed: int) -> np.ndarray:
        """A random orthonormal block (N, width) whose columns sum to zero."""
        block = np.random.default_rng(seed).standard_normal((self.matrix.shape[0], width))
        return np.linalg.qr(block - block.mean(axis=0))[0]

    def apply(self, basis: np.ndarray) -> np.ndarray:
        first = self.n_passes == 0
        basis = basis - basis.mean(axis=0)
        basis = basis.astype(compute_dtype(self.matrix.dtype))
        plan = replace(self.product, title=f"pass {self.n_passes + 1}")
        state = self.engine.fold(ColumnProduct(basis, with_squares=first), self.matrix, plan)
        self.n_passes += 1
        degrees = self.matrix.shape[0] - 1
        if first:
            self.total_variance = state.squares / degrees
        return state.product / degrees

    def gram(self) -> np.ndarray:
        """``Xc Xcᵀ / (N - 1)`` itself, in one pass."""
        gram = self.engine.fold(Gram(), self.matrix, self.product)
        self.n_passes += 1
        gram /= self.matrix.shape[0] - 1
        self.total_variance = float(np.trace(gram))
        return gram

    def components(self, ritz: Ritz) -> Components:
        n_rows, n_columns = self.matrix.shape
        k = len(ritz.values)
        dtype = compute_dtype(self.matrix.dtype)
        lengths = np.linalg.norm(ritz.residuals, axis=0)
        unit = ritz.residuals / np.where(lengths > 0, lengths, 1)  # float32 would lose their digits
        basis = np.hstack([ritz.vectors, unit]).astype(dtype)
        scale = np.sqrt(np.maximum(ritz.values, 0) * (n_rows - 1))
        scale = np.where(scale > 0, scale, 1)

        components = np.empty((k, n_columns), dtype)
        mean = np.empty(n_columns)
        squares = np.zeros(k)
        norms = np.zeros(k)
        plan = replace(self.stripes, title="components")
        for part in self.engine.map(Emission(self.matrix, basis, plan.mapped), plan.runs, plan):
            components[:, part.columns.slice] = part.vectors.T
            mean[part.columns.slice] = part.mean
            squares += part.squares
            norms += part.norms
        self.n_passes += 1
        components /= np.sqrt(np.where(norms > 0, norms, 1))[:, None].astype(dtype)
        residuals = np.sqrt(squares) * lengths / scale / np.maximum(ritz.values, np.finfo(float).tiny)
        return Components(components, mean, residuals)


class EmittedPart(NamedTuple):
    columns: Span
    mean: np.ndarray  # (n,) float64
    vectors: np.ndarray  # (n, k) rows of Xcᵀ U
    norms: np.ndarray  # (k,) sums of squares of ``vectors``
    squares: np.ndarray  # (k,) sums of squares of Xcᵀ R, for the residuals


@dataclass(frozen=True)
class Emission:
    """A task: Xcᵀ [U R] for the columns of one run."""

    matrix: Matrix
    basis: np.ndarray  # (n_rows, 2 k): U beside R
    mapped: bool

    def __call__(self, run: Run) -> EmittedPart:
        k = self.basis.shape[1] // 2
        span = Span(run.start, run.stop)
        mean = np.empty(len(span))
        vectors = np.empty((len(span), k), self.basis.dtype)
        norms, squares = np.zeros(k), np.zeros(k)
        for block in blocks_of(self.matrix, "columns", run, self.mapped):
            stripe = stripe_product(block, self.basis)
            at = slice(stripe.columns.start - run.start, stripe.columns.stop - run.start)
            mean[at] = stripe.mean
            vectors[at] = stripe.product[:, :k]
            norms += np.square(stripe.product[:, :k], dtype=np.float64).sum(axis=0)
            squares += np.square(stripe.product[:, k:], dtype=np.float64).sum(axis=0)
        return EmittedPart(span, mean, vectors, norms, squares)


class LongSide:
    """Columns: vectors of length D; a pass reads row blocks, the first one for the mean."""

    def __init__(self, matrix: Matrix, engine: Engine, product: FoldPlan, moments: FoldPlan | None):
        self.matrix, self.engine = matrix, engine
        self.product, self.moments = product, moments
        self.n_passes = 0
        self.total_variance = np.nan
        self.mean = np.zeros(0)

    def start(self, width: int, seed: int) -> np.ndarray:
        """A random orthonormal block (D, width)."""
        block = np.random.default_rng(seed).standard_normal((self.matrix.shape[1], width))
        return np.linalg.qr(block)[0]

    def prepare(self) -> None:
        """The mean and the total variance, in one pass."""
        assert self.moments is not None
        moments = self.engine.fold(Moments(), self.matrix, self.moments)
        self.n_passes += 1
        self.mean = moments.mean
        self.total_variance = float(moments.variance.sum())

    def apply(self, basis: np.ndarray) -> np.ndarray:
        dtype = compute_dtype(self.matrix.dtype)
        n_rows = self.matrix.shape[0]
        statistic = RowProduct(self.mean, self.mean.astype(dtype), basis.astype(dtype), n_rows)
        plan = replace(self.product, title=f"pass {self.n_passes + 1}")
        product = self.engine.fold(statistic, self.matrix, plan)
        self.n_passes += 1
        product /= n_rows - 1
        return product

    def covariance(self) -> np.ndarray:
        """C itself, in one pass."""
        shift = provisional_shift(self.matrix)
        result: CovarianceMatrix = self.engine.fold(Covariance(shift), self.matrix, self.product)
        self.n_passes += 1
        self.mean = result.mean
        self.total_variance = float(np.trace(result.covariance))
        return result.covariance

    def components(self, ritz: Ritz) -> Components:
        dtype = compute_dtype(self.matrix.dtype)
        return Components(ritz.vectors.T.astype(dtype), self.mean, relative_norms(ritz.residuals, ritz.values))
