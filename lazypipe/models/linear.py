"""Linear regression with standard errors and R², out of core: one fold, a second where digits would be lost."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from scipy.special import betainc

from lazypipe.blocks import Span, compute_dtype
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DataError, PlanError, require_fitted
from lazypipe.io import open_matrix
from lazypipe.models.design import Design, design_of, refuse_constant_columns, refuse_dependent_columns, require_dense
from lazypipe.models.least_squares import (
    MATRICES,
    Factor,
    Products,
    Solution,
    factor_of,
    products_of,
    solve_factor,
    solve_products,
)
from lazypipe.models.parameters import Parameterised
from lazypipe.operations import Operations
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits, plan_fold
from lazypipe.stats import Covariance, ResidualSquares, TriangularFactor
from lazypipe.stats.provisional import provisional_shift
from lazypipe.stats.residuals import Squares

Method = Literal["auto", "normal", "tsqr"]
NORMAL, TSQR, RESIDUALS, VALIDATION = "normal equations", "tsqr", "residuals", "validation"
ROUNDING = {"float32": 1e-7, "float64": 1e-15}  # relative, of products summed over blocks
EXACT = 10  # roundings of the squares of y: residual squares below them are rounding, too
LOST = 1e-4  # relative error of an answer that is not good enough
REMEDY = "or give fewer columns: the products alone are columns x columns x 8 bytes."
PREDICT_NBYTES = 2**24


class LinearRegression(Parameterised):
    """Least squares, ordinary or ridge, of one target on the columns of a matrix read in place.

    Minimises ‖y - X b - intercept‖² + ridge ‖b‖²; the intercept is not penalised, the columns are not
    standardised (as scikit-learn's Ridge(alpha=ridge)).

    Parameters
    ----------
    ridge : 0 or more, in squared units of the columns.
    fit_intercept : False for a plane through the origin.
    ddof : the residual variance divides by n_rows - ddof; None: the number of fitted parameters, for a
        ridge the trace of the hat matrix (and one for the intercept).
    method : "normal" solves the normal equations, scaled to a unit diagonal: one pass, products in the
        data's dtype; "tsqr" factors the rows in float64: one pass of some times the arithmetic, whose
        error grows with the condition number, not its square; "auto" takes the first, and the second
        after it where condition² x rounding (1e-7 for float32, 1e-15 for float64) exceeds 1e-4, or
        where 1 - R² is within 10 roundings of 0.

    Attributes
    ----------
    coef_, standard_errors_, t_values_, p_values_ : (D,) float64; p two-sided, of Student's t with
        n_rows - ddof degrees of freedom. For a ridge the standard errors are those of the sandwich
        ``s² A⁻¹ XᵀX A⁻¹``, ``A = XᵀX + ridge I``: spread without bias, so t and p test the shrunken value.
    columns_ : (D,) the columns of X that the coefficients are of (all but the target, where that is one).
    intercept_, intercept_standard_error_ : 0.0 and NaN without an intercept.
    r2_, r2_adjusted_ : of the training rows, about the mean of y also without an intercept; NaN where
        y is constant. r2_validation_ : of the rows given as ``validation``, else None.
    residual_variance_ : residual squares / (n_rows - ddof); NaN where no degrees of freedom are left.
    condition_number_ : 2-norm, of X centred (with an intercept) and scaled to columns of unit length.
    method_ ("normal equations" or "tsqr"), reason_, n_rows_, n_passes_ (over the training rows), plan_.

    Notes
    -----
    One pass over the rows; a second by TSQR as above; another where 1 - R² is so small that the
    products cannot tell it (below 1e-3 for float32); one over the validation rows. Peak memory is that
    of ``plan_``: a few matrices of 8 (D + 1)² bytes, and a block a task.
    Sources: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983; Demmel, Grigori,
    Hoemmen, Langou, SIAM J. Sci. Comput. 34, 2012; Hoerl, Kennard, "Ridge regression", 1970.
    """

    def __init__(
        self, ridge: float = 0.0, *, fit_intercept: bool = True, ddof: int | None = None, method: Method = "auto"
    ):
        self.ridge = ridge
        self.fit_intercept = fit_intercept
        self.ddof = ddof
        self.method = method

    def fit(self, X: Any, y: Any, *, engine: Engine | None = None, validation: Any = None) -> LinearRegression:
        """Fit ``y`` on the columns of ``X``.

        Parameters
        ----------
        X : path, Matrix or array (n_rows, n_columns).
        y : array (n_rows,), a source of one column, or the index of the column of X that is the target,
            which is then no feature.
        engine : from ``open_engine``; None works on threads of this process.
        validation : (X, y) of other rows, for ``r2_validation_``.

        Raises
        ------
        ConfigError, PlanError : parameters out of range, more parameters than rows; nothing is read.
        MemoryPlanError : the plan does not fit the engine's budget; nothing is read.
        DataError : sources that do not fit together, NaN or infinity, columns that depend on others.
        """
        design, valid = self._checked(X, y, validation)
        with engine_or_own(engine) as running:
            return self._fit(design, valid, running)

    def predict(self, rows: Any) -> np.ndarray:
        """Predictions (n,) for rows (n, D) of the features: an array, or a source read by blocks."""
        require_fitted(self, "coef_")
        if isinstance(rows, np.ndarray | list):
            values = np.atleast_2d(np.asarray(rows))
            self._require_columns("the rows given", values.shape[1])
            return values @ self.coef_ + self.intercept_
        matrix = open_matrix(rows)
        require_dense(matrix)
        n_rows, n_columns = matrix.shape
        self._require_columns(matrix.uri, n_columns)
        predictions = np.empty(n_rows)
        step = max(1, PREDICT_NBYTES // (8 * n_columns))
        block = np.empty((min(step, n_rows), n_columns))
        with matrix.open() as reader:
            for start in range(0, n_rows, step):
                span = Span(start, min(start + step, n_rows))
                values = block[: len(span)]
                reader.read(span, Span(0, n_columns), values)
                predictions[span.slice] = values @ self.coef_ + self.intercept_
        return predictions

    def score(self, X: Any, y: Any, *, engine: Engine | None = None) -> float:
        """R² on the rows of ``X`` and ``y``, as ``fit`` takes them, in one pass."""
        require_fitted(self, "coef_")
        design = design_of(X, y)
        self._require_columns(design.features.uri, design.n_features)
        with engine_or_own(engine) as running:
            return self._squares(design, _score_plan(design, running), running).r2

    def _checked(self, X: Any, y: Any, validation: Any) -> tuple[Design, Design | None]:
        """The sources, opened; all that metadata tell is refused here."""
        if not (isinstance(self.ridge, int | float | np.number) and 0 <= self.ridge < np.inf):
            raise ConfigError(f"ridge: {self.ridge!r} is no penalty. Give 0 (least squares) or a positive number.")
        if self.method not in get_args(Method):
            raise ConfigError(f"method: {self.method!r} is not one of {', '.join(get_args(Method))}.")
        if self.ddof is not None and not (isinstance(self.ddof, int | np.integer) and self.ddof >= 0):
            raise ConfigError(f"ddof: {self.ddof!r} is not a number of parameters. Give 0 or more, or leave it out.")
        design = design_of(X, y)
        n_rows, n_parameters = design.matrix.shape[0], design.n_features + bool(self.fit_intercept)
        if self.ddof is not None and self.ddof >= n_rows:
            raise PlanError(
                f"{design.features.uri}: ddof={self.ddof} with {n_rows:,} rows would divide by zero or less. "
                f"Use a smaller ddof or more rows."
            )
        if n_parameters > n_rows and not self.ridge:
            raise PlanError(
                f"{design.features.uri}: {n_parameters:,} parameters cannot be told from {n_rows:,} rows. "
                f"Give more rows, drop columns, or pass a ridge above 0."
            )
        if validation is None:
            return design, None
        if not (isinstance(validation, tuple | list) and len(validation) == 2):
            raise ConfigError("validation: must be a pair (X, y).")
        valid = design_of(*validation)
        if valid.n_features != design.n_features:
            raise DataError(
                f"{valid.features.uri}: {valid.n_features:,} feature columns for validation, but "
                f"{design.features.uri} has {design.n_features:,}. Give rows of the same columns."
            )
        return design, valid

    def _fit(self, design: Design, valid: Design | None, engine: Engine) -> LinearRegression:
        plan = _plan(design, valid, self, engine)
        folds = {fold.title: fold for fold in plan.folds}
        rounding = ROUNDING[compute_dtype(design.matrix.dtype).name]
        shift = provisional_shift(design.matrix)
        self.n_passes_ = 0
        solution: Solution | None = None
        data: Products | Factor
        enough = False
        if self.method != "tsqr":
            found = engine.fold(Covariance(shift, ddof=0), design.matrix, folds[NORMAL])
            self.n_passes_ += 1
            products = products_of(found, design.order, self.fit_intercept)
            if not self.ridge:
                refuse_constant_columns(design, products.mean, products.gram.diagonal(), self.fit_intercept)
            solution = solve_products(products, self.ridge, rounding)
            data, squares = products, float(products.gram[-1, -1])
            told = "every digit" if solution is None else f"about {solution.loss:.0e} of their size"
            self.method_ = NORMAL
            self.reason_ = f"rounding of the products costs the coefficients {told}"
            if solution is not None and solution.residual_squares < EXACT * rounding * squares:
                # The coefficients' rounding may then exceed their standard errors.
                self.reason_ = "the fit is so close that rounding of the products would hide what is left"
            else:
                enough = solution is not None and solution.loss <= LOST
        if self.method == "tsqr" or (self.method == "auto" and not enough):
            upper = engine.fold(TriangularFactor(shift), design.matrix, folds[TSQR])
            self.n_passes_ += 1
            factor = factor_of(upper, shift, design.order, self.fit_intercept)
            if not self.ridge:
                refuse_dependent_columns(design, factor, self.fit_intercept)
            solution, data = solve_factor(factor, self.ridge, ROUNDING["float64"]), factor
            if self.method == "tsqr":
                self.reason_ = "as asked for"
            else:
                self.reason_ = f"QR of the rows keeps the digits; in normal equations {self.reason_}"
            self.method_ = TSQR
        if solution is None:
            raise DataError(
                f"{design.features.uri}: columns so nearly dependent that {self.method_} keep no digit of the "
                f"coefficients. "
                + (
                    "Raise the ridge."
                    if self.ridge
                    else "Use method='tsqr', which names them, or pass a ridge above 0."
                )
            )
        residual_squares, total_squares = solution.residual_squares, data.total_squares
        self.coef_ = solution.coef
        mean, y_mean = data.mean[:-1], float(data.mean[-1])
        self.intercept_ = y_mean - float(mean @ self.coef_) if self.fit_intercept else 0.0
        if self.method_ == NORMAL and residual_squares < rounding / LOST * squares:
            told_by_residuals = self._squares(design, folds[RESIDUALS], engine)
            residual_squares, total_squares = told_by_residuals.residual, told_by_residuals.total
            self.n_passes_ += 1
        n_rows = design.matrix.shape[0]
        if total_squares <= n_rows * (np.finfo(float).eps * y_mean) ** 2:
            total_squares = 0.0  # a constant
            if self.fit_intercept:  # which is the whole of it: what else was found is rounding
                self.coef_, self.intercept_, residual_squares = np.zeros_like(self.coef_), y_mean, 0.0
        self.n_rows_, self.n_features_in_, self.columns_ = n_rows, design.n_features, design.order[:-1]
        self.condition_number_ = solution.condition
        self._keep_errors(solution, mean, Squares(n_rows, residual_squares, y_mean, total_squares))
        self.r2_validation_ = None if valid is None else self._squares(valid, folds[VALIDATION], engine).r2
        self.plan_ = plan
        return self

    def _keep_errors(self, solution: Solution, mean: np.ndarray, squares: Squares) -> None:
        n_rows = squares.n_rows
        ddof = solution.parameters() + bool(self.fit_intercept) if self.ddof is None else float(self.ddof)
        self.ddof_ = ddof
        freedom = n_rows - ddof if n_rows - ddof > 1e-6 else np.nan
        self.residual_variance_ = float(squares.residual / freedom)
        self.standard_errors_ = np.sqrt(self.residual_variance_ * solution.variances())
        self.intercept_standard_error_ = np.nan
        if self.fit_intercept:
            variance = 1 / n_rows + solution.variance_along(mean)
            self.intercept_standard_error_ = float(np.sqrt(self.residual_variance_ * variance))
        with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit has no spread
            self.t_values_ = self.coef_ / self.standard_errors_
            self.p_values_ = betainc(freedom / 2, 0.5, freedom / (freedom + self.t_values_**2))
        self.r2_ = squares.r2
        self.r2_adjusted_ = 1 - (1 - self.r2_) * (n_rows - 1) / freedom

    def _squares(self, design: Design, fold: FoldPlan, engine: Engine) -> Squares:
        squares: Squares = engine.fold(ResidualSquares(self.coef_, self.intercept_, design.target), design.matrix, fold)
        return squares

    def _require_columns(self, what: str, n_columns: int) -> None:
        if n_columns != len(self.coef_):
            raise DataError(
                f"{what}: {n_columns:,} feature columns, but the model has {len(self.coef_):,}. "
                f"Give rows of the same columns."
            )


def plan_linear_regression(X: Any, y: Any, model: LinearRegression, engine: Engine, *, validation: Any = None) -> Plan:
    """What ``model.fit(X, y, engine=engine, validation=validation)`` would take, from metadata alone."""
    return _plan(*model._checked(X, y, validation), model, engine)


def _plan(design: Design, valid: Design | None, model: LinearRegression, engine: Engine) -> Plan:
    return or_say_what_fits(lambda host: _planned(design, valid, model, host), engine.host, REMEDY)


def _planned(design: Design, valid: Design | None, model: LinearRegression, host: Host) -> Plan:
    matrix = design.matrix
    n_columns = matrix.shape[1]
    shift = np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), (n_columns,))
    held = 8 * MATRICES * n_columns**2 + 64 * n_columns
    folds, notes = [], []
    solved = Operations(decomposition=3.0 * n_columns**3)  # eigenvalues, a Cholesky factor and its inverse
    if model.method != "tsqr":
        folds.append(plan_fold(NORMAL, Covariance(shift, 0), matrix, host, held).doing(on_driver=solved))
    if model.method != "normal":
        fold = plan_fold(TSQR, TriangularFactor(shift), matrix, host, held)
        folds.append(fold.doing(on_driver=solved, times=float(model.method == "tsqr")))
    if model.method == "auto":
        notes.append("tsqr is one more pass, taken only where the normal equations would lose digits")
    if model.method != "tsqr":
        notes.append("residuals is one more pass, taken only where R² is too near 1 for the products to tell")
        folds.append(plan_fold(RESIDUALS, _residuals(design), matrix, host, held).doing(times=0.0))
    if valid is not None:
        notes.append(f"one pass over the validation rows, {valid.matrix.uri}")
        folds.append(plan_fold(VALIDATION, _residuals(valid), valid.matrix, host, held))
    return Plan(
        "linear regression", matrix.uri, matrix.shape, str(matrix.dtype), host, tuple(folds), passes=1,
        output_nbytes=8 * 5 * n_columns, notes=tuple(notes),
    )  # fmt: skip


def _score_plan(design: Design, engine: Engine) -> FoldPlan:
    return or_say_what_fits(
        lambda host: plan_fold(RESIDUALS, _residuals(design), design.matrix, host), engine.host, REMEDY
    )


def _residuals(design: Design) -> ResidualSquares:
    return ResidualSquares(np.zeros(design.n_features), 0.0, design.target)
