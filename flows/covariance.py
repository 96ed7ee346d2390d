"""The covariance job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._stages import stages
from jobs import covariance as job
from jobs._run import Result


@flow(name="covariance", on_failure=[alert], on_crashed=[alert])
def covariance(config: job.CovarianceConfig) -> Result:
    """Mean and covariance of the columns of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """The range of means and variances as a markdown table."""
    rows = ["| {} | {:.6g} | {:.6g} | {:.6g} |".format(name, *result.figures[name]) for name in ("mean", "variance")]
    return ["| of the columns | smallest | median | largest |", "|---|--:|--:|--:|", *rows]
