"""The transform job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages
from jobs import transform as job
from jobs._run import Result


@flow(name="transform", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def transform(config: job.TransformConfig) -> Result:
    """Scores of a matrix on the components of a pca result, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """Where the scores are, and how many."""
    n_rows, k = result.figures["scores_shape"]
    return [
        "| scores | rows | components |",
        "|---|--:|--:|",
        f"| `{result.figures['scores']}` | {n_rows:,} | {k} |",
    ]
