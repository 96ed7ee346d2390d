"""The linear regression job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages
from jobs import linear as job
from jobs._run import Result


@flow(name="linear", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def linear(config: job.LinearConfig) -> Result:
    """Linear regression of a target on the columns of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, lambda result: job.table(result.model))
