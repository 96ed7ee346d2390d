"""PCA as scikit-learn's users know it, out of core."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lazypipe.checkpoint import StateFolder
from lazypipe.checks import require_restart
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ClosePairWarning, ConfigError, ConvergenceWarning, DataError, require_fitted
from lazypipe.io import open_matrix
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.matrix import Matrix
from lazypipe.io.sources import one_line
from lazypipe.models.covariance import require_state
from lazypipe.models.parameters import Parameterised
from lazypipe.models.pca.certificates import certificate, told
from lazypipe.models.pca.choice import LEAST_PASSES, Choice, Solver, choose
from lazypipe.models.pca.fitting import Fitted, Iteration, fit
from lazypipe.models.pca.journal import Journal
from lazypipe.models.pca.scores import Projector
from lazypipe.models.pca.sides import Problem
from lazypipe.models.preparation import Preparation, preparation
from lazypipe.plan import Plan, or_say_what_fits
from lazypipe.progress import PassDone
from lazypipe.stores import AnyPath, as_given, path_of

SAVED = ("components", "mean", "explained_variance", "explained_variance_ratio", "residuals")
ROUNDING = {4: 2.0, 8: 64.0}  # units, of float32 products summed in float64, and of float64 throughout
REMEDY = "or ask for fewer components (n_components)."


class PCA(Parameterised):
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
        for deflation, which takes two a component at least.
    step : of deflation: "adaptive" takes the best step on each line; a number fixes it, in units of
        1/λ₁ (1.0 is the textbook's).
    seed : of the random start. The same seed, data and memory budget give the same bits on any engine.
    center : take the column means off; False gives the truncated SVD (latent semantic analysis), whose
        "variances" are squared singular values over n_rows.
    scale : True divides each column by its standard deviation (the components of the correlation matrix);
        "genotype" by sqrt(2p (1 - p)) with p half the column's mean, for counts of alleles 0, 1, 2.
        Constant columns keep their zeros; ``n_constant_columns_`` counts them.
    nan : "raise"; "omit" leaves out rows that hold one; "mean" fills with the mean of the column.
    row_weights : (n_rows,) or the path of such an .npy; a row of weight 2 counts as two rows, and their
        sum takes the place of n_rows. All of it is done inside the passes, never to a copy.

    Attributes
    ----------
    components_ : (n_components, n_columns), orthonormal rows, float32 or float64 as computed; the
        entry of largest magnitude in each row is positive.
    explained_variance_ : (n_components,) eigenvalues of the covariance (dividing by n_rows - 1).
    explained_variance_ratio_ : of the total variance.
    mean_ : (n_columns,) float64.
    singular_values_ : (n_components,) of the prepared rows.
    residuals_ : (n_components,) ‖C v - λ v‖ / λ.
    gaps_, eigenvalue_bounds_, angle_bounds_ : (n_components,) distance to the nearest other eigenvalue as
        measured, how far λ and (in radians) the component can be from the truth; see ``certificates``.
    close_pairs_ : pairs of components (from 0) whose eigenvalues are too close to tell them apart.
    scale_ : (n_columns,) what the columns were divided by, None without scaling.
    fill_ : (n_columns,) what NaN is filled with, None but for ``nan="mean"``.
    converged_, n_passes_, solver_, reason_, total_variance_, n_samples_, n_features_in_, plan_,
    history_ : what happened; ``history_`` has one dict a judged pass.

    Notes
    -----
    Works on the shorter side of the matrix that the source can deliver. Peak memory is that of
    ``plan_``: a few blocks, and n x p vectors for n the shorter side and p = max(n_components + 6, 16);
    with "gram" and "covariance" a few matrices of 8 n_rows² or 8 n_columns² bytes.
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
        center: bool = True,
        scale: bool | str = False,
        nan: str = "raise",
        row_weights: Any = None,
    ):
        self.n_components = n_components
        self.solver = solver
        self.tol = tol
        self.max_passes = max_passes
        self.step = step
        self.seed = seed
        self.center = center
        self.scale = scale
        self.nan = nan
        self.row_weights = row_weights

    def fit(
        self,
        source: Any,
        y: None = None,
        *,
        engine: Engine | None = None,
        row_weights: Any = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> PCA:
        """Find the components of ``source``: a path, Matrix or array (n_rows, n_columns).

        ``engine`` comes from ``open_engine``; None works on threads of this process. ``row_weights`` take
        the place of those of the estimator. ``state`` is a folder that keeps every pass: called again after
        a kill the fit goes on at the pass that was cut short; on data with more rows it starts from the old
        components. ``restart`` forgets it first.

        Raises
        ------
        ConfigError, PlanError : parameters out of range, before any data is read.
        MemoryPlanError : the plan does not fit the engine's budget, before any data is read.
        DataError : NaN or infinity (row and column named), fewer components than asked for, a state of
            something else.

        Warns
        -----
        ConvergenceWarning : ``max_passes`` came before ``tol``.
        ClosePairWarning : two eigenvalues are too close for their components to mean anything alone.
        """
        require_restart(state, restart)
        matrix = open_matrix(source)
        self._check()
        asked = self._asked(matrix, row_weights)
        with engine_or_own(engine) as running:
            self._fit(matrix, asked, running, state, restart)
        self._warn()
        return self

    def _fit(self, matrix: Matrix, asked: Preparation, engine: Engine, state: str | Path | None, restart: bool) -> None:
        choice = self._choose(matrix, asked, engine, state)
        self.history_: list[dict[str, Any]] = []

        def on_pass(event: PassDone) -> None:
            values = list(event.explained_variance)
            self.history_.append({"pass": event.index, "residual": event.residual, "explained_variance": values})
            engine.progress.emit(event)

        step = None if self.step == "adaptive" else float(self.step)
        iteration = Iteration(self.tol, self.max_passes, step, self.seed)
        with nullcontext() if state is None else StateFolder(state, restart) as folder:
            identity = {} if folder is None else self._identity(matrix, asked, choice)
            journal = Journal(folder, identity, matrix)
            problem = Problem(matrix, asked, engine, choice, journal)
            fitted = fit(problem, int(self.n_components), iteration, on_pass)
            self._keep(matrix, choice, fitted)
            self.n_passes_recalled_ = journal.n_recalled
            journal.close(self.components_)

    def _warn(self) -> None:
        if not self.converged_:
            warnings.warn(
                f"PCA stopped after {self.n_passes_} passes at a relative residual of "
                f"{self.residuals_.max():.1e}, above tol={self.tol:g}: raise max_passes, or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if self.close_pairs_:
            warnings.warn(
                "PCA: " + told(self.close_pairs_, self.n_samples_),
                ClosePairWarning,
                stacklevel=3,
            )

    def transform(
        self, rows: Any, *, out: str | Path | None = None, overwrite: bool = False, engine: Engine | None = None
    ) -> Any:
        """Scores (n_rows, n_components) of new rows, prepared as those of the fit were.

        An array, or a source read by blocks, on ``engine``. With ``out`` (.zarr, or .parquet for a folder of
        parts) the scores of a source go there, whole or not at all, and the matrix on disk is returned; else
        float64 in memory, and MemoryPlanError where the budget does not hold those of a source twice. NaN is
        an error, or filled with the means of the fit (nan="mean"), or makes its row's scores NaN (nan="omit").
        """
        require_fitted(self, "components_")
        projector = Projector(self.components_, self.mean_, self.scale_, self.nan, self.fill_)
        if isinstance(rows, np.ndarray | list) and out is None:
            values = np.atleast_2d(np.asarray(rows))
            self._require_columns("the rows given", values.shape[1])
            return projector.of_array(values)
        matrix = open_matrix(rows)
        self._require_columns(matrix.uri, matrix.shape[1])
        with engine_or_own(engine) as running:
            if out is None:
                return projector.of_matrix(matrix, running)
            path = path_of(out)
            return open_matrix(projector.to_disk(matrix, path, overwrite, running))

    @classmethod
    def load(cls, folder: str | Path) -> PCA:
        """The fitted estimator of a result folder that ``python -m jobs pca`` wrote. DataError for any other."""
        place = as_given(folder)
        text = _record_in(place)
        try:
            record = json.loads(text)
            job, config = record["job"], record["config"]
            if job != "pca":
                raise DataError(f"{place}: is a result of the job {job}, not of pca. Pass the folder of a pca result.")
            arrays = {name: _array_in(place / f"{name}.npy") for name in SAVED}
            scale = place / "scale.npy"
            pca = cls(len(arrays["components"]), center=config["center"], nan=config["nan"], tol=config["tol"])
            fill = place / "fill.npy"
            pca.scale_ = _array_in(scale) if scale.exists() else None
            pca.fill_ = _array_in(fill) if fill.exists() else None
        except DataError:
            raise
        except DAMAGED as error:
            what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
            raise DataError(f"{place}: is a damaged result of a pca job ({what}). Run the job again.") from error
        for name, array in arrays.items():
            setattr(pca, f"{name}_", array)
        pca.n_features_in_ = pca.components_.shape[1]
        return pca

    def inverse_transform(self, scores: np.ndarray) -> np.ndarray:
        """Rows (n, n_columns) whose scores are ``scores`` (n, n_components)."""
        require_fitted(self, "components_")
        rows = np.asarray(scores) @ self.components_
        return (rows if self.scale_ is None else rows * self.scale_) + self.mean_

    def fit_transform(self, source: Any, y: None = None, *, engine: Engine | None = None) -> np.ndarray:
        """``fit`` and ``transform`` of the same source: scores (n_rows, n_components), in one more pass."""
        matrix = open_matrix(source)
        return self.fit(matrix, engine=engine).transform(matrix, engine=engine)

    def _check(self) -> None:
        if not isinstance(self.n_components, int | np.integer) or self.n_components < 1:
            raise ConfigError(f"n_components: {self.n_components!r} is not a number of components. Give 1 or more.")
        if self.solver not in get_args(Solver):
            raise ConfigError(f"solver: {self.solver!r} is not one of {', '.join(get_args(Solver))}.")
        for name, kind in (("tol", int | float | np.floating), ("max_passes", int | np.integer | None)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is no number. Give one, or leave it out.")
        if not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ConfigError(f"seed: {self.seed!r} is no seed. Give an integer of 0 or above.")
        if not self.tol > 0:
            raise ConfigError(f"tol: {self.tol!r} cannot be reached. Give a relative residual above 0, as 1e-6.")
        if self.max_passes is not None and self.max_passes < LEAST_PASSES:
            raise ConfigError(
                f"max_passes: {self.max_passes} is too few for any solver. Give {LEAST_PASSES} or more, or leave it "
                f"out."
            )
        if self.step != "adaptive" and not (isinstance(self.step, int | float) and self.step > 0):
            raise ConfigError(f"step: {self.step!r} is neither 'adaptive' nor a positive number.")

    def _asked(self, matrix: Matrix, row_weights: Any = None) -> Preparation:
        weights = self.row_weights if row_weights is None else row_weights
        return preparation(matrix, self.center, self.scale, self.nan, weights)

    def _choose(self, matrix: Matrix, asked: Preparation, engine: Engine, state: str | Path | None) -> Choice:
        choice = or_say_what_fits(
            lambda host: choose(matrix, int(self.n_components), self.solver, asked, host), engine.host, REMEDY
        )
        if choice.solver == "covariance":  # the others keep vectors, which they judge anew
            require_state(state, None, asked)
        least = choice.least_passes(int(self.n_components), state is not None)
        if self.max_passes is not None and self.max_passes < least:
            raise ConfigError(
                f"max_passes: {self.max_passes} is too few for {choice.solver} of n_components={self.n_components} of "
                f"{matrix.uri}. Give {least:,} or more, or leave it out."
            )
        return choice

    def _identity(self, matrix: Matrix, asked: Preparation, choice: Choice) -> dict[str, Any]:
        """What a state must have been made with to be gone on with."""
        return {
            "job": "pca",
            "source": matrix.uri,
            "n_rows": matrix.shape[0],
            "n_columns": matrix.shape[1],
            "dtype": str(matrix.dtype),
            "fingerprint": matrix.fingerprint(),
            "solver": choice.solver,
            "n_components": int(self.n_components),
            "width": choice.width,
            "max_blocks": choice.max_blocks,
            "seed": int(self.seed),
            "step": self.step,
            **asked.describe(),
        }

    def _keep(self, matrix: Matrix, choice: Choice, fitted: Fitted) -> None:
        side, ritz, found = fitted
        for component in found.components:
            if component[np.argmax(np.abs(component))] < 0:
                component *= -1
        self.components_ = found.components
        self.mean_ = found.mean
        self.scale_ = side.scale
        self.fill_ = side.fill
        self.explained_variance_ = ritz.values.copy()
        self.singular_values_ = np.sqrt(np.maximum(ritz.values, 0) * side.degrees)
        self.total_variance_ = side.total_variance
        self.explained_variance_ratio_ = ritz.values / side.total_variance
        # Products carry errors of their own, relative to the largest eigenvalue, that no residual
        # computed with them shows: add more than was seen of them in tests/models/test_hard_data.py.
        unit = ROUNDING[found.components.itemsize] * np.finfo(found.components.dtype).eps
        largest = float(ritz.values[0])
        if matrix.sparse and self.center:  # products are about zero, and their mean is taken off after
            largest += float(np.sum((found.mean if side.scale is None else found.mean / side.scale) ** 2))
        rounding = unit * np.hypot(2, largest / ritz.values / 3)
        self.residuals_ = np.hypot(found.residuals, rounding)
        n_rows = matrix.shape[0] - side.n_omitted
        bounds = certificate(
            ritz.values, self.residuals_ * ritz.values, ritz.others, side.total_variance, float(n_rows)
        )
        self.gaps_, self.eigenvalue_bounds_, self.angle_bounds_ = bounds[:3]
        self.eigenvalue_bounds_ += unit * largest
        self.close_pairs_ = bounds.close
        self.n_passes_ = side.n_passes
        exact = choice.solver in ("gram", "covariance")
        self.converged_ = exact or bool(max(found.residuals.max(), ritz.relative().max()) <= self.tol)
        self.solver_ = choice.solver
        self.reason_ = choice.plan.reason
        self.plan_ = choice.plan
        self.n_samples_, self.n_features_in_ = n_rows, matrix.shape[1]
        self.n_constant_columns_ = side.n_constant

    def _require_columns(self, what: str, n_columns: int) -> None:
        if n_columns != self.components_.shape[1]:
            raise DataError(
                f"{what}: {n_columns:,} columns, but the components have {self.components_.shape[1]:,}. "
                f"Give rows of the same columns."
            )


def plan_pca(source: Any, pca: PCA, engine: Engine, state: str | Path | None = None) -> Plan:
    """What ``pca.fit(source, engine=engine, state=state)`` would take, from metadata alone."""
    pca._check()
    matrix = open_matrix(source)
    return pca._choose(matrix, pca._asked(matrix), engine, state).plan


def plan_transform(source: Any, pca: PCA, engine: Engine) -> Plan:
    """What ``pca.transform(source, out=..., engine=engine)`` would take, from metadata alone."""
    matrix = open_matrix(source)
    pca._require_columns(matrix.uri, matrix.shape[1])
    projector = Projector(pca.components_, pca.mean_, pca.scale_, pca.nan, pca.fill_)
    fold = or_say_what_fits(
        lambda host: projector.plan(matrix, host), engine.host, "or convert the source to smaller blocks."
    )
    return Plan(
        "transform", matrix.uri, matrix.shape, str(matrix.dtype), engine.host, (fold,), passes=1,
        output_nbytes=8 * matrix.shape[0] * len(pca.components_),
    )  # fmt: skip


def _record_in(place: AnyPath) -> str:
    """The record of a result, unread; DataError where there is none."""
    try:
        return (place / "result.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "it holds no result.json" if missing else one_line(error)
        raise DataError(f"{place}: is no result of a pca job ({what}). Pass the folder of one.") from error


def _array_in(path: AnyPath) -> np.ndarray:
    with path.open("rb") as file:
        return np.asarray(np.load(file, allow_pickle=False))
