"""The covariance of the columns of a matrix, out of core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.engines import Engine, open_engine
from lazypipe.errors import ConfigError, PlanError
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Host, Plan, or_say_what_fits, plan_fold
from lazypipe.stats.covariance import Covariance
from lazypipe.stats.provisional import provisional_shift

REMEDY = "or select fewer columns: the answer alone is columns x columns x 8 bytes."


@dataclass(frozen=True)
class CovarianceResult:
    """Mean (n_columns,) and covariance (n_columns, n_columns), float64, of ``n_rows`` rows."""

    mean: np.ndarray
    covariance: np.ndarray
    n_rows: int
    ddof: int
    plan: Plan


def covariance(source: Any, ddof: int = 1, *, engine: Engine | None = None) -> CovarianceResult:
    """Mean and covariance of the columns of ``source``, in one pass over its rows.

    Parameters
    ----------
    source : path, Matrix or array (n_rows, n_columns) of any supported dtype.
    ddof : divide by n_rows - ddof; 1 for the unbiased estimate, 0 for the moment.
    engine : from ``open_engine``; None runs on threads of this process.

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
    PlanError (ddof), MemoryPlanError (before any data is read), DataError (NaN, infinity).
    """
    matrix = open_matrix(source)
    if engine is None:
        with open_engine() as engine:
            return covariance(matrix, ddof, engine=engine)
    plan = plan_covariance(matrix, ddof=ddof, engine=engine)
    (fold,) = plan.folds
    statistic = Covariance(provisional_shift(matrix), ddof)
    result = engine.fold(statistic, matrix, fold)
    return CovarianceResult(result.mean, result.covariance, result.n_rows, ddof, plan)


def plan_covariance(source: Any, *, engine: Engine, ddof: int = 1) -> Plan:
    """What ``covariance`` would take on ``engine``, from metadata alone."""
    matrix = open_matrix(source)
    require_ddof(matrix, ddof)
    return or_say_what_fits(lambda host: _plan(matrix, host), engine.host, REMEDY)


def require_ddof(matrix: Matrix, ddof: int) -> None:
    if ddof < 0:
        raise ConfigError(f"ddof: {ddof} is negative. Use 1 (unbiased) or 0.")
    if ddof >= matrix.shape[0]:
        raise PlanError(
            f"{matrix.uri}: ddof={ddof} with {matrix.shape[0]:,} rows would divide by zero or less. "
            f"Use a smaller ddof or more rows."
        )


def _plan(matrix: Matrix, host: Host) -> Plan:
    n_columns = matrix.shape[1]
    shape_only = np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), (n_columns,))
    fold = plan_fold("covariance", Covariance(shape_only), matrix, host, reserved=16 * n_columns)
    output = 8 * n_columns * (n_columns + 1)
    return Plan(
        "covariance", matrix.uri, matrix.shape, str(matrix.dtype), host, (fold,), passes=1, output_nbytes=output
    )
