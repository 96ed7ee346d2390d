"""The scores of a source, (x - mean) / scale on the components: by row blocks, to an array or to disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lazypipe.atomic import replacing, require_replaceable
from lazypipe.blocks import Block, Run, Span, compute_dtype, runs
from lazypipe.engines import Engine
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.io.prepared import Prepared
from lazypipe.io.row_store import RowStore, is_source, is_store, suffix_of
from lazypipe.models.pca.projection import Projection, projected
from lazypipe.plan import FoldPlan, Host, Plan, between, fitted, or_say_what_fits, plan_fold
from lazypipe.sizes import MIB
from lazypipe.stats import StripeProjection
from lazypipe.stats.base import Axis, require_finite, require_no_infinity
from lazypipe.stores import AnyPath

CHUNK_NBYTES = 64 * MIB  # of the source, or of scores where those are more, a chunk
COPIES = 3  # of a chunk of scores in a task: itself, and what Parquet makes of it


@dataclass(frozen=True)
class Projector:
    """What a fitted PCA does to a row."""

    components: np.ndarray  # (k, n_columns)
    mean: np.ndarray  # (n_columns,)
    scale: np.ndarray | None  # (n_columns,)
    nan: str
    fill: np.ndarray | None  # (n_columns,) for NaN, where that is to be filled

    def projection(self, matrix: Matrix) -> Projection:
        """The task that gives the scores of a run: basis (n_columns, k) in the compute dtype of the matrix."""
        dtype = compute_dtype(matrix.dtype)
        gain = None if self.scale is None else (1 / self.scale).astype(dtype)
        centres = bool(self.mean.any()) and not matrix.sparse
        centre = self.mean.astype(dtype) if centres else None
        rest = self.mean if centre is None else self.mean - centre
        rest = rest if gain is None else rest * gain
        components = self.components.astype(np.float64)
        filling = None if self.fill is None else self.fill.astype(dtype)
        basis = np.ascontiguousarray(self.components.T, dtype)
        prepared = Prepared(matrix, centre, gain, filling=filling)
        return Projection(prepared, basis, components @ rest, gaps=self.nan == "omit")

    def of_array(self, values: np.ndarray) -> np.ndarray:
        """Scores (n, k) of rows in memory, in float64."""
        if self.fill is not None:
            values = np.where(np.isnan(values), self.fill, values)
        block = Block(values, Span(0, len(values)), Span(0, values.shape[1]), "the rows given")
        if self.nan == "omit":
            require_no_infinity(values.sum(axis=1), block)
        else:
            require_finite(values.sum(axis=1), block)
        values = values - self.mean
        if self.scale is not None:
            values = values / self.scale
        return np.asarray(values @ self.components.T.astype(np.float64))

    def of_matrix(self, matrix: Matrix, engine: Engine) -> np.ndarray:
        """Scores (n_rows, k) of a source. Raises MemoryPlanError where the budget does not hold them twice."""
        answer = 2 * 8 * matrix.shape[0] * len(self.components)  # and its parts, which may all wait for the first
        plan = or_say_what_fits(
            lambda host: self.plan(matrix, host, answer), engine.host, "or write the scores to disk with out=."
        )
        return projected(self.projection(matrix), engine, plan)

    def to_disk(self, matrix: Matrix, out: AnyPath, overwrite: bool, engine: Engine) -> AnyPath:
        """Write the scores of a source to ``out`` (.zarr or .parquet), whole or not at all."""
        suffix = suffix_of(out)
        require_scores(out, matrix, overwrite)
        n_rows, k = matrix.shape[0], len(self.components)
        plan = self.plan(matrix, engine.host)
        with replacing(out, overwrite, 8 * n_rows * k) as partial:
            store = RowStore(str(partial), suffix, n_rows, k, plan.runs[0].stop)
            store.create()
            task = ScoresTask(self.projection(matrix), store)
            for _ in engine.map(task, plan.runs, plan):
                pass
        return out

    def plan(self, matrix: Matrix, host: Host, answer: int = 0) -> FoldPlan:
        """A pass over the rows, a run a chunk of scores; ``answer``: bytes of scores that the driver holds."""
        k, n_columns = self.components.shape
        held = n_columns * k * (self.components.itemsize + 8) + answer
        return plan_scores(self.projection(matrix).matrix, k, host, held)


@dataclass(frozen=True)
class BlockScores(StripeProjection):
    """The scores of a block of rows, as a plan counts them: no state, for they stay where the task puts them."""

    axis: ClassVar[Axis] = "rows"

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        return 0


def plan_scores(matrix: Matrix, k: int, host: Host, held: int) -> FoldPlan:
    """A pass over ``matrix``, as it is read, for ``k`` scores a row; ``held`` bytes are on the driver meanwhile.

    A run is a chunk of scores, which its task holds in float64. Chunks are as large as the budget allows, so that a
    store has few. Raises MemoryPlanError where the budget holds no task.
    """
    n_rows, n_columns = matrix.shape
    basis = np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), (n_columns, k))
    blocks = plan_fold("scores", BlockScores(basis), matrix, host, held)
    row_nbytes = max(1, matrix.nbytes // n_rows, 8 * k)
    fitting = host.memory // 16 // (COPIES * 8 * k)
    chunk = between(min(fitting, max(blocks.step, CHUNK_NBYTES // row_nbytes)), 1, n_rows)
    step = min(blocks.step, chunk)
    cut = runs(Span(0, n_rows), chunk, n_rows)
    return fitted(
        replace(
            blocks,
            step=step,
            runs=tuple(replace(run, step=step) for run in cut),
            task_nbytes=blocks.task_nbytes + COPIES * 8 * k * chunk,
            concurrency=1,
        ),
        matrix.uri,
        host,
    )


def with_scores(plan: Plan, matrix: Matrix, k: int, fills: bool) -> Plan:
    """The plan of a fit of ``k`` components, and of the pass that then writes the scores of its source.

    ``fills`` where NaN are. Raises MemoryPlanError.
    """
    n_columns, dtype = matrix.shape[1], compute_dtype(matrix.dtype)
    vector = np.broadcast_to(np.zeros(1, dtype), n_columns)
    read = Prepared(matrix, vector, vector, filling=vector if fills else None)
    fold = or_say_what_fits(
        lambda host: plan_scores(read, k, host, n_columns * k * (dtype.itemsize + 8)), plan.host, "or write no scores."
    )
    passes = None if plan.passes is None else plan.passes + 1
    return replace(plan, folds=(*plan.folds, fold), passes=passes)


def require_scores(out: AnyPath, matrix: Matrix, overwrite: bool) -> None:
    """Raise DataError where replacing ``out`` would take what is no store of scores, or the source itself."""
    if overwrite and is_source(out, matrix):
        raise DataError(f"{out}: is the source itself. Write the scores elsewhere.")
    require_replaceable(out, overwrite, is_store, "store of scores")


@dataclass(frozen=True)
class ScoresTask:
    """A task: the scores of one chunk of rows, to disk."""

    projection: Projection
    store: RowStore

    def __call__(self, run: Run) -> None:
        self.store.write(Span(run.start, run.stop), self.projection(run))
