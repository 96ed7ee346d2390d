"""The training of a deep belief network as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages, training
from jobs import dbn as job
from jobs._run import Result


@flow(name="dbn", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def dbn(config: job.DBNConfig) -> Result:
    """Train a deep belief network, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """What the training came to, and the epochs of the whole network as a markdown table."""
    figures = result.figures
    return training(job.lines(figures), job.rows(figures), figures["warnings"])
