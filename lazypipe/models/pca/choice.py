"""Which solver, on which side, with what memory: planned from metadata alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from lazypipe.blocks import Span, compute_dtype
from lazypipe.errors import MemoryPlanError, PlanError
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.models.covariance import covariance_fold
from lazypipe.models.pca.gradient import MAX_BLOCKS, MIN_BLOCKS
from lazypipe.models.preparation import Preparation, plan_moments, to_plan_with
from lazypipe.operations import Operations, thin_products
from lazypipe.plan import FoldPlan, Host, Plan, plan_fold
from lazypipe.scaling import Machine, predict
from lazypipe.sizes import show_bytes
from lazypipe.stats import AdjointProduct, Centring, ColumnProduct, Gram, RowProduct, Statistic
from lazypipe.stats.skinny import has_avx512
from lazypipe.stores import is_remote

Solver = Literal["auto", "gradient", "deflation", "gram", "covariance"]
LEAST_PASSES = 3  # that can be asked for: of means, one product, and the components written out
LEAST_PRODUCTS = {"gradient": 1, "deflation": 2}  # for all components, for each of them
EXTRA_COLUMNS = 6
MIN_WIDTH = 16
GRADIENT_PASSES = 12  # to 1e-6 on a slow spectrum, as measured in benchmarks/pca.py
DEFLATION_PASSES = 300  # a component, about: of the order of what benchmarks/pca.py found
# To weigh passes against arithmetic: only the order of the results matters, so the rest costs nothing.
NOMINAL = Machine(
    storage=5, shared_storage=math.inf, piece=0, network=math.inf, memory=math.inf, float32=150, float64=150,
    thin=150, decomposition=30, additions=math.inf, task=0,
)  # fmt: skip


SideName = Literal["rows", "row blocks", "columns"]


@dataclass(frozen=True)
class Choice:
    """A planned way to the components."""

    solver: str
    side: SideName  # "row blocks": the rows as the short side of a source that gives whole rows only
    width: int  # vectors iterated at once
    max_blocks: int  # blocks of directions that the gradient method remembers
    plan: Plan
    product: FoldPlan
    cut_product: Callable[[Span | None], FoldPlan]  # the same for a part of the matrix
    stripes: FoldPlan | None = None  # the pass that writes the components out, on the rows' side
    moments: FoldPlan | None = None  # the pass for means and scales

    @cached_property
    def seconds(self) -> float:
        """On the nominal machine, by one worker; of sparse rows as if they were dense."""
        return predict(self.plan, NOMINAL, 1, as_dense=True).seconds.total

    def least_passes(self, k: int, with_state: bool) -> int:
        """Passes that ``k`` components take at least; with a state one more may start from the old ones."""
        if self.solver not in LEAST_PRODUCTS:
            return 1
        n_products = LEAST_PRODUCTS[self.solver] * (k if self.solver == "deflation" else 1)
        reads = 2 if self.side == "row blocks" else 1
        starting = (self.moments is not None) + (with_state and self.side != "columns")
        return starting + n_products * reads + EMITTING_PASSES[self.side]


@dataclass(frozen=True)
class Wanted:
    """What a choice is made for."""

    matrix: Matrix
    k: int
    asked: Preparation
    host: Host

    @property
    def read(self) -> Matrix:
        """The matrix as it will be read, for plans."""
        return to_plan_with(self.matrix, self.asked)

    @property
    def centring(self) -> Centring | None:
        return Centring.of(self.matrix.shape[0], self.asked.weights) if self.asked.center else None


def choose(matrix: Matrix, k: int, solver: Solver, asked: Preparation, host: Host) -> Choice:
    """The choice for ``solver``; for ``auto`` the cheapest of those that fit, and why."""
    require_components(matrix, k, asked.center)
    wanted = Wanted(matrix, k, asked, host)
    if solver != "auto":
        choice = MAKERS[solver](wanted)
        return _explained(choice, "as asked for")
    choices: list[Choice] = []
    refused: list[str] = []
    for name in ("gram", "covariance", "gradient"):
        try:
            choices.append(MAKERS[name](wanted))
        except MemoryPlanError:
            refused.append(name)
        except PlanError:
            continue
    if not choices:
        return MAKERS["gradient"](wanted)  # raises, with the numbers
    best, *others = sorted(choices, key=lambda choice: choice.seconds)
    reason = f"cheapest on a nominal machine, {_cost(best)}"
    reason += "".join(f"; {other.solver} would take {_cost(other)}" for other in others)
    if refused:
        reason += f"; {' and '.join(refused)} would not fit in {show_bytes(host.memory)}"
    return _explained(best, reason)


def require_components(matrix: Matrix, k: int, center: bool = True) -> None:
    """Raise PlanError where k exceeds the rank that the shape allows."""
    n_rows, n_columns = matrix.shape
    rank = min(n_rows - (1 if center else 0), n_columns)
    if rank < 1:
        raise PlanError(f"{matrix.uri}: {n_rows} row has no variance. Give two rows or more.")
    if k > rank:
        raise PlanError(
            f"{matrix.uri}: n_components={k} is more than the rank, which is at most {rank:,} for "
            f"{n_rows:,} rows x {n_columns:,} columns. Ask for n_components <= {rank:,}."
        )


EMITTING_PASSES = {"rows": 1, "columns": 0, "row blocks": 2}  # that write the components out


def _gradient(wanted: Wanted) -> Choice:
    width = max(wanted.k + EXTRA_COLUMNS, MIN_WIDTH)
    return _iterated("gradient", wanted, width)


def _deflation(wanted: Wanted) -> Choice:
    return _iterated("deflation", wanted, 1)


def _iterated(solver: str, wanted: Wanted, width: int) -> Choice:
    """On the rows where they are fewer: by stripes, or by row blocks where D-long vectors do not fit."""
    n_rows, n_columns = wanted.matrix.shape
    if n_rows >= n_columns:
        return _on_side(solver, wanted, width, "columns")
    if wanted.matrix.reads_columns:
        return _on_side(solver, wanted, width, "rows")
    try:
        return _on_side(solver, wanted, width, "columns")
    except MemoryPlanError:
        return _on_side(solver, wanted, width, "row blocks")


def _on_side(solver: str, wanted: Wanted, width: int, side: SideName) -> Choice:
    matrix, k, host = wanted.matrix, wanted.k, wanted.host
    n_rows, n_columns = matrix.shape
    n = n_columns if side == "columns" else n_rows
    width = max(1, min(width, n - 1 if side != "columns" and wanted.asked.center else n))
    if solver == "deflation":
        return _remembering(wanted, width, side, solver, 0)
    vector = 8 * n * width
    if side == "row blocks":  # a product is D x p, and so are the states that it is summed from
        room = host.memory - 4 * 8 * n_columns * max(width, k) - _beside_nbytes(side, n_columns) - 8 * vector
    else:
        room = host.memory // 2 - _output_nbytes(matrix, k)
    most = max(MIN_BLOCKS, min(MAX_BLOCKS, room // (2 * vector)))
    for max_blocks in range(most, MIN_BLOCKS, -3):
        try:
            return _remembering(wanted, width, side, solver, max_blocks)
        except MemoryPlanError:
            continue
    return _remembering(wanted, width, side, solver, MIN_BLOCKS)


def _beside_nbytes(side: SideName, n_columns: int) -> int:
    """Of means and their like, all the while."""
    return 3 * 8 * n_columns if side == "row blocks" else 0


def _remembering(wanted: Wanted, width: int, side: SideName, solver: str, max_blocks: int) -> Choice:
    """With that many blocks of directions remembered."""
    matrix, k, host = wanted.matrix, wanted.k, wanted.host
    n_rows, n_columns = matrix.shape
    n = n_columns if side == "columns" else n_rows
    output = _output_nbytes(matrix, k)
    held = 8 * n * ((2 * max_blocks + 8) * width if solver == "gradient" else 2 * k + 8)
    held += _beside_nbytes(side, n_columns)
    moments = None
    stripes = None
    # What a product by row blocks leaves, and the components, come after its states are gone, and take less.
    cut = _cut_product(wanted, width, side, held + output if side == "columns" else held)
    if side == "rows":
        stripes = _stripes(wanted, held + output)
    if side != "rows" or not wanted.asked.plain:
        moments = plan_moments(matrix, wanted.asked, host)
    passes = GRADIENT_PASSES if solver == "gradient" else None
    reads = 2 if side == "row blocks" else 1
    n_products = passes or DEFLATION_PASSES * k
    n_passes = n_products * reads + EMITTING_PASSES[side] + (moments is not None)
    # Row blocks write the components out as they iterate.
    times = float(n_products * reads + (EMITTING_PASSES[side] if side == "row blocks" else 0))
    product = cut(None).doing(times=times, on_driver=_ritz(solver, n, width, max_blocks, n_products))
    choice = Choice(solver, side, width, max_blocks, _no_plan(), product, cut, stripes, moments)
    return _planned(choice, wanted, passes and n_passes)


def _ritz(solver: str, n: int, width: int, max_blocks: int, n_passes: int) -> Operations:
    """On the driver after a pass, on average: Rayleigh-Ritz in the span so far, and a basis of what is new."""
    if solver == "deflation":
        return Operations(float64=8.0 * n)
    spans = [width * min(i, max_blocks) for i in range(1, n_passes + 1)]
    return Operations(float64=sum(2.0 * n * span * (span + 8 * width) for span in spans) / n_passes)


def _cut_product(wanted: Wanted, width: int, side: SideName, held: int) -> Callable[[Span | None], FoldPlan]:
    matrix, read = wanted.matrix, wanted.read
    n_rows, n_columns = matrix.shape
    statistic: Statistic
    if side == "rows":
        statistic = ColumnProduct(_shape(matrix, n_rows, width), wanted.centring)
        read = matrix if wanted.asked.plain else read
    elif side == "columns":
        statistic = RowProduct(_shape(matrix, n_columns, width), _shape(matrix, n_columns), float(n_rows))
    else:
        statistic = AdjointProduct(_shape(matrix, n_rows, max(width, wanted.k)))
    return lambda span: plan_fold("pass", statistic, read, wanted.host, held, span)


def _gram(wanted: Wanted) -> Choice:
    matrix = wanted.matrix
    n_rows = matrix.shape[0]
    if not matrix.reads_columns:
        raise PlanError(
            f"{matrix.uri}: solver='gram' reads column stripes, which this file does not offer. Convert it "
            f"to .npy first, or use solver='gradient'."
        )
    eigen = 3 * 8 * n_rows**2
    plain = wanted.asked.plain
    read = matrix if plain else wanted.read
    statistic = Gram(wanted.centring)

    def cut(span: Span | None) -> FoldPlan:
        return plan_fold("Gram matrix", statistic, read, wanted.host, eigen, span)

    product = cut(None).doing(on_driver=_eigenvalues(n_rows))
    stripes = _stripes(wanted, 8 * n_rows * 4 * wanted.k + _output_nbytes(matrix, wanted.k))
    moments = None if plain else plan_moments(matrix, wanted.asked, wanted.host)
    choice = Choice("gram", "rows", wanted.k, 0, _no_plan(), product, cut, stripes, moments)
    return _planned(choice, wanted, 2 if plain else 3)


def _covariance(wanted: Wanted) -> Choice:
    matrix = wanted.matrix
    n_columns = matrix.shape[1]
    eigen = 3 * 8 * n_columns**2

    def cut(span: Span | None) -> FoldPlan:
        return covariance_fold(matrix, wanted.asked, wanted.host, span, eigen)

    product = cut(None).doing(on_driver=_eigenvalues(n_columns))
    moments = None
    if wanted.asked.nan == "mean" or wanted.asked.scales_about_zero:
        moments = plan_moments(matrix, wanted.asked, wanted.host)
    choice = Choice("covariance", "columns", wanted.k, 0, _no_plan(), product, cut, None, moments)
    return _planned(choice, wanted, 1 if moments is None else 2)


def _eigenvalues(n: int) -> Operations:
    return Operations(decomposition=4.0 * n**3)


MAKERS = {"gradient": _gradient, "deflation": _deflation, "gram": _gram, "covariance": _covariance}


def _stripes(wanted: Wanted, reserved: int) -> FoldPlan:
    """The pass that writes the components out: its state is what one run of columns emits."""
    matrix = wanted.matrix
    n_rows, n_columns = matrix.shape
    itemsize = compute_dtype(matrix.dtype).itemsize
    statistic = ColumnProduct(_shape(matrix, n_rows, 2 * wanted.k), wanted.centring)
    fold = plan_fold("components", statistic, matrix if wanted.asked.plain else wanted.read, wanted.host, reserved)
    return fold.doing(
        operations=thin_products(2.0 * n_rows * n_columns * 2 * wanted.k, itemsize),
        returned_nbytes=n_columns * (wanted.k * itemsize + 8),
        on_driver=Operations(float64=4.0 * n_columns * wanted.k**2),
    )


def _output_nbytes(matrix: Matrix, k: int) -> int:
    """Components, their temporaries, and the mean, on the driver."""
    itemsize = compute_dtype(matrix.dtype).itemsize
    return matrix.shape[1] * (2 * k * itemsize + 4 * 8)


def _shape(matrix: Matrix, *shape: int) -> np.ndarray:
    """An array of a shape and no memory, to plan with."""
    return np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), shape)


def _no_plan() -> Plan:
    return None  # type: ignore[return-value]  # filled in by _planned


def _planned(choice: Choice, wanted: Wanted, passes: int | None) -> Choice:
    matrix, k = wanted.matrix, wanted.k
    notes = []
    if choice.side == "columns" and matrix.shape[0] < matrix.shape[1] and not matrix.reads_columns:
        notes.append("this file cannot be read by column stripes: convert it to .npy to iterate on its short side")
    if choice.side == "rows":
        notes.extend(_layout(matrix, choice.product.step))
    plan = Plan(
        "pca",
        matrix.uri,
        matrix.shape,
        str(matrix.dtype),
        wanted.host.compiling if _is_compiled(choice) else wanted.host,
        tuple(fold for fold in (choice.product, choice.stripes, choice.moments) if fold is not None),
        passes,
        choice.solver,
        output_nbytes=matrix.shape[1] * (k * compute_dtype(matrix.dtype).itemsize + 8),
        notes=tuple(notes),
    )
    return replace(choice, plan=plan)


def _is_compiled(choice: Choice) -> bool:
    """Whether the loops of the passes are."""
    return has_avx512() and choice.side == "rows" and choice.solver in ("gradient", "deflation")


def _layout(matrix: Matrix, step: int) -> list[str]:
    """How column stripes of ``step`` lie on disk, where that is known."""
    width = matrix.panel_columns
    if width is not None and step >= width:
        return [f"panels of {width:,} columns: each is read in one piece"]
    if width is not None:
        return [f"panels of {width:,} columns do not fit the budget: each is read in {width // step} parts"]
    if isinstance(matrix, RawRowsMatrix) and not matrix.transposed and is_remote(matrix.uri):
        n_requests = matrix.shape[0] * -(-matrix.shape[1] // step)
        return [
            f"rows are contiguous: stripes are {n_requests:,} requests of {show_bytes(step * matrix.dtype.itemsize)} "
            f"to the store, every pass; panels (convert to .zarr) are read in requests of 1MiB"
        ]
    if isinstance(matrix, RawRowsMatrix) and not matrix.transposed:
        return [
            f"rows are contiguous: stripes are read in pieces of {show_bytes(step * matrix.dtype.itemsize)}; "
            f"panels (convert to .zarr) pass 2 to 3 times as fast, and more from a cold or remote disk"
        ]
    return []


def _explained(choice: Choice, reason: str) -> Choice:
    return replace(choice, plan=replace(choice.plan, reason=reason))


def _cost(choice: Choice) -> str:
    passes = "many" if choice.plan.passes is None else f"{choice.plan.passes}"
    return f"{passes} pass{'es' * (passes != '1')}, about {choice.seconds:.2g} s"
