"""Mean and covariance of the columns of a matrix: ``python -m jobs covariance --source data/tall.npy``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import JobConfig
from jobs._run import Answer, Result, Work
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Plan
from lazypipe.progress import PassDone


class CovarianceConfig(JobConfig):
    """Mean and covariance of all columns, in one pass over the rows."""

    ddof: int = Field(1, ge=0, description="divide by rows - ddof: 1 is the unbiased estimate, 0 the second moment")


def run(config: CovarianceConfig) -> Result:
    """Compute, save ``mean`` (D,) and ``covariance`` (D, D), and log the run."""
    return _run.carry_out(config, _work(config))


def plan(config: CovarianceConfig) -> Plan:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, _work(config))


def show(result: Result) -> None:
    """The result as a short table."""
    figures = result.figures
    for name in ("mean", "variance"):
        low, middle, high = figures[name]
        print(f"{name:<9} {low:.6g} to {high:.6g}, median {middle:.6g}")
    print(f"rows      {figures['n_rows']:,}, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def main(argv: list[str] | None = None) -> int:
    return command("covariance", CovarianceConfig, lambda config: show(run(config)), argv)


def _work(config: CovarianceConfig) -> Work:
    def compute(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        result = lp.covariance(matrix, ddof=config.ddof, engine=engine)
        variance = np.diagonal(result.covariance)
        figures = {name: _range(values) for name, values in (("mean", result.mean), ("variance", variance))}
        return Answer(
            model=result,
            plan=result.plan,
            arrays={"mean": result.mean, "covariance": result.covariance},
            figures=figures | {"n_rows": result.n_rows, "ddof": config.ddof, "passes": 1},
            metrics={"passes": 1, "total_variance": float(variance.sum())},
        )

    return Work(
        "covariance",
        lambda matrix, engine: lp.plan_covariance(matrix, engine=engine, ddof=config.ddof),
        compute,
    )


def _range(values: np.ndarray) -> list[float]:
    return [float(values.min()), float(np.median(values)), float(values.max())]


if __name__ == "__main__":
    sys.exit(main())
