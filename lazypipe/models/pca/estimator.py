"""PCA as scikit-learn's users know it, out of core."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lazypipe.blocks import Span, compute_dtype
from lazypipe.engines import Engine, open_engine
from lazypipe.errors import ConfigError, ConvergenceWarning, DataError
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.models.pca.choice import Choice, Solver, choose
from lazypipe.models.pca.deflation import deflation
from lazypipe.models.pca.direct import leading_pairs
from lazypipe.models.pca.gradient import block_gradient
from lazypipe.models.pca.ritz import Ritz
from lazypipe.models.pca.sides import Components, LongSide, ShortSide
from lazypipe.plan import Plan, or_say_what_fits
from lazypipe.progress import PassDone

SOLVERS = ("auto", "gradient", "deflation", "gram", "covariance")
DEFAULT_PASSES = {"gradient": 100, "deflation": 20_000}
REMEDY = "or ask for fewer components (n_components)."
TRANSFORM_NBYTES = 2**24


class PCA:
    """Leading principal components of a matrix read in place, with a residual for each.

    Parameters
    ----------
    n_components : how many, at most min(n_rows - 1, n_columns).
    solver : "auto" chooses by cost and says why (``reason_``);
        "gradient", locally optimal block gradient ascent, for what fits nowhere: about 12 passes;
        "gram", exact, from the (n_rows, n_rows) Gram matrix: 2 passes;
        "covariance", exact, from the (n_columns, n_columns) covariance: 1 pass;
        "deflation", one component at a time, the textbook's: hundreds of passes and more.
        All but "covariance" never form the (n_columns, n_columns) matrix.
    tol : stop once ‖C v - λ v‖ ≤ tol λ for every component (gradient, deflation). float32 data carry
        about 1e-6.
    max_passes : stop after so many passes over the data, all counted; None: 100 for gradient, 20,000
        for deflation.
    step : of deflation: "adaptive" takes the best step on each line; a number fixes it, in units of
        1/λ₁ (1.0 is the textbook's).
    seed : of the random start. The same seed, data and memory budget give the same bits on any engine.

    Attributes
    ----------
    components_ : (n_components, n_columns), orthonormal rows, float32 or float64 as computed; the
        entry of largest magnitude in each row is positive.
    explained_variance_ : (n_components,) eigenvalues of the covariance (dividing by n_rows - 1).
    explained_variance_ratio_ : of the total variance.
    mean_ : (n_columns,) float64.
    residuals_ : (n_components,) ‖C v - λ v‖ / λ.
    converged_, n_passes_, solver_, reason_, total_variance_, n_samples_, n_features_in_, plan_,
    history_ : what happened; ``history_`` has one dict a judged pass.

    Notes
    -----
    Works on the shorter side of the matrix that the source can deliver. Peak memory is that of
    ``plan_``: a few blocks, and n x p vectors for n the shorter side and p = max(n_components + 6, 16).
    Method: Knyazev, SIAM J. Sci. Comput. 23 (2001); Halko, Martinsson, Tropp, SIAM Review 53 (2011).
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        solver: Solver = "auto",
        tol: float = 1e-6,
        max_passes: int | None = None,
        step: float | str = "adaptive",
        seed: int = 0,
    ):
        self.n_components = n_components
        self.solver = solver
        self.tol = tol
        self.max_passes = max_passes
        self.step = step
        self.seed = seed

    def fit(self, source: Any, y: None = None, *, engine: Engine | None = None) -> PCA:
        """Find the components of ``source``: a path, Matrix or array (n_rows, n_columns).

        ``engine`` comes from ``open_engine``; None works on threads of this process.

        Raises
        ------
        ConfigError, PlanError : parameters out of range, before any data is read.
        MemoryPlanError : the plan does not fit the engine's budget, before any data is read.
        DataError : NaN or infinity (row and column named), fewer components than asked for.

        Warns
        -----
        ConvergenceWarning : ``max_passes`` came before ``tol``.
        """
        matrix = open_matrix(source)
        self._check()
        if engine is None:
            with open_engine() as engine:
                return self.fit(matrix, engine=engine)
        choice = self._choose(matrix, engine)
        self.history_: list[dict[str, Any]] = []
        if choice.side == "rows":
            side: ShortSide | LongSide = ShortSide(matrix, engine, choice.product, _required(choice))
        else:
            side = LongSide(matrix, engine, choice.product, choice.before_or_after)
        ritz = self._solve(matrix, engine, choice, side)
        _require_rank(matrix, ritz.values, side.total_variance)
        self._keep(matrix, choice, side, ritz, side.components(ritz))
        if not self.converged_:
            warnings.warn(
                f"PCA stopped after {self.n_passes_} passes at a relative residual of "
                f"{self.residuals_.max():.1e}, above tol={self.tol:g}: raise max_passes, or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def transform(self, rows: Any) -> np.ndarray:
        """Scores (n_rows, n_components) of new rows: an array, or a source read by blocks."""
        if isinstance(rows, np.ndarray | list):
            values = np.atleast_2d(np.asarray(rows))
            self._require_columns("the rows given", values.shape[1])
            return (values - self.mean_) @ self.components_.T.astype(np.float64)
        matrix = open_matrix(rows)
        n_rows, n_columns = matrix.shape
        self._require_columns(matrix.uri, n_columns)
        scores = np.empty((n_rows, len(self.components_)))
        step = max(1, TRANSFORM_NBYTES // (8 * n_columns))
        with matrix.open() as reader:
            for start in range(0, n_rows, step):
                span = Span(start, min(start + step, n_rows))
                block = np.empty((len(span), n_columns))
                reader.read(span, Span(0, n_columns), block)
                scores[span.slice] = self.transform(block)
        return scores

    def inverse_transform(self, scores: np.ndarray) -> np.ndarray:
        """Rows (n, n_columns) whose scores are ``scores`` (n, n_components)."""
        return np.asarray(scores) @ self.components_ + self.mean_

    def fit_transform(self, source: Any, y: None = None, *, engine: Engine | None = None) -> np.ndarray:
        """``fit`` and ``transform`` of the same source."""
        matrix = open_matrix(source)
        return self.fit(matrix, engine=engine).transform(matrix)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, as scikit-learn asks for them."""
        names = ("n_components", "solver", "tol", "max_passes", "step", "seed")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> PCA:
        """Change parameters by name."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ConfigError(f"PCA has no parameter {name!r}. It has {', '.join(self.get_params())}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"PCA({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def _check(self) -> None:
        if not isinstance(self.n_components, int | np.integer) or self.n_components < 1:
            raise ConfigError(f"n_components: {self.n_components!r} is not a number of components. Give 1 or more.")
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver: {self.solver!r} is not one of {', '.join(SOLVERS)}.")
        if not self.tol > 0:
            raise ConfigError(f"tol: {self.tol!r} cannot be reached. Give a relative residual above 0, as 1e-6.")
        if self.max_passes is not None and self.max_passes < 3:
            raise ConfigError(f"max_passes: {self.max_passes} is too few. Give 3 or more, or leave it out.")
        if self.step != "adaptive" and not (isinstance(self.step, int | float) and self.step > 0):
            raise ConfigError(f"step: {self.step!r} is neither 'adaptive' nor a positive number.")

    def _choose(self, matrix: Matrix, engine: Engine) -> Choice:
        return or_say_what_fits(
            lambda host: choose(matrix, int(self.n_components), self.solver, host), engine.host, REMEDY
        )

    def _solve(self, matrix: Matrix, engine: Engine, choice: Choice, side: ShortSide | LongSide) -> Ritz:
        k = int(self.n_components)
        if isinstance(side, ShortSide) and choice.solver == "gram":
            return leading_pairs(side.gram(), k)
        if isinstance(side, LongSide):
            if choice.solver == "covariance":
                return leading_pairs(side.covariance(), k)
            side.prepare()
            if side.total_variance <= 0:
                raise DataError(f"{matrix.uri}: every column is constant, so there is no variance to explain.")
        noise = _noise(matrix)

        def judge(residual: float, values: np.ndarray) -> None:
            if choice.solver == "gradient" and side.n_passes > 2:
                _require_rank(matrix, values, side.total_variance)
            floor = max(noise * float(values[0]), np.finfo(float).tiny)
            event = PassDone(side.n_passes, residual, tuple(float(v) for v in np.maximum(values, floor)))
            self.history_.append(
                {
                    "pass": event.index,
                    "residual": residual,
                    "explained_variance": list(event.explained_variance),
                }
            )
            engine.progress.emit(event)

        # One pass is taken by the mean (long side) or by writing the components out (short side).
        max_passes = (self.max_passes or DEFAULT_PASSES[choice.solver]) - 1
        if choice.solver == "deflation":
            step = None if self.step == "adaptive" else float(self.step)
            return deflation(side.apply, side.start(k, self.seed), self.tol, max_passes, step, judge)
        n, rank = (matrix.shape[0], matrix.shape[0] - 1) if choice.side == "rows" else (matrix.shape[1],) * 2
        start = side.start(choice.width, self.seed)
        return block_gradient(
            side.apply,
            start,
            k,
            self.tol,
            max_passes,
            min(choice.max_blocks, -(-n // choice.width) + 1),
            rank,
            judge,
        )

    def _keep(self, matrix: Matrix, choice: Choice, side: ShortSide | LongSide, ritz: Ritz, found: Components) -> None:
        for component in found.components:
            if component[np.argmax(np.abs(component))] < 0:
                component *= -1
        self.components_ = found.components
        self.mean_ = found.mean
        self.explained_variance_ = ritz.values.copy()
        self.total_variance_ = side.total_variance
        self.explained_variance_ratio_ = ritz.values / side.total_variance
        # Products in float32 carry errors of their own, relative to the largest eigenvalue, that no
        # residual computed with them shows: add what was seen of them in tests/models/test_pca.py.
        unit = np.finfo(found.components.dtype).eps
        rounding = unit * np.hypot(1, ritz.values[0] / ritz.values / 3)
        self.residuals_ = np.hypot(found.residuals, rounding)
        self.n_passes_ = side.n_passes
        exact = choice.solver in ("gram", "covariance")
        self.converged_ = exact or bool(max(found.residuals.max(), ritz.relative().max()) <= self.tol)
        self.solver_ = choice.solver
        self.reason_ = choice.plan.reason
        self.plan_ = choice.plan
        self.n_samples_, self.n_features_in_ = matrix.shape

    def _require_columns(self, what: str, n_columns: int) -> None:
        if n_columns != self.components_.shape[1]:
            raise DataError(
                f"{what}: {n_columns:,} columns, but the components have {self.components_.shape[1]:,}. "
                f"Give rows of the same columns."
            )


def plan_pca(source: Any, pca: PCA, engine: Engine) -> Plan:
    """What ``pca.fit(source, engine=engine)`` would take, from metadata alone."""
    pca._check()
    return pca._choose(open_matrix(source), engine).plan


def _required(choice: Choice) -> Any:
    assert choice.before_or_after is not None
    return choice.before_or_after


def _noise(matrix: Matrix) -> float:
    """Eigenvalues below this part of the largest are rounding, not variance."""
    return 4 * float(np.finfo(compute_dtype(matrix.dtype)).eps)


def _require_rank(matrix: Matrix, values: np.ndarray, total_variance: float) -> None:
    if not total_variance > 0 or values[0] <= 0:
        raise DataError(f"{matrix.uri}: every column is constant, so there is no variance to explain.")
    rank = int((values > _noise(matrix) * values[0]).sum())
    if rank < len(values):
        raise DataError(
            f"{matrix.uri}: n_components={len(values)} is more than the rank: only {rank} components have "
            f"variance above rounding. Ask for n_components <= {rank}."
        )
