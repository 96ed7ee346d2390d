"""Mean and covariance of the columns of a matrix: ``python -m jobs covariance --source data/tall.npy``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import PreparedJobConfig
from jobs._run import Answer, Result, Work
from jobs._tables import markdown
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Plan
from lazypipe.progress import PassDone


class CovarianceConfig(PreparedJobConfig):
    """Mean and covariance of all columns, in one pass over the rows."""

    ddof: int = Field(1, ge=0, description="divide by rows - ddof: 1 is the unbiased estimate, 0 the second moment")
    scale: bool = Field(False, description="divide by the standard deviations: the correlation")
    tiles: str | None = Field(
        None,
        min_length=1,
        description="write the covariance as tiles of its upper triangle to this .zarr, for more columns than memory "
        "holds; killed and started again, the job goes on with the tiles that are missing",
    )


def run(config: CovarianceConfig) -> Result:
    """Compute, save ``mean`` (D,) and ``covariance`` (D, D; as tiles where asked), and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: CovarianceConfig) -> Plan | Result:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The result as a short table."""
    figures = result.figures
    for name in ("mean", "variance"):
        low, middle, high = figures[name]
        print(f"{name:<9} {low:.6g} to {high:.6g}, median {middle:.6g}")
    what = f"{figures['n_rows']:,}"
    if figures["n_rows"] != figures["source"]["shape"][0]:
        what += f" of {figures['source']['shape'][0]:,}: the others hold a NaN"
    if figures["n_new_rows"] != figures["source"]["shape"][0]:
        what += f"; {figures['n_new_rows']:,} read, the others were in the state"
    print(f"rows      {what}, {figures['seconds']:.1f} s")
    if figures["config"]["scale"]:
        print("scale     divided by the standard deviations: a correlation")
    if figures["tiles"]:
        print(f"tiles     {figures['tiles']}: lazypipe.TiledCovariance reads any part of it")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def table(figures: Mapping[str, Any]) -> list[str]:
    """The range of means and variances as a markdown table."""
    rows = [(name, *(f"{value:.6g}" for value in figures[name])) for name in ("mean", "variance")]
    return markdown([("of the columns", "smallest", "median", "largest"), *rows])


def main(argv: list[str] | None = None) -> int:
    return command("covariance", CovarianceConfig, run, argv, show)


def work_of(config: CovarianceConfig) -> Work:
    options = {name: getattr(config, name) for name in ("ddof", "center", "scale", "nan", "row_weights")}

    def compute(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        result = lp.covariance(
            matrix,
            engine=engine,
            out=config.tiles,
            overwrite=config.overwrite,
            state=config.state,
            restart=config.restart,
            **options,
        )
        arrays = {"mean": result.mean}
        if isinstance(result.covariance, np.ndarray):
            arrays["covariance"] = result.covariance
        variance = result.covariance.diagonal()
        figures: dict[str, Any] = {"mean": _range(result.mean), "variance": _range(variance)}
        figures |= {"n_rows": result.n_rows, "n_new_rows": result.n_new_rows, "weight": result.weight}
        figures |= {"ddof": config.ddof, "passes": result.plan.passes, "tiles": config.tiles}
        return Answer(
            model=result,
            plan=result.plan,
            arrays=arrays,
            figures=figures,
            metrics={"passes": float(result.plan.passes or 1), "total_variance": float(variance.sum())},
            note="\n".join(table(figures)),
        )

    return Work(
        "covariance",
        lambda matrix, engine: lp.plan_covariance(
            matrix, engine=engine, out=config.tiles, state=config.state, **options
        ),
        compute,
        config.tiles,
    )


def _range(values: np.ndarray) -> list[float]:
    return [float(values.min()), float(np.median(values)), float(values.max())]


if __name__ == "__main__":
    sys.exit(main())
