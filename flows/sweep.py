"""The sweep over sample sizes and strengths of regularization as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import masked, stages
from jobs import sweep as job
from jobs._run import Result
from jobs._tables import markdown

SHOWN = 60  # sizes and models in the report


@flow(name="sweep", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def sweep(config: job.SweepConfig) -> Result:
    """Scores at every sample size and strength of regularization, tracked in MLflow, with a report as an artifact.

    Raises DataError, after the report, where every cell failed, or had failed in a result that is there unchanged.
    """
    ended = stages(job, config, table)
    with masked():
        job.require_scores(ended if isinstance(ended, Result) else ended.data)
    return ended


def table(result: Result) -> list[str]:
    """The verdict, the best strength of each size as a markdown table, and what became of the cells."""
    figures = result.figures
    head, *rows = job.rows(figures)
    lines = markdown([head, *rows[-SHOWN:]])
    more = [f"{len(rows) - SHOWN:,} smaller sizes are in cells.csv.", ""] if len(rows) > SHOWN else []
    return [
        *[f"- {line}" for line in figures["verdict_lines"]],
        "",
        "The best strength of each size, means over seeds:",
        "",
        *[*lines, "", *more],
        f"- best cell: {job.best_line(figures)}",
        f"- cells: {job.cells_line(figures)}",
        *[f"- warning: {warning}" for warning in figures["warnings"]],
    ]
