"""The spike-triggered average job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._stages import check, compute, report
from jobs import sta as job
from jobs._run import Result

SHOWN = 24  # units in the report


@flow(name="sta")
def sta(config: job.StaConfig) -> Result:
    """Averages of a recording around the spikes of each unit, tracked in MLflow, with a report as an artifact."""
    plan = check(job.plan, config)
    result = compute(job.run, config)
    report(result, plan, table(result))
    return result


def table(result: Result) -> list[str]:
    """A line a unit as a markdown table, the rest counted, and the warnings."""
    units = result.figures["units"]
    rows = [f"| {' | '.join(job.cells(unit))} |" for unit in units[:SHOWN]]
    more = [f"{len(units) - SHOWN:,} more units are in counts.csv.", ""] if len(units) > SHOWN else []
    warnings = [f"Warning: {warning}" for warning in result.figures["warnings"]]
    return [f"| {' | '.join(job.HEAD)} |", "|--:" * len(job.HEAD) + "|", *rows, "", *more, *warnings]
