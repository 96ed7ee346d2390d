"""What a sweep takes: its tasks, largest first, their bytes, and which prefixes stay in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from lazypipe.blocks import Run, compute_dtype
from lazypipe.io.examples import Examples, Problem
from lazypipe.models.sweep.cells import Cell
from lazypipe.models.sweep.fitted import Options
from lazypipe.models.sweep.grid import NETWORKS, Grid, model_of
from lazypipe.models.sweep.rows import block_rows
from lazypipe.models.sweep.task import Task
from lazypipe.plan import FoldPlan, Host, Plan, fitted, or_say_what_fits
from lazypipe.sizes import MIB, show_bytes

HELD_SHARE = 3  # a prefix stays in memory where it takes no more than a third of the budget
PASSES = 40  # of logistic regression, about
TORCH_NBYTES = 384 * MIB  # once a process that fits a network: of the build with CUDA; without it 224
CELL_NBYTES = 2048  # of the table, and of its record as text
REMEDY = "or give fewer strengths or smaller sizes."


def tasks_of(grid: Grid, done: Iterable[Cell] = ()) -> list[Task]:
    """The tasks for all cells of the grid that are not done."""
    there = {(cell.model, cell.seed, cell.size, cell.C) for cell in done if cell.status != "failed"}
    tasks = []
    for size in reversed(grid.sizes):
        for model in grid.models:
            for seed in grid.seeds:
                missing = tuple(C for C in grid.strengths if (model, seed, size, C) not in there)
                if missing:
                    tasks.append(Task(model, seed, size, missing))
    return tasks


def largest_first(tasks: Iterable[Task], problem: Problem, options: Options) -> list[Task]:
    """The tasks by the work that they take."""
    return sorted(tasks, key=lambda task: -_work(task, problem, options))


def _work(task: Task, problem: Problem, options: Options) -> int:
    """About how long a task takes, in multiplications: what time left and order are told from."""
    n_features, width = problem.train.n_features, max(1, problem.n_classes) * len(task.strengths)
    if task.model == "ridge":
        return task.size * n_features * min(task.size, n_features)
    if task.model == "logistic":
        return PASSES * 2 * task.size * n_features * width
    readings = max(options.epochs * task.size, options.least_steps * min(options.batch_size, task.size))
    if task.model == "sgd":
        return readings * 2 * n_features * width
    units = (n_features, *options.units(task.model), problem.n_classes)
    return readings * 3 * sum(a * b for a, b in pairwise(units)) * len(task.strengths)


def plan_of(problem: Problem, grid: Grid, tasks: list[Task], options: Options, host: Host, title: str = "fits") -> Plan:
    """The plan of those tasks. Raises MemoryPlanError."""
    matrix = problem.train.matrix
    host = host.compiling
    if any(task.model in NETWORKS for task in tasks):
        host = replace(host, base=host.base + TORCH_NBYTES)
    fold = or_say_what_fits(lambda given: _fold(problem, tasks, options, given, title), host, REMEDY)
    cells = sum(len(task.strengths) for task in tasks)
    notes = [
        f"{cells:,} of {grid.n_cells:,} cells to do: {len(grid.models)} models x {len(grid.sizes)} sizes x "
        f"{len(grid.strengths)} strengths x {len(grid.seeds)} seeds"
    ]
    held = held_nbytes(host)
    streamed = sorted({task.size for task in tasks if 4 * task.size * matrix.shape[1] > held})
    if streamed:
        largest = HELD_SHARE * 4 * streamed[-1] * matrix.shape[1]
        notes.append(
            f"sizes from {streamed[0]:,} are read anew in every pass; memory={show_bytes(largest)!r} would hold them"
        )
    if matrix.sparse:
        notes.append("sparse rows are read as dense ones, zeros included")
    return Plan(
        "sweep", matrix.uri, matrix.shape, str(matrix.dtype), host, (fold,), None,
        output_nbytes=CELL_NBYTES * cells, nbytes=matrix.nbytes, notes=tuple(notes),
    )  # fmt: skip


def held_nbytes(host: Host) -> int:
    """Largest prefix that stays in memory: of the budget alone, so that every engine computes the same."""
    return host.memory // HELD_SHARE


def _fold(problem: Problem, tasks: list[Task], options: Options, host: Host, title: str) -> FoldPlan:
    train = problem.train
    step = block_rows(train.n_features)
    sizes = [task_nbytes(problem, task, options, host) for task in tasks]
    best = 8 * (train.n_features + problem.n_classes + 1) * max(1, problem.n_classes)
    plan = FoldPlan(
        title,
        "rows",
        step,
        tuple(Run(i, 0, _work(task, problem, options), step) for i, task in enumerate(tasks)),
        mapped_nbytes=0,
        state_nbytes=best,
        live_states=max(1, len(tasks)),
        task_nbytes=max(sizes, default=0),
        reserved=_shared_nbytes(problem, options) + CELL_NBYTES * sum(len(task.strengths) for task in tasks),
        concurrency=1,
        bytes_read=sum(task.size for task in tasks) * train.n_features * train.matrix.dtype.itemsize,
        shared=host.shared,
    )
    return fitted(plan, train.matrix.uri, host)


def task_nbytes(problem: Problem, task: Task, options: Options, host: Host) -> int:
    """The rows that a task holds, its blocks, the fit, and what is said of the validation rows."""
    train = problem.train
    rows = 4 * task.size * train.n_features
    held = rows if rows <= held_nbytes(host) else 0
    fit = model_of(task.model).nbytes(task.size, train.n_features, problem.n_classes, len(task.strengths), options)
    order = 0 if task.seed is None else 16 * train.n_rows
    judged = problem.validation.n_rows if problem.n_classes else max(problem.validation.n_rows, task.size)
    said = (12 if problem.n_classes else 24) * judged * len(task.strengths)
    fixed = _block_nbytes(train) + order + 16 * task.size + (0 if host.shared else _stack_nbytes(options))
    return held + fixed + max(fit, _block_nbytes(problem.validation) + said)


def _block_nbytes(examples: Examples) -> int:
    """A block as it is read and as it is handed on, and what the reader holds."""
    step, width = block_rows(examples.n_features), examples.n_features
    raw = compute_dtype(examples.matrix.dtype).itemsize
    return step * width * (4 + raw) + examples.matrix.reader_nbytes(step, width)


def _shared_nbytes(problem: Problem, options: Options) -> int:
    return problem.train.targets.nbytes + problem.validation.targets.nbytes + _stack_nbytes(options)


def _stack_nbytes(options: Options) -> int:
    return 0 if options.pretrained is None else options.pretrained.nbytes
