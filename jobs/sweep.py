"""Sample size x regularization: ``python -m jobs sweep --source x.npy --labels y.npy --hold-out 0.2``."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import BeforeValidator, Field, field_validator

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import RunConfig, restart_of_a_state
from jobs._examples import ExamplesConfig, Inputs, open_inputs
from jobs._run import Answer, Result, Work
from jobs._sweep import Mean, as_rows, best_of_each_size, children, curves, failure_of, means_of
from jobs._tables import aligned
from jobs._values import numbers, words
from lazypipe.engines import Engine
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.grid import grid_of, hidden_of
from lazypipe.plan import Plan
from lazypipe.progress import PassDone

HEAD = ("rows", "model", "C", "training", "validation")
SHOWN = 24  # lines of the table in the summary
WIDTH = 110  # characters of a line of the verdict
NO_SCORE = "none: no cell has a score"
STATUSES = ("done", "failed", "stopped")
OPTIONS = ("epochs", "batch_size", "learning_rate", "hidden", "momentum", "pretrained", "tol", "max_passes")
UNLESS_GIVEN = Options()

# What Prefect's form refuses by itself; grid_of says more.
Rows = Annotated[int, Field(ge=1)]
Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]
Units = Annotated[int, Field(ge=1)]
Name = Literal["logistic", "sgd", "mlp", "deep", "dbn", "ridge"]


def _sizes(value: Any) -> Any:
    return None if value is None else grid_of("logistic", numbers(value), None, None).sizes


def _strengths(value: Any) -> Any:
    return None if value is None else grid_of("logistic", None, numbers(value), None).strengths


def _seeds(value: Any) -> Any:
    return None if value is None else grid_of("logistic", None, None, numbers(value)).seeds


def _hidden(value: Any) -> Any:
    return hidden_of(numbers(value))


def _models(value: Any) -> Any:
    return grid_of(words(value), None, None, None).models


class SweepConfig(RunConfig, ExamplesConfig):
    r"""Would more data, more regularization or a bigger model help? Training and validation score of a classifier (or
    of ridge regression) at every sample size, strength of regularization and seed, and what they say together.

      python -m jobs sweep --source data/train.npy --labels data/train.labels.npy --hold-out 0.2
      python -m jobs sweep --source data/train.npy --labels data/train.labels.npy --validation data/test.npy \
        --validation-labels data/test.labels.npy --divide-by 255 --sizes 50,200,1000,5000 --strengths 1,0.1,0.01 \
        --seeds 0,1,2 --model logistic,mlp --state states/sweep

    Each size is the first so many rows, as they lie in the file or in the order of a seed. Where the rows are sorted
    by class, pass --seeds, so that every size has all classes, and --validation in place of --hold-out.
    """

    sizes: Annotated[tuple[Rows, ...] | None, BeforeValidator(_sizes)] = Field(
        None,
        description="rows to learn from, such as 50,200,1000; without it 50, 200, 300 ... 1000, 2000 ... 5000, 10000, "
        "50000, 100000 and 200000, as far as there are rows",
    )
    strengths: Annotated[tuple[Strength, ...] | None, BeforeValidator(_strengths)] = Field(
        None,
        description="strengths C, as in scikit-learn: a smaller C regularizes more; all in the same passes. Without it "
        "1, 0.1, 0.01 and 0.001, and with deep or dbn 1000, 100, 10 and 1",
    )
    seeds: Annotated[tuple[Seed, ...] | None, BeforeValidator(_seeds)] = Field(
        None,
        description="which rows a size has: of a random order, one a seed, such as 0,1,2; the spread says what is "
        "chance. They are read in the order of the file, which models that learn by mini-batches mix whole only "
        "where they fit in memory: shuffle a larger file that is sorted by class. Without it the first rows",
    )
    model: Annotated[tuple[Name, ...], BeforeValidator(_models)] = Field(
        ("logistic",),
        description="one or several: logistic (to its optimum), sgd (the same by mini-batches), mlp (layers of "
        "rectified units), dbn (layers of sigmoid units that start from a pre-trained stack), deep (the same from "
        "random weights); or ridge, the regression of numbers with alpha = 1 / C. Networks need torch",
    )
    divide_by: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="divide all entries by it: 255 brings pixels to 0 to 1"
    )
    allow_smaller: bool = Field(False, description="leave out sizes that the data do not have, in place of an error")
    early_stopping: bool = Field(
        False,
        description="go from small sizes to large, and give up strengths that regularize too little: at two sizes in "
        "a row three standard errors behind the best; sizes then go one after another. Not for ridge",
    )
    epochs: int = Field(
        UNLESS_GIVEN.epochs,
        ge=1,
        description=f"all but logistic and ridge: how often all rows are read; more often where that makes fewer than "
        f"{UNLESS_GIVEN.least_steps:,} steps, which there are at least",
    )
    batch_size: int = Field(UNLESS_GIVEN.batch_size, ge=1, description="all but logistic and ridge: rows a step")
    learning_rate: float = Field(
        UNLESS_GIVEN.learning_rate,
        gt=0,
        allow_inf_nan=False,
        description="all but logistic and ridge: length of a step",
    )
    hidden: Annotated[tuple[Units, ...], BeforeValidator(_hidden)] = Field(
        UNLESS_GIVEN.hidden, description="mlp and deep: units of each hidden layer, such as 1024, or 500,500,2000"
    )
    momentum: float = Field(UNLESS_GIVEN.momentum, ge=0, lt=1, description="deep and dbn: of the steps")
    pretrained: str | None = Field(
        None,
        min_length=1,
        description="dbn: file of a pre-trained stack, as the job dbn leaves it, of rows divided by the same; deep "
        "then has its layers",
    )
    tol: float = Field(
        UNLESS_GIVEN.tol,
        gt=0,
        allow_inf_nan=False,
        description="logistic: how near to the optimum, relative to the objective",
    )
    max_passes: int = Field(UNLESS_GIVEN.max_passes, ge=1, description="logistic: passes over the rows at most")
    state: str | None = Field(
        None,
        min_length=1,
        description="folder that keeps every cell that is done: after a kill, or on a larger grid, only what is "
        "missing is computed, and what failed is tried again",
    )
    restart: bool = Field(False, description="forget what the state folder holds of these data, and start over")

    _restarts = field_validator("restart")(restart_of_a_state)


def run(config: SweepConfig) -> Result:
    """Sweep, save ``cells.csv``, ``confusion``, ``coef`` and ``intercept`` of the best cell, and log the run.

    Where every cell failed there is a result all the same: ``figures["failure"]`` tells why, and is "" otherwise.
    """
    return _run.carry_out(config, work_of(config))


def plan(config: SweepConfig) -> Plan | Result:
    """What ``run`` would take, from labels and metadata."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """What the cells say together, then the best strength of each size, the best cell, and what it took.

    Raises DataError where every cell failed, once all else is told.
    """
    figures = result.figures
    for line in figures["verdict_lines"]:
        print(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    head, *lines = rows(figures)
    print()
    print("\n".join(aligned([head, *lines[-SHOWN:]])))
    if len(lines) > SHOWN:
        print(f"{len(lines) - SHOWN:,} smaller sizes are in cells.csv")
    print(f"best      {best_line(figures)}")
    print(f"cells     {cells_line(figures)}; {figures['passes']:,} passes at most, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))
    require_scores(result)


def require_scores(result: Result) -> None:
    """DataError where every cell failed."""
    if failure := result.figures["failure"]:
        raise lp.DataError(f"{failure} What each of them said is in {result.out / 'cells.csv'}.")


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """The head of the table, and the best strength of each size and model."""
    return [HEAD, *(_cells(Mean(**mean)) for mean in figures["best_by_size"])]


def _cells(mean: Mean) -> tuple[str, ...]:
    return f"{mean.size:,}", mean.model, f"{mean.C:g}", _score(mean.train), _score(mean.validation)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def best_line(figures: dict[str, Any]) -> str:
    """The cell whose fit is saved."""
    cell = figures["best"]
    if cell is None:
        scored = figures["best_by_size"]
        return "not saved: it could not be fitted again; cells.csv has its scores" if scored else NO_SCORE
    seed = "" if cell["seed"] is None else f", seed {cell['seed']}"
    train, validation = (cell[name] for name in figures["score_columns"])
    return (
        f"{cell['model']}, C = {cell['C']:g}, {cell['size']:,} rows{seed}: {figures['score']} {_score(validation)} "
        f"of {figures['n_validation']:,} validation rows, training {_score(train)}"
    )


def cells_line(figures: dict[str, Any]) -> str:
    """How many there are, and what became of them."""
    counts = figures["cells"]
    told = [f", {counts[status]:,} {status}" for status in STATUSES[1:] if counts[status]]
    if figures["n_recorded"]:
        told.append(f", {figures['n_recorded']:,} of them taken from the state")
    return f"{counts['done']:,} of {figures['n_cells']:,} done{''.join(told)}"


def main(argv: list[str] | None = None) -> int:
    return command("sweep", SweepConfig, run, argv, show)


def work_of(config: SweepConfig) -> Work:
    import lazypipe.models.sweep.verdict  # noqa: F401  # before the plan is made, which counts the memory of libraries

    names = ("sizes", "strengths", "seeds", "model", "divide_by", "allow_smaller", "early_stopping", *OPTIONS)
    options: dict[str, Any] = {name: getattr(config, name) for name in names}

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        state = None if config.restart else config.state  # what is forgotten is to be done again
        return lp.plan_regularization_sweep(inputs.train, inputs.validation, state=state, engine=engine, **options)

    def sweep(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        found = lp.regularization_sweep(
            inputs.train,
            inputs.validation,
            state=config.state,
            restart=config.restart,
            engine=engine,
            **options,
        )
        return _answer(inputs, found)

    return Work("sweep", planned, sweep, open=lambda: open_inputs(config))


def _answer(inputs: Inputs, sweep: lp.RegularizationSweep) -> Answer:
    from lazypipe.models.sweep.verdict import verdict_of

    assert sweep.plan_ is not None, "only sweeps made by hand have none"
    verdict, means, best = verdict_of(sweep), means_of(sweep), sweep.best
    best_by_size = best_of_each_size(sweep, means)
    counted = Counter(sweep.table["status"].to_pylist())
    counts = {status: counted[status] for status in STATUSES}
    present = None if best is None else best.present
    figures: dict[str, Any] = {
        "verdict_lines": verdict.lines(),
        "verdict": verdict.to_dict(),
        "best": None if best is None else best.cell,
        "best_by_size": [mean._asdict() for mean in best_by_size],
        "score": sweep.score,
        "score_columns": list(sweep.score_columns),
        "n_cells": sweep.table.num_rows,
        "n_recorded": sweep.n_recorded,
        "cells": counts,
        "failure": failure_of(sweep),
        "models": list(sweep.models),
        "sizes": list(sweep.sizes),
        "strengths": list(sweep.strengths),
        "seeds": list(sweep.seeds),
        "classes": None if sweep.classes is None else sweep.classes.tolist(),
        "best_classes": None if sweep.classes is None or present is None else sweep.classes[present].tolist(),
        "n_rows": sweep.n_rows,
        "n_features": sweep.n_features,
        "n_validation": sweep.n_validation,
        "validation": inputs.validated(),
        "passes": max((n for n in sweep.table["passes"].to_pylist() if n is not None), default=0),
    }
    metrics = {f"cells_{status}": float(n) for status, n in counts.items()}
    if best is not None:
        train, validation = sweep.score_columns
        scores = {f"best_{name}": best.cell[name] for name in (validation, train) if best.cell[name] is not None}
        metrics |= scores | {"best_C": best.cell["C"], "best_size": float(best.cell["size"])}
    arrays = {name: getattr(best, name, None) for name in ("confusion", "coef", "intercept")}
    return Answer(
        model=sweep,
        plan=sweep.plan_,
        arrays={name: array for name, array in arrays.items() if array is not None},
        figures=figures,
        metrics=metrics,
        pictures=lambda: _pictures(sweep),
        tables={"cells": as_rows(sweep)},
        series=curves(sweep, best_by_size),
        note=_note(figures),
        children=lambda: children(sweep, means),
        warnings=inputs.warnings(),
        complete=not counts["failed"],  # another run tries those again
    )


def _pictures(sweep: lp.RegularizationSweep) -> dict[str, Any]:
    from lazypipe.figures import confusion, heat_map, learning_curves

    pictures = {"learning_curves.png": learning_curves(sweep), "heat_map.png": heat_map(sweep)}
    if sweep.best is not None and sweep.best.confusion is not None:
        pictures["confusion.png"] = confusion(sweep)
    return pictures


def _note(figures: dict[str, Any]) -> str:
    """Markdown for MLflow."""
    said = "\n".join(f"- {line}" for line in figures["verdict_lines"])
    return (
        f"{said}\n\nMetrics `by_size/...` have a step a size (its rows), at the size's best C. A run below is one "
        f"size, with a step a strength. Pictures and all cells (`cells.csv`) are among the artifacts."
    )


if __name__ == "__main__":
    sys.exit(main())
