"""A fit: from a planned choice, through its solver, to components with their certificates."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.models.pca.choice import EMITTING_PASSES
from lazypipe.models.pca.deflation import deflation
from lazypipe.models.pca.direct import leading_pairs
from lazypipe.models.pca.gradient import block_gradient
from lazypipe.models.pca.long_side import LongSide
from lazypipe.models.pca.ritz import Ritz
from lazypipe.models.pca.row_side import RowSide
from lazypipe.models.pca.short_side import ShortSide
from lazypipe.models.pca.sides import Components, Problem, Side
from lazypipe.progress import PassDone

DEFAULT_PASSES = {"gradient": 100, "deflation": 20_000}
SIDES: dict[str, Callable[[Problem], Side]] = {"rows": ShortSide, "row blocks": RowSide, "columns": LongSide}

NO_VARIANCE = "every column is constant, so there is no variance to explain. Check what wrote it."


class Iteration(NamedTuple):
    """The parameters of the solvers that iterate."""

    tol: float
    max_passes: int | None
    step: float | None  # of deflation; None adapts it
    seed: int


class Fitted(NamedTuple):
    """What a solver found, on which side, and the components of it."""

    side: Side
    ritz: Ritz
    found: Components


def fit(problem: Problem, k: int, iteration: Iteration, on_pass: Callable[[PassDone], None]) -> Fitted:
    """Solve, check the rank, write the components out."""
    side = SIDES[problem.choice.side](problem)
    ritz = _solve(problem, side, k, iteration, on_pass)
    require_rank(problem.matrix, ritz.values, side.total_variance)
    return Fitted(side, ritz, side.components(ritz))


def _solve(problem: Problem, side: Side, k: int, iteration: Iteration, on_pass: Callable[[PassDone], None]) -> Ritz:
    solver = problem.choice.solver
    if isinstance(side, ShortSide) and solver == "gram":
        return leading_pairs(side.gram(), k)
    if isinstance(side, LongSide):
        if solver == "covariance":
            return leading_pairs(side.covariance(), k)
        side.prepare()
    if side.total_variance <= 0:
        raise DataError(f"{problem.matrix.uri}: {NO_VARIANCE}")
    noise = _noise(problem.matrix)
    before = side.n_passes  # for means, and for a start from old components

    def judge(residual: float, values: np.ndarray) -> None:
        if solver == "gradient" and side.n_passes > before + 2:
            require_rank(problem.matrix, values, side.total_variance)
        floor = max(noise * float(values[0]), np.finfo(float).tiny)
        on_pass(PassDone(side.n_passes, residual, tuple(float(v) for v in np.maximum(values, floor))))

    start = side.start(k if solver == "deflation" else problem.choice.width, iteration.seed)
    # Of the passes allowed some are done, and some write the components out.
    n_passes = (iteration.max_passes or DEFAULT_PASSES[solver]) - side.n_passes
    n_passes -= EMITTING_PASSES[problem.choice.side]
    n_products = max(1, n_passes // (2 if problem.choice.side == "row blocks" else 1))
    if solver == "deflation":
        return deflation(side.apply, start, iteration.tol, n_products, iteration.step, judge)
    n, width = start.shape
    most_blocks = min(problem.choice.max_blocks, -(-n // width) + 1)
    return block_gradient(side.apply, start, k, iteration.tol, n_products, most_blocks, side.rank, judge)


def _noise(matrix: Matrix) -> float:
    """Eigenvalues below this part of the largest are rounding, not variance."""
    return 4 * float(np.finfo(compute_dtype(matrix.dtype)).eps)


def require_rank(matrix: Matrix, values: np.ndarray, total_variance: float) -> None:
    """Raise DataError where an eigenvalue is no more than rounding."""
    if not total_variance > 0 or values[0] <= 0:
        raise DataError(f"{matrix.uri}: {NO_VARIANCE}")
    rank = int((values > _noise(matrix) * values[0]).sum())
    if rank < len(values):
        raise DataError(
            f"{matrix.uri}: n_components={len(values)} is more than the rank: only {rank} components have "
            f"variance above rounding. Ask for n_components <= {rank}."
        )
