"""The covariance job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages
from jobs import covariance as job
from jobs._run import Result


@flow(name="covariance", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def covariance(config: job.CovarianceConfig) -> Result:
    """Mean and covariance of the columns of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, lambda result: job.table(result.figures))
