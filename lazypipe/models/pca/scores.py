"""The scores of a source, (x - mean) / scale on the components: by row blocks, to an array or to disk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lazypipe.atomic import replacing, require_replaceable
from lazypipe.blocks import Block, Run, Span, compute_dtype
from lazypipe.engines import Engine
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.io.prepared import Prepared
from lazypipe.io.row_store import RowStore, is_source, is_store, suffix_of
from lazypipe.models.pca.projection import Projection, projected
from lazypipe.plan import FoldPlan, Host, plan_fold
from lazypipe.sizes import MIB
from lazypipe.stats import AdjointProduct
from lazypipe.stats.base import require_finite, require_no_infinity
from lazypipe.stores import AnyPath

CHUNK_NBYTES = 64 * MIB  # of the source, a chunk of scores


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
        """Scores (n_rows, k) of a source."""
        return projected(self.projection(matrix), engine, self.plan(matrix, engine.host))

    def to_disk(self, matrix: Matrix, out: AnyPath, overwrite: bool, engine: Engine) -> AnyPath:
        """Write the scores of a source to ``out`` (.zarr or .parquet), whole or not at all."""
        suffix = suffix_of(out)
        require_scores(out, matrix, overwrite)
        n_rows, k = matrix.shape[0], len(self.components)
        plan = self.plan(matrix, engine.host)
        row_nbytes = max(1, matrix.nbytes // n_rows)
        chunk = max(1, min(n_rows, max(plan.step, CHUNK_NBYTES // row_nbytes)))
        runs = tuple(
            Run(i, start, min(start + chunk, n_rows), plan.step) for i, start in enumerate(range(0, n_rows, chunk))
        )
        with replacing(out, overwrite, 8 * n_rows * k) as partial:
            store = RowStore(str(partial), suffix, n_rows, k, chunk)
            store.create()
            task = ScoresTask(self.projection(matrix), store)
            for _ in engine.map(task, runs, replace(plan, runs=runs)):
                pass
        return out

    def plan(self, matrix: Matrix, host: Host) -> FoldPlan:
        """A pass over the rows, with the components beside every block."""
        n_rows, n_columns = matrix.shape
        k = len(self.components)
        shape = np.broadcast_to(np.zeros(1, compute_dtype(matrix.dtype)), (n_rows, k))
        reserved = n_columns * k * (self.components.itemsize + 8)
        return plan_fold("scores", AdjointProduct(shape), matrix, host, reserved)


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
