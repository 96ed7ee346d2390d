"""What a trained network says of the rows of a matrix, as a flow: check, compute, report."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows._alerts import alert
from flows._naming import named
from flows._stages import check, compute
from jobs import predict as job
from lazypipe.secrets import hidden


@dataclass(frozen=True)
class Said:
    """What was written, or what it is to be made from."""

    what: str

    def lines(self) -> list[str]:
        """A line for the log."""
        return [f"predict   {self.what}"]


@flow(name="predict", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def predict(config: job.PredictConfig) -> Said:
    """Classes, probabilities, numbers or features of the rows of a matrix by a trained network."""
    check(plan, config)
    said = compute(run, config)
    report(said, config.out)
    return said


def plan(config: job.PredictConfig) -> Said:
    """What the network would be handed."""
    import lazypipe as lp

    matrix = lp.open_matrix(config.source, column=config.column)
    n_rows, n_columns = matrix.shape
    return Said(f"{config.model} of {config.source}, {n_rows:,} x {n_columns:,} {matrix.dtype}")


def run(config: job.PredictConfig) -> Said:
    """The job."""
    said = job.run(config)
    return Said(f"{config.out}: {' x '.join(f'{n:,}' for n in said.shape)} {said.dtype}")


@task(name="report", cache_policy=NO_CACHE)  # type: ignore[untyped-decorator]
def report(said: Said, out: str) -> None:
    """A markdown artifact: what was written."""
    create_markdown_artifact(markdown=hidden(f"- {said.what}"), key="predict-result", description=hidden(out))
