"""The training of a deep belief network as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._stages import check, compute, report, training
from jobs import dbn as job
from jobs._run import Result


@flow(name="dbn")
def dbn(config: job.DBNConfig) -> Result:
    """Train a deep belief network, tracked in MLflow, with a report as an artifact."""
    plan = check(job.plan, config)
    result = compute(job.run, config)
    report(result, plan, table(result))
    return result


def table(result: Result) -> list[str]:
    """What the training came to, and the epochs of the whole network as a markdown table."""
    figures = result.figures
    return training(job.lines(figures), job.rows(figures), figures["warnings"])
