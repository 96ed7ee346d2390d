"""The covariance of the columns of a matrix, out of core."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.blocks import Span, compute_dtype
from lazypipe.checkpoint import StateFolder
from lazypipe.checks import require_restart
from lazypipe.engines import Engine, engine_or_own
from lazypipe.engines.checkpointed import Beside, Checkpointed
from lazypipe.errors import ConfigError, DataError, PlanError
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.io.prepared import Prepared
from lazypipe.models.preparation import (
    Preparation,
    find_moments,
    plan_moments,
    preparation,
    rounding_of,
    too_little_weight,
)
from lazypipe.models.tiled import TiledCovariance
from lazypipe.models.tiles import TILES_REMEDY, plan_tiles, write_tiles
from lazypipe.operations import Operations
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits, plan_fold
from lazypipe.stats.covariance import Covariance, CovarianceMatrix, sparse_scratch_nbytes
from lazypipe.stats.provisional import provisional_shift
from lazypipe.stores import AnyPath, as_given

REMEDY = "or write tiles to disk (out='cov.zarr'; --tiles cov.zarr): the answer alone is columns x columns x 8 bytes."


@dataclass(frozen=True)
class CovarianceResult:
    """Mean (n_columns,) and covariance (n_columns, n_columns), float64, of ``n_rows`` rows.

    ``weight`` is the sum of their weights. Written as tiles, ``covariance`` is a TiledCovariance.
    """

    mean: np.ndarray
    covariance: np.ndarray | TiledCovariance
    n_rows: int
    ddof: int
    plan: Plan
    weight: float
    n_new_rows: int  # read now; the others came from the state

    def __repr__(self) -> str:
        where = f", {self.covariance!r}" if isinstance(self.covariance, TiledCovariance) else ""
        n = len(self.mean)
        return f"CovarianceResult(({n:,}, {n:,}) of {self.n_rows:,} rows, ddof={self.ddof}{where})"


def covariance(
    source: Any,
    ddof: int = 1,
    *,
    engine: Engine | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    center: bool = True,
    scale: bool = False,
    nan: str = "raise",
    row_weights: Any = None,
    state: str | Path | None = None,
    restart: bool = False,
) -> CovarianceResult:
    """Mean and covariance of the columns of ``source``, in one pass over its rows.

    Parameters
    ----------
    source : path, Matrix or array (n_rows, n_columns) of any supported dtype.
    ddof : divide by n_rows - ddof; 1 for the unbiased estimate, 0 for the moment.
    engine : from ``open_engine``; None runs on threads of this process.
    out : a new Zarr store, ``cov.zarr``: write the upper triangle there as tiles, for more columns than
        memory holds (see ``lazypipe.models.tiles``). Killed and called again, it goes on with the tiles
        that are missing. ``overwrite`` replaces a store that is there.
    center : False gives the second moment about zero.
    scale : True gives the correlation; constant columns keep their zeros.
    nan : "raise", "omit" (rows that hold one) or "mean" (fill with the column's mean: a pass more).
    row_weights : (n_rows,) or the path of such an .npy; a row of weight 2 counts as two rows, and the sum
        of weights takes the place of n_rows.
    state : a folder that keeps the state after every group of blocks. Called again after a kill it redoes
        one group; on data that grew it reads the new rows alone. ``restart`` forgets it first.

    Returns
    -------
    CovarianceResult with ``mean``, ``covariance``, ``n_rows``; float64.

    Notes
    -----
    One pass and a few first rows. Products are in the dtype of the data (float32 where that holds it
    exactly) about a provisional mean, sums in float64: errors stay near 1e-7 of s_i s_j for float32,
    1e-6 where means are 10^4 standard deviations. Peak memory: a few states of 8 n_columns² bytes.

    Raises
    ------
    ConfigError, PlanError, MemoryPlanError : before any data is read.
    DataError : NaN or infinity, weights that do not fit, a state of something else, data that changed.
    """
    require_restart(state, restart)
    matrix = open_matrix(source)
    ddof = checked_ddof(matrix, ddof)
    asked = _preparation(matrix, center, scale, nan, row_weights)
    require_state(state, out, asked)
    if out is not None:
        with engine_or_own(engine) as running:
            return _tiled(matrix, ddof, asked, running, _store(out), overwrite)
    with engine_or_own(engine) as running:
        return _in_memory(matrix, ddof, asked, running, state, restart)


def _in_memory(
    matrix: Matrix, ddof: int, asked: Preparation, engine: Engine, state: str | Path | None, restart: bool
) -> CovarianceResult:
    plan = or_say_what_fits(lambda host: _plan(matrix, asked, host), engine.host, REMEDY)
    fold, *before = plan.folds
    with nullcontext() if state is None else StateFolder(state, restart) as folder:
        filling = find_moments(matrix, asked, engine, before[0]).mean if before else None
        result, n_new = folded(matrix, ddof, asked, engine, fold, filling, folder)
    if asked.scale:
        _to_correlation(result.covariance, result.mean, rounding_of(matrix.dtype))
    return CovarianceResult(result.mean, result.covariance, result.n_rows, ddof, plan, result.weight, n_new)


def _preparation(matrix: Matrix, center: bool, scale: bool, nan: str, row_weights: Any) -> Preparation:
    if scale not in (False, True):
        raise ConfigError(f"scale: {scale!r} is not True (the correlation) or False.")
    if scale and not center:
        raise ConfigError("scale: a correlation is about the mean. Leave out center=False, or scale.")
    return preparation(matrix, center, scale, nan, row_weights)


def folded(
    matrix: Matrix,
    ddof: int,
    asked: Preparation,
    engine: Engine,
    fold: FoldPlan,
    filling: np.ndarray | None,
    folder: StateFolder | None,
) -> tuple[CovarianceMatrix, int]:
    """The unscaled covariance by the planned ``fold``, and how many rows were read for it.

    ``filling`` (n_columns,) takes the place of NaN. With a ``folder`` the state is kept there.
    """
    if filling is not None:
        matrix = Prepared(matrix, filling=filling.astype(compute_dtype(matrix.dtype)))

    def make(context: dict[str, np.ndarray]) -> Covariance:
        shift, omits = context.get("shift"), asked.nan == "omit"
        return Covariance(shift, ddof, asked.weights, asked.center, omits, asked.alleles)

    def context() -> dict[str, np.ndarray]:
        shifts = asked.center and not matrix.sparse
        return {"shift": provisional_shift(matrix, asked.nan == "omit")} if shifts else {}

    result: CovarianceMatrix
    if folder is None:
        result, n_new = engine.fold(make(context()), matrix, fold), matrix.shape[0]
    else:
        identity = {
            "statistic": "covariance",
            "source": matrix.uri,
            "n_columns": matrix.shape[1],
            "dtype": str(matrix.dtype),
            "center": asked.center,
            "nan": asked.nan,
            "weighted": asked.weights is not None,
        }

        def cut(span: Span) -> FoldPlan:
            return covariance_fold(matrix, asked, engine.host, span)

        weights = asked.weights
        beside = None if weights is None else Beside("row_weights", lambda span: weights[span.slice])
        saved = Checkpointed(folder, "covariance", identity, beside)
        result, n_new = saved.fold(engine, Covariance, make, context, matrix, cut)
    if not result.weight > ddof:
        raise DataError(too_little_weight(matrix, matrix.shape[0] - result.n_rows, result.weight, ddof))
    return result, n_new


def require_state(state: str | Path | None, out: str | Path | None, asked: Preparation) -> None:
    """Raise ConfigError for a state beside tiles, or one that would not stay true of more rows."""
    if state is not None and out is not None:
        raise ConfigError("state: tiles (out=, --tiles) keep their own state in the store. Leave state out.")
    if state is not None and asked.nan == "mean":
        raise ConfigError(
            "nan: 'mean' fills in other values with every new row, so nothing saved stays true. "
            "Use nan='omit', or leave state out."
        )


def _tiled(
    matrix: Matrix, ddof: int, asked: Preparation, engine: Engine, out: AnyPath, overwrite: bool
) -> CovarianceResult:
    plan = or_say_what_fits(lambda host: plan_tiles(matrix, asked, host, out), engine.host, TILES_REMEDY)
    tiled = write_tiles(matrix, ddof, asked, engine, plan, out, overwrite)
    return CovarianceResult(tiled.mean, tiled, tiled.n_rows, ddof, plan, tiled.weight, matrix.shape[0])


def _store(out: str | Path) -> AnyPath:
    place = as_given(out)
    if place.suffix not in ("", ".zarr"):
        raise ConfigError(f"out (--tiles): {str(out)!r} is no .zarr, which tiles are written to. Name it cov.zarr.")
    return place


def _to_correlation(covariance: np.ndarray, mean: np.ndarray, rounding: float) -> None:
    """In its own memory; a constant column, whose row is zero, stays so."""
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    varies = deviation > rounding * np.abs(mean)
    gain = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    for i, row in enumerate(covariance):
        row *= gain[i] * gain


def plan_covariance(
    source: Any,
    *,
    engine: Engine,
    ddof: int = 1,
    out: str | Path | None = None,
    center: bool = True,
    scale: bool = False,
    nan: str = "raise",
    row_weights: Any = None,
    state: str | Path | None = None,
) -> Plan:
    """What ``covariance`` would take on ``engine``, from metadata alone."""
    matrix = open_matrix(source)
    checked_ddof(matrix, ddof)
    asked = _preparation(matrix, center, scale, nan, row_weights)
    require_state(state, out, asked)
    if out is not None:
        path = _store(out)
        return or_say_what_fits(lambda host: plan_tiles(matrix, asked, host, path), engine.host, TILES_REMEDY)
    return or_say_what_fits(lambda host: _plan(matrix, asked, host), engine.host, REMEDY)


def checked_ddof(matrix: Matrix, ddof: Any) -> Any:
    """``ddof`` as a number of Python's, as records take it. Raises ConfigError, PlanError."""
    if not isinstance(ddof, int | float | np.integer | np.floating) or not ddof >= 0:
        raise ConfigError(f"ddof: {ddof!r} is no number of 0 or above. Use 1 (unbiased) or 0.")
    if ddof >= matrix.shape[0]:
        raise PlanError(
            f"{matrix.uri}: ddof={ddof} with {matrix.shape[0]:,} rows would divide by zero or less. "
            f"Use a smaller ddof or more rows."
        )
    return ddof.item() if isinstance(ddof, np.generic) else ddof


@dataclass(frozen=True)
class SparseCovariance(Covariance):
    """What a plan counts of sparse rows: ``rows_nbytes(n)`` bytes of so many in float64, at most."""

    rows_nbytes: Callable[[int], int] = int

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        return sparse_scratch_nbytes(n_columns, self.rows_nbytes(n_rows))


def covariance_fold(
    matrix: Matrix, asked: Preparation, host: Host, span: Span | None = None, reserved: int = 0
) -> FoldPlan:
    """The cuts of the fold; ``reserved`` bytes are held on the driver besides."""
    n_rows, n_columns = matrix.shape
    weights, omits = asked.weights, asked.nan == "omit"
    if matrix.sparse:
        statistic: Covariance = SparseCovariance(
            None, weights=weights, omit_nan=omits, rows_nbytes=lambda n: matrix.block_nbytes(n, n_columns, 8)
        )
    else:
        shift = np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), (n_columns,))
        statistic = Covariance(shift, weights=weights, omit_nan=omits)
    reserved += 16 * n_columns + (0 if asked.weights is None else 3 * 8 * n_rows)
    return plan_fold("covariance", statistic, matrix, host, reserved, span)


def _plan(matrix: Matrix, asked: Preparation, host: Host) -> Plan:
    n_columns = matrix.shape[1]
    output = 8 * n_columns * (n_columns + 1)
    finished = Operations(memory=2.0 * output)  # the mean taken off, and divided
    folds = [covariance_fold(matrix, asked, host).doing(on_driver=finished)]
    if asked.nan == "mean":
        folds.append(plan_moments(matrix, asked, host))
    return Plan(
        "covariance", matrix.uri, matrix.shape, str(matrix.dtype), host, tuple(folds), passes=len(folds),
        output_nbytes=output,
    )  # fmt: skip
