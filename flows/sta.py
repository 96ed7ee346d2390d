"""The spike-triggered average job as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages
from jobs import sta as job
from jobs._run import Result


@flow(name="sta", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def sta(config: job.StaConfig) -> Result:
    """Averages of a recording around the spikes of each unit, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """A line a unit as a markdown table, the rest counted, and the warnings."""
    figures = result.figures
    return [*job.table(figures), "", *(f"Warning: {warning}" for warning in figures["warnings"])]
