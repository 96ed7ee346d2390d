"""The PCA job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages
from jobs import pca as job
from jobs._run import Result


@flow(name="pca", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def pca(config: job.PCAConfig) -> Result:
    """Leading principal components of a matrix, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, lambda result: job.table(result.figures))
