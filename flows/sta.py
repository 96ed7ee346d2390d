"""The spike-triggered average job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._stages import stages
from jobs import sta as job
from jobs._run import Result

SHOWN = 24  # units in the report


@flow(name="sta", on_failure=[alert], on_crashed=[alert])
def sta(config: job.StaConfig) -> Result:
    """Averages of a recording around the spikes of each unit, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """A line a unit as a markdown table, the rest counted, and the warnings."""
    head, *rows = job.rows(result.figures, SHOWN)
    lines = [f"| {' | '.join(row)} |" for row in (head, ["--:"] * len(head), *rows)]
    left = result.figures["n_units"] - len(rows)
    more = [f"{left:,} more units are in counts.csv.", ""] if left else []
    return [*lines, "", *more, *(f"Warning: {warning}" for warning in result.figures["warnings"])]
