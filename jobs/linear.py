"""Linear regression with standard errors and R²: ``python -m jobs linear --source data/tall.npy --target 0``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import JobConfig
from jobs._run import Answer, Result, Work
from jobs._tables import markdown
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Plan
from lazypipe.progress import PassDone

SHOWN = 10  # coefficients in the summary, those of largest |t|


def _index_or_path(value: Any) -> Any:
    """A command line gives text: digits are the index of a column, the rest is a path."""
    if value == "" or isinstance(value, bool):
        raise ValueError("give the path of a source of one column, or the index of a column")
    return int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() else value


class LinearConfig(JobConfig):
    """Linear regression of a target on all columns: coefficients, standard errors, R²."""

    target: Annotated[int | str, BeforeValidator(_index_or_path)] = Field(
        description="path of a source of one column (a 1-D .npy, too), or the index of the column of the source "
        "that is the target, and then no feature"
    )
    ridge: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="penalty on the squares of the coefficients; 0 is least squares"
    )
    fit_intercept: bool = Field(True, description="fit a constant, without penalty")
    method: Literal["auto", "normal", "tsqr"] = Field(
        "auto",
        description="normal: equations from the covariance, one fast pass; tsqr: QR of the rows in float64, for "
        "nearly dependent columns; auto: the first, and the second where the first would lose digits",
    )
    ddof: int | None = Field(
        None, ge=0, description="the residual variance divides by rows - ddof; without it the fitted parameters"
    )
    validation_source: str | None = Field(
        None, min_length=1, description="matrix of other rows, to tell R² on them; the same columns as the source"
    )
    validation_target: Annotated[int | str | None, BeforeValidator(_index_or_path)] = Field(
        None,
        validate_default=True,
        description="their target, like target; without it the same column index as target",
    )

    @field_validator("validation_target")
    @classmethod
    def _goes_with_its_source(cls, value: int | str | None, info: ValidationInfo) -> int | str | None:
        source, target = info.data.get("validation_source"), info.data.get("target")
        if source is None and value is not None:
            raise ValueError("has no validation_source; give both, or neither")
        if source is not None and value is None:
            if not isinstance(target, int):
                raise ValueError("is missing; give the target of the validation_source")
            return target
        return value


def run(config: LinearConfig) -> Result:
    """Fit, save ``coef``, ``standard_errors``, ``t_values``, ``p_values``, ``columns`` (D,), and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: LinearConfig) -> Plan | Result:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The result as a short table: the coefficients of largest |t|, and how good the fit is."""
    model, figures = result.model, result.figures
    print(f"{'column':>9} {'coefficient':>13} {'std. error':>11} {'t':>9} {'p':>9}")
    for i in strongest(model.t_values_, SHOWN):
        values = (model.coef_[i], model.standard_errors_[i], model.t_values_[i], model.p_values_[i])
        print("{:>9,} {:>13.6g} {:>11.3g} {:>9.3g} {:>9.2g}".format(model.columns_[i], *values))
    if len(model.coef_) > SHOWN:
        print(f"{'...':>9} {len(model.coef_) - SHOWN:,} more, of smaller |t|")
    print(f"intercept {model.intercept_:.6g} (std. error {model.intercept_standard_error_:.3g})")
    told = f"R²        {model.r2_:.6g}, adjusted {model.r2_adjusted_:.6g}"
    print(told + ("" if model.r2_validation_ is None else f", validation {model.r2_validation_:.6g}"))
    print(f"method    {model.method_}: {model.reason_}; condition number {model.condition_number_:.3g}")
    passes = f"{model.n_passes_} pass{'es' * (model.n_passes_ != 1)}"
    print(f"rows      {model.n_rows_:,}, {passes}, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def table(model: lp.LinearRegression) -> list[str]:
    """R² and the coefficients of largest |t| as markdown tables."""
    told = {"R²": model.r2_, "adjusted R²": model.r2_adjusted_, "R² of the validation rows": model.r2_validation_}
    known = [(name, f"{value:.6g}") for name, value in told.items() if value is not None]
    head = ("column", "coefficient", "standard error", "t", "p")
    rows = [
        (
            str(model.columns_[i]),
            f"{model.coef_[i]:.6g}",
            f"{model.standard_errors_[i]:.3g}",
            f"{model.t_values_[i]:.3g}",
            f"{model.p_values_[i]:.2g}",
        )
        for i in strongest(model.t_values_, SHOWN)
    ]
    of_all = [("", ""), *known, ("intercept", f"{model.intercept_:.6g}")]
    return [*markdown(of_all), "", *markdown([head, *rows])]


def strongest(t_values: np.ndarray, n: int) -> np.ndarray:
    """Indices of the ``n`` coefficients of largest |t|, the largest first."""
    order: np.ndarray = np.argsort(-np.nan_to_num(np.abs(t_values), nan=-1.0), kind="stable")[:n]
    return order


def main(argv: list[str] | None = None) -> int:
    return command("linear", LinearConfig, run, argv, show)


def work_of(config: LinearConfig) -> Work:
    model = lp.LinearRegression(
        config.ridge, fit_intercept=config.fit_intercept, ddof=config.ddof, method=config.method
    )
    validation = None
    if config.validation_source is not None:
        validation = (config.validation_source, config.validation_target)

    def fit(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        return _answer(model.fit(matrix, config.target, engine=engine, validation=validation))

    return Work(
        "linear",
        lambda matrix, engine: lp.plan_linear_regression(matrix, config.target, model, engine, validation=validation),
        fit,
    )


def _answer(model: lp.LinearRegression) -> Answer:
    from lazypipe.figures import coefficients

    numbers = {
        "r2": model.r2_,
        "r2_adjusted": model.r2_adjusted_,
        "r2_validation": model.r2_validation_,
        "intercept": model.intercept_,
        "intercept_standard_error": model.intercept_standard_error_,
        "residual_variance": model.residual_variance_,
        "condition_number": model.condition_number_,
    }
    known = {name: float(value) for name, value in numbers.items() if value is not None and np.isfinite(value)}
    counts = {"passes": model.n_passes_, "n_rows": model.n_rows_}
    return Answer(
        model=model,
        plan=model.plan_,
        arrays={
            "coef": model.coef_,
            "standard_errors": model.standard_errors_,
            "t_values": model.t_values_,
            "p_values": model.p_values_,
            "columns": model.columns_,
        },
        # JSON has no NaN: what cannot be told is null.
        figures={name: known.get(name) for name in numbers}
        | counts
        | {"ddof": model.ddof_, "method": model.method_, "reason": model.reason_},
        metrics=known | counts,
        pictures=lambda: {"coefficients.png": coefficients(model)},
        note="\n".join(table(model)),
    )


if __name__ == "__main__":
    sys.exit(main())
