"""The PCA job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._stages import stages
from jobs import pca as job
from jobs._run import Result


@flow(name="pca", on_failure=[alert], on_crashed=[alert])
def pca(config: job.PCAConfig) -> Result:
    """Leading principal components of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """Components, variances and residuals as a markdown table."""
    figures = result.figures
    names = ("explained_variance", "explained_variance_ratio", "residuals", "angle_bounds")
    rows = [
        f"| {i} | {variance:.6g} | {ratio:.4f} | {residual:.1e} | {angle:.1e} |"
        for i, (variance, ratio, residual, angle) in enumerate(zip(*(figures[n] for n in names), strict=True), 1)
    ]
    head = ["| component | explained variance | ratio | residual | angle ≤ (rad) |", "|--:|--:|--:|--:|--:|"]
    return [*head, *rows, "", *(f"Note: {note}" for note in figures["notes"])]
