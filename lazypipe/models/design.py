"""Features and target as one matrix, and the columns that no least squares can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io import open_matrix
from lazypipe.io.beside import Beside, open_column
from lazypipe.io.matrix import Matrix
from lazypipe.models.least_squares import Factor, dependent_columns

NAMED = 8  # columns that an error lists


@dataclass(frozen=True, eq=False)
class Design:
    """Features and target as one matrix: ``target`` is the column of y, ``features`` says where X came from."""

    matrix: Matrix
    target: int
    features: Matrix

    @property
    def order(self) -> np.ndarray:
        """Columns of the matrix, y last."""
        n_columns = self.matrix.shape[1]
        return np.append(np.delete(np.arange(n_columns), self.target), self.target)

    @property
    def n_features(self) -> int:
        return self.matrix.shape[1] - 1


def design_of(X: Any, y: Any) -> Design:
    """Features and target as one source. DataError or ConfigError where they do not fit together."""
    features = open_matrix(X)
    if not isinstance(y, int | np.integer) or isinstance(y, bool):
        matrix = Beside(features, open_column(y))
        return Design(matrix, matrix.shape[1] - 1, features)
    n_columns = features.shape[1]
    if not -n_columns <= y < n_columns:
        raise ConfigError(
            f"y (--target): {features.uri} has no column {y}. Give 0 to {n_columns - 1:,}, or a source of one column."
        )
    if n_columns == 1:
        raise DataError(f"{features.uri}: its only column is the target, so no feature is left. Give more columns.")
    require_dense(features)
    return Design(features, int(y) % n_columns, features)


def require_dense(matrix: Matrix) -> None:
    """Raise DataError for sparse rows."""
    if matrix.sparse:
        raise DataError(f"{matrix.uri}: is sparse; linear regression reads dense rows alone. Pass a dense matrix.")


def refuse_constant_columns(design: Design, mean: np.ndarray, squares: np.ndarray, intercept: bool) -> None:
    """A column whose deviations are within the rounding of its values is the intercept once more."""
    within = design.matrix.shape[0] * (_rounding_of_values(design) * mean[:-1]) ** 2 if intercept else 0.0
    flat = design.order[:-1][squares[:-1] <= within]
    if len(flat):
        what = "constant, as the intercept is" if intercept else "zero throughout"
        verb = "is" if len(flat) == 1 else "are"
        raise DataError(
            f"{design.features.uri}: {_listed(flat)} {verb} {what}. Drop {_it(flat)}, or pass a ridge above 0."
        )


def refuse_dependent_columns(design: Design, factor: Factor, intercept: bool) -> None:
    """Raise DataError where columns are combinations of others, to the rounding of their values, naming both."""
    squares = np.einsum("ij,ij->j", factor.upper, factor.upper)
    refuse_constant_columns(design, factor.mean, squares, intercept)
    far = design.matrix.shape[0] * factor.mean[:-1] ** 2 / squares[:-1] if intercept else 0.0
    rounding = _rounding_of_values(design) * np.sqrt(1 + far + np.zeros(design.n_features))
    found = dependent_columns(factor, np.maximum(rounding, 10 * design.n_features * np.finfo(float).eps))
    if found:
        columns = design.order[:-1]
        parts = "; ".join(f"column {columns[k]:,} of {_listed(columns[of])}" for k, of in found[:NAMED])
        more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        names = columns[[k for k, _ in found]]
        raise DataError(
            f"{design.features.uri}: linear combinations of other columns, to the rounding of "
            f"{design.features.dtype}: {parts}{more}. Drop {_it(names)}, or pass a ridge above 0."
        )


def _rounding_of_values(design: Design) -> float:
    """Relative rounding of the values of the features, as stored; that of float64 for integers, which are exact."""
    dtype = design.features.dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def _listed(columns: np.ndarray) -> str:
    names = ", ".join(f"{column:,}" for column in columns[:NAMED])
    more = f" and {len(columns) - NAMED:,} more" if len(columns) > NAMED else ""
    return f"column{'s' * (len(columns) != 1)} {names}{more}"


def _it(columns: np.ndarray) -> str:
    return "it" if len(columns) == 1 else "them"
