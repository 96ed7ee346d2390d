"""The transform job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._stages import check, compute, report
from jobs import transform as job
from jobs._run import Result


@flow(name="transform")
def transform(config: job.TransformConfig) -> Result:
    """Scores of a matrix on the components of a pca result, tracked in MLflow, with a report as an artifact."""
    plan = check(job.plan, config)
    result = compute(job.run, config)
    n_rows, k = result.figures["scores_shape"]
    table = ["| scores | rows | components |", "|---|--:|--:|", f"| `{result.figures['scores']}` | {n_rows:,} | {k} |"]
    report(result, plan, table)
    return result
