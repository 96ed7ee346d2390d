"""A sweep from sources to table: what is recorded is read, the rest is done, the best cell is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import lazypipe
from lazypipe.checkpoint import local_folder
from lazypipe.checks import require_restart
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError
from lazypipe.io.examples import Problem, problem_of
from lazypipe.models.sweep.cells import Cell, table_of
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.grid import Grid, checked_options, fit_to, grid_of, model_of, require_stack
from lazypipe.models.sweep.planning import held_nbytes, largest_first, plan_of, tasks_of
from lazypipe.models.sweep.pruning import hopeless
from lazypipe.models.sweep.records import VERSION, Records
from lazypipe.models.sweep.result import Best, RegularizationSweep, best_place_of
from lazypipe.models.sweep.rows import shift_of
from lazypipe.models.sweep.task import FitPrefix, Task
from lazypipe.plan import Plan

DEFAULTS = Options()
EXACT = ("tol", "max_passes")
STEPS = ("epochs", "batch_size", "learning_rate", "least_steps")
DEEP = (*STEPS, "momentum", "layers")
OPTIONS = {  # that change a model's cells
    "logistic": EXACT, "ridge": (), "sgd": STEPS, "mlp": (*STEPS, "hidden"), "deep": DEEP, "dbn": (*DEEP, "stack"),
}  # fmt: skip


Recorded = dict[tuple[Any, ...], tuple[Cell, Best | None]]


def regularization_sweep(
    train: Any,
    validation: Any,
    *,
    sizes: Iterable[int] | None = None,
    strengths: Iterable[float] | None = None,
    seeds: Iterable[int] | None = None,
    model: str | Sequence[str] = "logistic",
    divide_by: float = 1.0,
    allow_smaller: bool = False,
    early_stopping: bool = False,
    epochs: int = DEFAULTS.epochs,
    batch_size: int = DEFAULTS.batch_size,
    learning_rate: float = DEFAULTS.learning_rate,
    hidden: int | Sequence[int] = DEFAULTS.hidden,
    momentum: float = DEFAULTS.momentum,
    pretrained: str | Path | None = None,
    tol: float = DEFAULTS.tol,
    max_passes: int = DEFAULTS.max_passes,
    state: str | Path | None = None,
    restart: bool = False,
    engine: Engine | None = None,
) -> RegularizationSweep:
    """Training and validation accuracy at every sample size and every strength of regularization.

    The objective of a cell is scikit-learn's: C · Σ loss + ‖W‖² / 2 over the first ``size`` rows, intercepts not
    penalised. Nothing is standardised; centring, which changes no optimum, is done inside.

    Parameters
    ----------
    train, validation : pairs (X, y). X: path, Matrix or array (n, D); sparse rows are read as dense ones. y: one label
        a row, of any kind, as an array or the path of a .npy, IDX, .csv or .parquet file; numbers where ``model`` is
        "ridge".
    sizes : rows of each prefix; None: 50, 200, 300 ... 1000, 2000 ... 5000, 10k, 50k, 100k, 200k, as the data have.
    strengths : C, as in scikit-learn: less regularizes more. None: 1, 0.1, 0.01 and 0.001; with "deep" or "dbn" 1000,
        100, 10 and 1, since a stack's weights are large, and penalised as all are.
    seeds : shuffle the rows first, once a seed, each size within the next; None takes the rows as given.
    model : one or several of "logistic" (to its optimum, all strengths in one batch), "sgd" (softmax by mini-batches),
        "mlp" (layers of rectified units, by mini-batches), "dbn" (layers of sigmoid units that start from
        ``pretrained``) and "deep" (the same from random weights); or "ridge", the regression with alpha = 1 / C.
        Networks need torch.
    divide_by : divides all entries, as 255 does pixels.
    allow_smaller : leave out sizes that the data do not have, which are an error otherwise.
    early_stopping : go from small sizes to large, one after another, and give a strength up where it is less
        regularized than the best and at two sizes in a row more than three standard errors behind it. Not of "ridge".
    epochs, batch_size, learning_rate : of all but "logistic" and "ridge"; 1,000 steps at least, whatever the epochs. A
        prefix that memory does not hold is read in windows of neighbouring rows: shuffle a file sorted by class before.
    hidden : units of each hidden layer of networks, inputs first; ``momentum`` of "deep" and "dbn".
    pretrained : the file of a pre-trained stack, as ``lp.DBN`` saves it, of rows divided by the same ``divide_by``;
        "deep" then has its layers, whatever ``hidden``.
    tol, max_passes : of "logistic": the Newton decrement to end at, relative to the objective.
    state : folder that keeps finished cells; a second run takes them from there, tries failed ones again, and adds
        what a larger grid asks for. Cells that were fitted under another budget of memory are taken too.
        ``restart`` forgets those of the same data and options first.
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
    grid = grid_of(model, sizes, strengths, seeds)
    options = checked_options(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, hidden=hidden, momentum=momentum,
        pretrained=pretrained, tol=tol, max_passes=max_passes,
    )  # fmt: skip
    require_restart(state, restart)
    require_pruning(grid, early_stopping)
    problem, grid, records = _opened(train, validation, divide_by, grid, allow_smaller, state, options)
    with engine_or_own(engine) as running, threadpool_limits(1):
        done = {} if restart else _recorded(records, grid)
        plan = _plan(problem, grid, done, options, running)
        if records is not None:
            records.begin(restart)
        work = FitPrefix(problem, shift_of(problem.train), options, held_nbytes(running.host), records)
        return _Run(work, grid, running, plan, early_stopping, done).sweep()


def plan_regularization_sweep(
    train: Any,
    validation: Any,
    *,
    sizes: Iterable[int] | None = None,
    strengths: Iterable[float] | None = None,
    seeds: Iterable[int] | None = None,
    model: str | Sequence[str] = "logistic",
    divide_by: float = 1.0,
    allow_smaller: bool = False,
    early_stopping: bool = False,
    state: str | Path | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> Plan:
    """What ``regularization_sweep`` would take: its tasks and bytes. Reads labels, metadata and records, no rows."""
    given = {name: value for name, value in vars(DEFAULTS).items() if name != "least_steps"}
    unknown = sorted(set(options) - set(given))
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such option of a sweep. Options: {', '.join(given)}.")
    grid, checked = grid_of(model, sizes, strengths, seeds), checked_options(**(given | options))
    require_pruning(grid, early_stopping)
    problem, grid, records = _opened(train, validation, divide_by, grid, allow_smaller, state, checked)
    with engine_or_own(engine) as running:
        return _plan(problem, grid, _recorded(records, grid), checked, running)


def require_pruning(grid: Grid, early_stopping: bool) -> None:
    """ConfigError where strengths are to be given up by a model that fits all of them at once."""
    if early_stopping and grid.regression:
        raise ConfigError("early_stopping: ridge gives no strength up. Leave it out.")


def _opened(
    train: Any, validation: Any, divide_by: float, grid: Grid, allow_smaller: bool, state: Any, options: Options
) -> tuple[Problem, Grid, Records | None]:
    """The data, the grid that they have, and where its cells are kept."""
    problem = problem_of(train, validation, divide_by, grid.regression)
    grid = fit_to(grid, problem.train.n_rows, problem.train.matrix.uri, allow_smaller)
    require_stack(grid, options, problem.train.n_features, problem.train.divide_by)
    for model in grid.models:
        model_of(model)  # what is missing is to be named before anything is read
    return problem, grid, _records(state, problem, grid, options)


def _plan(problem: Problem, grid: Grid, done: Recorded, options: Options, engine: Engine) -> Plan:
    """Of the cells that are to be done; of all, where none is."""
    left = tasks_of(grid, [cell for cell, _ in done.values()]) or tasks_of(grid)
    return plan_of(problem, grid, largest_first(left, problem, options), options, engine.host)


def _recorded(records: Records | None, grid: Grid) -> Recorded:
    """The cells of the grid that earlier sweeps finished, and how the best of each task was fitted."""
    found: Recorded = {}
    for cells, best in records.read() if records is not None else ():
        for cell in cells:
            in_grid = cell.size in grid.sizes and cell.C in grid.strengths and cell.seed in grid.seeds
            if in_grid and (cell.key not in found or found[cell.key][0].status == "failed"):
                found[cell.key] = cell, None
        key = None if best is None else Cell(**best.cell).key
        if key in found:
            found[key] = found[key][0], best
    return found


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
    return Records(local_folder(state), identities)


class _Run:
    """One sweep under way: the cells so far, and how the best of each task was fitted."""

    def __init__(self, work: FitPrefix, grid: Grid, engine: Engine, plan: Plan, early_stopping: bool, done: Recorded):
        self.work, self.grid, self.engine, self.plan, self.early_stopping = work, grid, engine, plan, early_stopping
        self.cells = {key: cell for key, (cell, _) in done.items()}
        self.bests = {key: best for key, (_, best) in done.items() if best is not None}
        self.n_recorded = sum(cell.status == "done" for cell in self.cells.values())

    def sweep(self) -> RegularizationSweep:
        left = tasks_of(self.grid, self.cells.values())
        if left:
            self.work.look_at_validation()
        if self.early_stopping:
            self._from_small_to_large()
        else:
            self._do(left)
        problem, grid = self.work.problem, self.grid
        found = RegularizationSweep(
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
            n_recorded=self.n_recorded,
            plan_=self.plan,
        )
        best = self._best(found.cube())
        return replace(found, table=table_of(self.cells.values()), best=best)

    def _do(self, tasks: list[Task], title: str = "fits") -> None:
        """Do tasks; where workers have no disk in common with this process, it writes their records."""
        if not tasks:
            return
        work = self.work
        tasks = largest_first(tasks, work.problem, work.options)
        plan = plan_of(work.problem, self.grid, tasks, work.options, self.engine.host, title)
        for task, done in zip(tasks, self.engine.map(work, tasks, plan.folds[0]), strict=True):
            if work.records is not None and not work.records.has(task):
                work.records.write(task, done)
            self.cells |= {cell.key: cell for cell in done.cells}
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
            self._do(todo, f"fits of {size:,} rows")
            given_up |= hopeless(self.cells.values(), size, self.work.problem.validation.n_rows, given_up)

    def _best(self, cube: np.ndarray) -> Best | None:
        """The best place of the grid, and of its seeds the one of highest score whose fit is there."""
        place = best_place_of(cube, self.grid.sizes, self.grid.strengths)
        if place is None:
            return None
        model, C, size = (
            values[i] for values, i in zip((self.grid.models, self.grid.strengths, self.grid.sizes), place, strict=True)
        )
        seeds = [cell for cell in self.cells.values() if (cell.model, cell.C, cell.size) == (model, C, size)]
        scored = [cell for cell in seeds if cell.score is not None]
        fitted = [cell for cell in scored if cell.key in self.bests]
        cell = max(fitted or scored, key=lambda cell: (_score(cell), -1 if cell.seed is None else -cell.seed))
        if not fitted:  # at each seed another strength did better: fit this one alone, and keep that too
            self._do([Task(cell.model, cell.seed, cell.size, (cell.C,))])
        return self.bests.get(cell.key)


def _score(cell: Cell) -> float:
    assert cell.score is not None
    return cell.score
