"""Scores of a matrix: ``python -m jobs transform --model results/pca --source new.npy --scores scores.zarr``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import JobConfig
from jobs._run import Answer, Result, Work
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.io.row_store import suffix_of
from lazypipe.models.pca import plan_transform
from lazypipe.plan import Plan
from lazypipe.progress import PassDone
from lazypipe.stores import path_of


class TransformConfig(JobConfig):
    """Scores of the rows of a matrix on the components that a pca job found, in one pass."""

    model: str = Field(min_length=1, description="result folder of a pca job")
    scores: str = Field(
        min_length=1,
        description="where the scores go: a .zarr array or a .parquet folder of parts",
    )


def run(config: TransformConfig) -> Result:
    """Write the scores (rows, k) and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: TransformConfig) -> Plan | Result:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """Where the scores are."""
    figures = result.figures
    n_rows, k = figures["scores_shape"]
    print(f"scores    {figures['scores']}: {n_rows:,} rows x {k:,} components, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def main(argv: list[str] | None = None) -> int:
    return command("transform", TransformConfig, run, argv, show)


def work_of(config: TransformConfig) -> Work:
    pca = lp.PCA.load(config.model)
    suffix_of(path_of(config.scores))

    def transform(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        planned = plan_transform(matrix, pca, engine)
        written = pca.transform(matrix, out=config.scores, overwrite=config.overwrite, engine=engine)
        figures = {"scores": config.scores, "scores_shape": list(written.shape), "passes": 1}
        return Answer(model=written, plan=planned, arrays={}, figures=figures, metrics={"passes": 1.0})

    return Work("transform", lambda matrix, engine: plan_transform(matrix, pca, engine), transform, config.scores)


if __name__ == "__main__":
    sys.exit(main())
