"""The training of a multilayer perceptron as a flow: check, compute, report."""

from __future__ import annotations

from prefect import flow

from flows._alerts import alert
from flows._naming import named
from flows._stages import stages, training
from jobs import _trained
from jobs import mlp as job
from jobs._run import Result


@flow(name="mlp", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def mlp(config: job.MLPConfig) -> Result:
    """Train a multilayer perceptron, tracked in MLflow, with a report as an artifact."""
    return stages(job, config, table)


def table(result: Result) -> list[str]:
    """What the training came to, and its epochs as a markdown table."""
    figures = result.figures
    return training(
        _trained.lines(figures), _trained.epochs_table(figures["history"], figures["best_epoch"]), figures["warnings"]
    )
