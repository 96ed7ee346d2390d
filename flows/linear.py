"""The linear regression job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._stages import stages
from jobs import linear as job
from jobs._run import Result


@flow(name="linear", on_failure=[alert], on_crashed=[alert])
def linear(config: job.LinearConfig) -> Result:
    """Linear regression of a target on the columns of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """R² and the coefficients of largest |t| as markdown tables."""
    model = result.model
    told = {"R²": model.r2_, "adjusted R²": model.r2_adjusted_, "R² of the validation rows": model.r2_validation_}
    rows = [f"| {name} | {value:.6g} |" for name, value in told.items() if value is not None]
    coefficients = [
        f"| {model.columns_[i]} | {model.coef_[i]:.6g} | {model.standard_errors_[i]:.3g} | {model.t_values_[i]:.3g} "
        f"| {model.p_values_[i]:.2g} |"
        for i in job.strongest(model.t_values_, job.SHOWN)
    ]
    return [
        *["| | |", "|---|--:|", *rows, f"| intercept | {model.intercept_:.6g} |", ""],
        *["| column | coefficient | standard error | t | p |", "|--:|--:|--:|--:|--:|", *coefficients],
    ]
