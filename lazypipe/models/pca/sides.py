"""What the solvers iterate on: the shorter side of the matrix that the source can deliver.

With N rows and D columns and the prepared, centred rows Yc, ``C = Ycᵀ Yc / degrees`` (D, D) and
``Yc Ycᵀ / degrees`` (N, N) share their eigenvalues; a vector u of the short one gives the component
``v = Ycᵀ u / sqrt(λ degrees)``, written out in one more pass. On the short side a pass holds N x p,
whatever D is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.models.pca.choice import Choice
from lazypipe.models.pca.journal import Journal
from lazypipe.models.pca.ritz import Ritz
from lazypipe.models.preparation import Preparation, Standardised, find_moments, standardise
from lazypipe.stats.centring import Centring
from lazypipe.stats.moments import ColumnMoments

UNMIXED_COLUMNS = 4096


class Components(NamedTuple):
    """The components of a fit, and how exact each of them is."""

    components: np.ndarray  # (k, n_columns), compute dtype, unit rows
    mean: np.ndarray  # (n_columns,) float64
    residuals: np.ndarray  # (k,) ‖C v - λ v‖ / λ


@dataclass
class Problem:
    """A matrix, what is to be done to it, and where."""

    matrix: Matrix
    asked: Preparation
    engine: Engine
    choice: Choice
    journal: Journal

    @property
    def dtype(self) -> np.dtype:
        """That the products are made in."""
        return compute_dtype(self.matrix.dtype)

    def moments(self) -> ColumnMoments:
        """Means and variances, in one pass."""
        plan = self.choice.moments
        assert plan is not None
        found: ColumnMoments = self.journal.recall(
            "moments", ColumnMoments, lambda: find_moments(self.matrix, self.asked, self.engine, plan)
        )
        return found

    def standardised(self) -> Standardised:
        """The matrix with its means and scales, in one pass."""
        return standardise(self.matrix, self.asked, self.moments())


class Side(Protocol):
    """A side of the matrix: what a solver iterates on, and how its vectors become components."""

    n_passes: int
    total_variance: float
    degrees: float  # what sums of squares are divided by
    scale: np.ndarray | None
    fill: np.ndarray | None  # (n_columns,) what gaps are filled with
    n_omitted: int
    n_constant: int

    @property
    def rank(self) -> int:
        """The dimension of the space that C acts on, at most."""

    def start(self, width: int, seed: int) -> np.ndarray:
        """An orthonormal block (n, width): random, or what an earlier fit found, filled up."""

    def apply(self, basis: np.ndarray) -> np.ndarray:
        """``C @ basis`` for this side's C."""

    def components(self, ritz: Ritz) -> Components:
        """The components for Ritz pairs of this side."""


class OnRows:
    """What both sides of vectors of length N share: ``_project`` is theirs."""

    problem: Problem
    matrix: Matrix
    centring: Centring | None
    n_omitted: int
    n_passes: int

    @property
    def rank(self) -> int:
        return self.matrix.shape[0] - (1 if self.centring else 0) - self.n_omitted

    def start(self, width: int, seed: int) -> np.ndarray:
        previous = self.problem.journal.previous
        found = None
        if previous is not None:
            found = self.problem.journal.recall(
                "start", np.ndarray, lambda: self._project(previous.T, "from the old components"), previous
            )
            self.n_passes += 1
            found = found / np.linalg.norm(found, axis=0)
        return orthonormal(self._off(filled_up(found, self.matrix.shape[0], width, seed)))

    def _off(self, block: np.ndarray) -> np.ndarray:
        return self.centring.off(block) if self.centring else block

    def _project(self, basis: np.ndarray, title: str) -> np.ndarray:
        """``Y basis`` (n_rows, p) for a basis (n_columns, p), in one pass."""
        raise NotImplementedError


def filled_up(found: np.ndarray | None, n: int, width: int, seed: int) -> np.ndarray:
    """A block (n, width) whose first columns are ``found`` (n, k), the others random."""
    block = np.random.default_rng(seed).standard_normal((n, width))
    if found is not None:
        block[:, : found.shape[1]] = found[:, :width]
    return block


def unmixed(components: np.ndarray) -> np.ndarray:
    """Rows (k, n_columns), in their own memory, orthonormal: each without its parts along those before it.

    A component written as ``Yᵀ u`` carries rounding along the leading ones, which C enlarges by λ₁ / λ.
    Cholesky QR: products in float64, a run of columns at a time.
    """
    runs = [slice(i, i + UNMIXED_COLUMNS) for i in range(0, components.shape[1], UNMIXED_COLUMNS)]
    gram = np.zeros((len(components),) * 2)
    for run in runs:
        part = components[:, run].astype(np.float64)
        gram += part @ part.T
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:  # of a component without variance nothing but rounding is there
        return components
    for run in runs:
        components[:, run] = inverse @ components[:, run].astype(np.float64)
    return components


def orthonormal(block: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, p) of the columns of ``block``."""
    return np.linalg.qr(block)[0]
