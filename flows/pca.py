"""The PCA job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._stages import check, compute, report
from jobs import pca as job
from jobs._run import Result


@flow(name="pca")
def pca(config: job.PCAConfig) -> Result:
    """Leading principal components of a matrix, tracked in MLflow, with a report as an artifact."""
    plan = check(job.plan, config)
    result = compute(job.run, config)
    report(result, plan, table(result))
    return result


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
