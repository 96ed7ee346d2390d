"""Which solver, on which side, with what memory: planned from metadata alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.errors import MemoryPlanError, PlanError
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.models.pca.gradient import MAX_BLOCKS, MIN_BLOCKS
from lazypipe.plan import FoldPlan, Host, Plan, plan_fold
from lazypipe.sizes import show_bytes
from lazypipe.stats import ColumnProduct, Covariance, Gram, Moments, RowProduct

Solver = Literal["auto", "gradient", "deflation", "gram", "covariance"]
EXTRA_COLUMNS = 6
MIN_WIDTH = 16
GRADIENT_PASSES = 12  # to 1e-6 on a slow spectrum, as measured in benchmarks/pca.py
# A nominal machine, to weigh passes against arithmetic; only the order of the results matters.
BYTES_A_SECOND = 5e9
FLOPS_A_SECOND = 1.5e11
EIGEN_FLOPS_A_SECOND = 3e10


@dataclass(frozen=True)
class Choice:
    """A planned way to the components."""

    solver: str
    side: Literal["rows", "columns"]
    width: int  # vectors iterated at once
    max_blocks: int  # blocks of directions that the gradient method remembers
    seconds: float  # on the nominal machine
    plan: Plan
    product: FoldPlan
    before_or_after: FoldPlan | None  # moments before (long side), components after (short side)


def choose(matrix: Matrix, k: int, solver: Solver, host: Host) -> Choice:
    """The choice for ``solver``; for ``auto`` the cheapest of those that fit, and why."""
    require_components(matrix, k)
    if solver != "auto":
        choice = MAKERS[solver](matrix, k, host)
        return _explained(choice, "as asked for")
    choices: list[Choice] = []
    refused: list[str] = []
    for name in ("gram", "covariance", "gradient"):
        try:
            choices.append(MAKERS[name](matrix, k, host))
        except MemoryPlanError:
            refused.append(name)
        except PlanError:
            continue
    if not choices:
        return MAKERS["gradient"](matrix, k, host)  # raises, with the numbers
    best, *others = sorted(choices, key=lambda choice: choice.seconds)
    reason = f"cheapest on a nominal machine, {_cost(best)}"
    reason += "".join(f"; {other.solver} would take {_cost(other)}" for other in others)
    if refused:
        reason += f"; {' and '.join(refused)} would not fit in {show_bytes(host.memory)}"
    return _explained(best, reason)


def require_components(matrix: Matrix, k: int) -> None:
    """Raise PlanError where k exceeds the rank that the shape allows."""
    n_rows, n_columns = matrix.shape
    rank = min(n_rows - 1, n_columns)
    if rank < 1:
        raise PlanError(f"{matrix.uri}: {n_rows} row has no variance. Give two rows or more.")
    if k > rank:
        raise PlanError(
            f"{matrix.uri}: n_components={k} is more than the rank, which is at most {rank:,} for "
            f"{n_rows:,} rows x {n_columns:,} columns. Ask for n_components <= {rank:,}."
        )


def short_side(matrix: Matrix) -> Literal["rows", "columns"]:
    """The side to iterate on: rows where they are fewer and the source can read column stripes."""
    n_rows, n_columns = matrix.shape
    return "rows" if n_rows < n_columns and matrix.reads_columns else "columns"


def _gradient(matrix: Matrix, k: int, host: Host) -> Choice:
    return _iterated("gradient", matrix, k, host, max(k + EXTRA_COLUMNS, MIN_WIDTH))


def _deflation(matrix: Matrix, k: int, host: Host) -> Choice:
    return _iterated("deflation", matrix, k, host, 1)


def _iterated(solver: str, matrix: Matrix, k: int, host: Host, width: int) -> Choice:
    n_rows, n_columns = matrix.shape
    side = short_side(matrix)
    n, rank = (n_rows, n_rows - 1) if side == "rows" else (n_columns, n_columns)
    width = min(width, rank)
    output = _output_nbytes(matrix, k)
    if solver == "gradient":
        vector = 8 * n * width
        room = (host.memory // 2 - output) // (2 * vector)
        max_blocks = int(max(MIN_BLOCKS, min(MAX_BLOCKS, room)))
        held = (2 * max_blocks + 8) * vector
    else:
        max_blocks = 0
        held = 8 * n * (2 * k + 8)
    product, other = _product_folds(matrix, k, width, side, host, held, output)
    passes = GRADIENT_PASSES if solver == "gradient" else None
    n_passes = (passes or 300 * k) + 1
    nbytes = product.bytes_read * n_passes
    flops = 4.0 * n_rows * n_columns * width * n_passes
    seconds = nbytes / BYTES_A_SECOND + flops / FLOPS_A_SECOND
    return _choice(solver, side, matrix, host, (product, other), passes and n_passes, seconds, width, max_blocks, k)


def _product_folds(
    matrix: Matrix, k: int, width: int, side: str, host: Host, held: int, output: int
) -> tuple[FoldPlan, FoldPlan]:
    n_rows, n_columns = matrix.shape
    if side == "rows":
        product = plan_fold("pass", ColumnProduct(_shape(matrix, n_rows, width)), matrix, host, held)
        return product, _stripes(matrix, k, host, held + output)
    mean = _shape(matrix, n_columns)
    statistic = RowProduct(mean, mean, _shape(matrix, n_columns, width), n_rows)
    return (
        plan_fold("pass", statistic, matrix, host, held + output),
        plan_fold("mean and variance", Moments(), matrix, host, 0),
    )


def _gram(matrix: Matrix, k: int, host: Host) -> Choice:
    n_rows, n_columns = matrix.shape
    if not matrix.reads_columns:
        raise PlanError(
            f"{matrix.uri}: solver='gram' reads column stripes, which this file does not offer. Convert it "
            f"to .npy first, or use solver='gradient'."
        )
    eigen = 3 * 8 * n_rows**2
    product = plan_fold("Gram matrix", Gram(), matrix, host, eigen)
    stripes = _stripes(matrix, k, host, 8 * n_rows * 4 * k + _output_nbytes(matrix, k))
    seconds = 2 * product.bytes_read / BYTES_A_SECOND
    seconds += float(n_rows) ** 2 * n_columns / FLOPS_A_SECOND + 4.0 * n_rows**3 / EIGEN_FLOPS_A_SECOND
    return _choice("gram", "rows", matrix, host, (product, stripes), 2, seconds, k, 0, k)


def _covariance(matrix: Matrix, k: int, host: Host) -> Choice:
    n_rows, n_columns = matrix.shape
    shift = _shape(matrix, n_columns)
    product = plan_fold("covariance", Covariance(shift), matrix, host, 3 * 8 * n_columns**2)
    seconds = product.bytes_read / BYTES_A_SECOND
    seconds += float(n_columns) ** 2 * n_rows / FLOPS_A_SECOND + 4.0 * n_columns**3 / EIGEN_FLOPS_A_SECOND
    return _choice("covariance", "columns", matrix, host, (product, None), 1, seconds, k, 0, k)


MAKERS = {"gradient": _gradient, "deflation": _deflation, "gram": _gram, "covariance": _covariance}


def _stripes(matrix: Matrix, k: int, host: Host, reserved: int) -> FoldPlan:
    """The pass that writes the components out: its state is what one run of columns emits."""
    statistic = ColumnProduct(_shape(matrix, matrix.shape[0], 2 * k))
    return plan_fold("components", statistic, matrix, host, reserved)


def _output_nbytes(matrix: Matrix, k: int) -> int:
    """Components, their temporaries, and the mean, on the driver."""
    itemsize = compute_dtype(matrix.dtype).itemsize
    return matrix.shape[1] * (2 * k * itemsize + 4 * 8)


def _shape(matrix: Matrix, *shape: int) -> np.ndarray:
    """An array of a shape and no memory, to plan with."""
    return np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), shape)


def _choice(
    solver: str,
    side: Literal["rows", "columns"],
    matrix: Matrix,
    host: Host,
    folds: tuple[FoldPlan, FoldPlan | None],
    passes: int | None,
    seconds: float,
    width: int,
    max_blocks: int,
    k: int,
) -> Choice:
    notes = []
    if side == "columns" and matrix.shape[0] < matrix.shape[1] and not matrix.reads_columns:
        notes.append("this file cannot be read by column stripes: convert it to .npy to iterate on its short side")
    if side == "rows":
        notes.extend(_layout(matrix, folds[0].step))
    plan = Plan(
        "pca",
        matrix.uri,
        matrix.shape,
        str(matrix.dtype),
        host,
        tuple(fold for fold in folds if fold is not None),
        passes,
        solver,
        output_nbytes=matrix.shape[1] * (k * compute_dtype(matrix.dtype).itemsize + 8),
        notes=tuple(notes),
    )
    return Choice(solver, side, width, max_blocks, seconds, plan, folds[0], folds[1])


def _layout(matrix: Matrix, step: int) -> list[str]:
    """How column stripes of ``step`` lie on disk, where that is known."""
    width = matrix.panel_columns
    if width is not None and step >= width:
        return [f"panels of {width:,} columns: each is read in one piece"]
    if width is not None:
        return [f"panels of {width:,} columns do not fit the budget: each is read in {width // step} parts"]
    if isinstance(matrix, RawRowsMatrix) and not matrix.transposed:
        return [
            f"rows are contiguous: stripes are read in pieces of {show_bytes(step * matrix.dtype.itemsize)}; "
            f"on a cold or remote disk convert to .zarr panels first"
        ]
    return []


def _explained(choice: Choice, reason: str) -> Choice:
    return replace(choice, plan=replace(choice.plan, reason=reason))


def _cost(choice: Choice) -> str:
    passes = "many" if choice.plan.passes is None else f"{choice.plan.passes}"
    return f"{passes} passes, about {choice.seconds:.2g} s"
