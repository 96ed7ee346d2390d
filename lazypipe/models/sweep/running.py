"""A sweep from sources to table: what is recorded is read, the rest is done, the best cell is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from threadpoolctl import threadpool_limits

import lazypipe
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError
from lazypipe.models.sweep.cells import Cell, table_of
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.grid import STRENGTHS, Grid, checked_options, fit_to, grid_of
from lazypipe.models.sweep.planning import held_nbytes, plan_of, tasks_of
from lazypipe.models.sweep.problem import Problem, problem_of
from lazypipe.models.sweep.pruning import hopeless
from lazypipe.models.sweep.records import VERSION, Records
from lazypipe.models.sweep.result import Best, RegularizationSweep
from lazypipe.models.sweep.task import Done, FitPrefix, Task
from lazypipe.plan import Plan

EXACT = ("tol", "max_passes")
STEPS = ("epochs", "batch_size", "learning_rate", "least_steps")
OPTIONS = {"logistic": EXACT, "ridge": (), "sgd": STEPS, "mlp": (*STEPS, "hidden")}  # that change a model's cells


def regularization_sweep(
    train: Any,
    validation: Any,
    *,
    sizes: Iterable[int] | None = None,
    strengths: Iterable[float] = STRENGTHS,
    seeds: Iterable[int] | None = None,
    model: str | Sequence[str] = "logistic",
    divide_by: float = 1.0,
    allow_smaller: bool = False,
    early_stopping: bool = False,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    hidden: int = 1024,
    tol: float = 5e-7,
    max_passes: int = 1000,
    state: str | Path | None = None,
    restart: bool = False,
    engine: Engine | None = None,
) -> RegularizationSweep:
    """Training and validation accuracy at every sample size and every strength of regularization.

    The objective of a cell is scikit-learn's: C · Σ loss + ‖W‖² / 2 over the first ``size`` rows, intercepts not
    penalised. Nothing is standardised; centring, which changes no optimum, is done inside.

    Parameters
    ----------
    train, validation : pairs (X, y). X: path, Matrix or array (n, D); sparse rows are
        read as dense ones. y: one label a row, of any kind, as an
        array or the path of a .npy, IDX, .csv or .parquet file; numbers where ``model`` is "ridge".
    sizes : rows of each prefix; None: 50, 200, 300 ... 1000, 2000 ... 5000, 10k, 50k, 100k, 200k, as the data have.
    strengths : C, as in scikit-learn: less regularizes more.
    seeds : shuffle the rows first, once a seed, each size within the next; None takes the rows as given.
    model : one or several of "logistic" (to its optimum, all strengths in one batch), "sgd" (softmax by mini-batches),
        "mlp" (one hidden layer, by mini-batches); or "ridge", the regression with alpha = 1 / C.
    divide_by : divides all entries, as 255 does pixels.
    allow_smaller : leave out sizes that the data do not have, which are an error otherwise.
    early_stopping : go from small to large, and give a strength up where it is less regularized than the best and
        at two sizes in a row more than three standard errors behind it.
    epochs, batch_size, learning_rate, hidden : of "sgd" and "mlp".
    tol, max_passes : of "logistic": the Newton decrement to end at, relative to the objective.
    state : folder that keeps finished cells; a second run takes them from there, tries failed ones again, and adds
        what a larger grid asks for. ``restart`` forgets those of the same data and options first.
    engine : from ``open_engine``; None works on threads of this process.

    Returns
    -------
    RegularizationSweep : ``.table`` with a row a cell, ``.best`` with its confusion matrix.

    Raises
    ------
    ConfigError, DataError : a grid or data that cannot be; named in one line, before anything is computed.
    MemoryPlanError : a task does not fit the budget.

    Notes
    -----
    A task is all strengths of one size and seed: tasks go largest first, and a cell depends on its own rows and the
    strengths beside it alone. Passes over the rows: 20 to 100 for "logistic", each of all strengths not yet there;
    1 or 2 for "ridge"; ``epochs`` and one for the others. Memory: the rows of a prefix, 4 bytes an entry, where that
    is a third of the budget at most, else a block of them; see ``plan_regularization_sweep``.
    """
    grid, options = _asked(
        model, sizes, strengths, seeds, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        hidden=hidden, tol=tol, max_passes=max_passes,
    )  # fmt: skip
    _require_state(state, restart)
    problem = problem_of(train, validation, divide_by, grid.regression)
    grid = fit_to(grid, problem.train.n_rows, problem.train.matrix.uri, allow_smaller)
    records = _records(state, problem, grid, options)
    with engine_or_own(engine) as running, threadpool_limits(1):
        plan = plan_of(problem, grid, tasks_of(grid), options, running.host)
        if records is not None:
            records.begin(restart)
        work = FitPrefix(problem, problem.train.shift(), options, held_nbytes(running.host), records)
        return _Run(work, grid, running, plan, early_stopping).sweep()


def plan_regularization_sweep(
    train: Any,
    validation: Any,
    *,
    sizes: Iterable[int] | None = None,
    strengths: Iterable[float] = STRENGTHS,
    seeds: Iterable[int] | None = None,
    model: str | Sequence[str] = "logistic",
    divide_by: float = 1.0,
    allow_smaller: bool = False,
    engine: Engine | None = None,
    **options: Any,
) -> Plan:
    """What ``regularization_sweep`` would take: its tasks and bytes. Reads labels and metadata, no rows."""
    given = {"epochs": 20, "batch_size": 128, "learning_rate": 0.1, "hidden": 1024, "tol": 5e-7, "max_passes": 1000}
    unknown = sorted(set(options) - set(given))
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such option of a sweep. Options: {', '.join(given)}.")
    grid, checked = _asked(model, sizes, strengths, seeds, **(given | options))
    problem = problem_of(train, validation, divide_by, grid.regression)
    grid = fit_to(grid, problem.train.n_rows, problem.train.matrix.uri, allow_smaller)
    with engine_or_own(engine) as running:
        return plan_of(problem, grid, tasks_of(grid), checked, running.host)


def _asked(model: Any, sizes: Any, strengths: Any, seeds: Any, **options: Any) -> tuple[Grid, Options]:
    return grid_of(model, sizes, strengths, seeds), checked_options(**options)


def _require_state(state: str | Path | None, restart: bool) -> None:
    if restart and state is None:
        raise ConfigError("restart: there is no state to forget. Give state= (--state), or leave restart out.")


def _records(state: str | Path | None, problem: Problem, grid: Grid, options: Options) -> Records | None:
    if state is None:
        return None
    data = problem.identity()
    identities = {
        model: {
            **data,
            "model": model,
            "options": {name: getattr(options, name) for name in OPTIONS[model]},
            "version": f"{lazypipe.__version__}, cells {VERSION}",
        }
        for model in grid.models
    }
    return Records(Path(state).expanduser().absolute(), identities)


class _Run:
    """One sweep under way: the cells so far, and the best of each task."""

    def __init__(self, work: FitPrefix, grid: Grid, engine: Engine, plan: Plan, early_stopping: bool):
        self.work, self.grid, self.engine, self.plan, self.early_stopping = work, grid, engine, plan, early_stopping
        self.cells: dict[tuple[Any, ...], Cell] = {}
        self.bests: dict[tuple[Any, ...], Best] = {}

    def sweep(self) -> RegularizationSweep:
        if self.work.records is not None:
            for cells, best in self.work.records.read():
                self._take(Done(cells, best))
        if self.early_stopping:
            self._from_small_to_large()
        else:
            self._do(tasks_of(self.grid, self.cells.values()))
        problem, grid = self.work.problem, self.grid
        return RegularizationSweep(
            table_of(self.cells.values()),
            grid.models,
            grid.sizes,
            grid.strengths,
            grid.seeds,
            problem.classes,
            problem.train.n_features,
            problem.train.n_rows,
            problem.validation.n_rows,
            problem.train.matrix.uri,
            self._best(),
            self.plan,
        )

    def _do(self, tasks: list[Task]) -> None:
        if not tasks:
            return
        plan = plan_of(self.work.problem, self.grid, tasks, self.work.options, self.engine.host)
        for done in self.engine.map(self.work, tasks, plan.folds[0]):
            self._take(done)

    def _take(self, done: Done) -> None:
        """Keep what belongs to the grid; of a cell that is there twice the one that succeeded."""
        wanted = set(self.grid.strengths)
        for cell in done.cells:
            in_grid = cell.size in self.grid.sizes and cell.C in wanted and cell.seed in self.grid.seeds
            if in_grid and (cell.key not in self.cells or self.cells[cell.key].status == "failed"):
                self.cells[cell.key] = cell
        if done.best is not None:
            self.bests[Cell(**done.best.cell).key] = done.best

    def _from_small_to_large(self) -> None:
        given_up: dict[tuple[str, int | None, float], str] = {}
        for size in self.grid.sizes:
            part = Grid(self.grid.models, (size,), self.grid.strengths, self.grid.seeds)
            todo = []
            for task in tasks_of(part, self.cells.values()):
                left = tuple(C for C in task.strengths if (task.model, task.seed, C) not in given_up)
                for C in set(task.strengths) - set(left):
                    note = given_up[task.model, task.seed, C]
                    cell = Cell(task.model, size, C, task.seed, "stopped", note=note)
                    self.cells[cell.key] = cell
                if left:
                    todo.append(task._replace(strengths=left))
            self._do(todo)
            given_up |= hopeless(self.cells.values(), size, self.work.problem.validation.n_rows, given_up)

    def _best(self) -> Best | None:
        """The cell of highest mean validation score over seeds; of equal ones of fewest rows, then the smallest C.

        Of its seeds the one of highest score.
        """
        scored = [cell for cell in self.cells.values() if cell.score is not None]
        if not scored:
            return None
        seeds: dict[tuple[str, int, float], list[Cell]] = {}
        for cell in scored:
            seeds.setdefault((cell.model, cell.size, cell.C), []).append(cell)
        highest = max(
            seeds.values(), key=lambda cells: (fmean(_score(cell) for cell in cells), -cells[0].size, -cells[0].C)
        )
        cell = max(highest, key=lambda cell: (_score(cell), -1 if cell.seed is None else -cell.seed))
        found = self.bests.get(cell.key)
        if found is None:  # its own prefix did better at another strength: fit it again, alone
            work = replace(self.work, records=None)
            task = Task(cell.model, cell.seed, cell.size, (cell.C,))
            plan = plan_of(self.work.problem, self.grid, [task], self.work.options, self.engine.host)
            for done in self.engine.map(work, [task], plan.folds[0]):
                found = done.best
        return None if found is None else replace(found, cell=vars(cell))


def _score(cell: Cell) -> float:
    assert cell.score is not None
    return cell.score


__all__ = ["plan_regularization_sweep", "regularization_sweep"]
