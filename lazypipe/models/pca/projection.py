"""Rows times a basis, by a map over row blocks: the second half of a product, and the scores of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lazypipe.blocks import Run
from lazypipe.engines import Engine
from lazypipe.engines.tasks import blocks_of
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FoldPlan
from lazypipe.stats.base import require_finite, require_no_infinity


@dataclass(frozen=True)
class Projection:
    """A task: the rows of one run times ``basis`` (n_columns, p), less ``offset`` (p,), in float64.

    ``gaps`` lets rows that hold NaN have NaN for an answer, where else they are an error.
    """

    matrix: Matrix
    basis: np.ndarray
    offset: np.ndarray
    gaps: bool = False

    def __call__(self, run: Run) -> np.ndarray:
        out = np.empty((run.stop - run.start, self.basis.shape[1]))
        with np.errstate(invalid="ignore", over="ignore"):
            for block in blocks_of(self.matrix, "rows", run, mapped=False):
                product = block.values @ self.basis
                (require_no_infinity if self.gaps else require_finite)(product, block)
                out[block.rows.start - run.start : block.rows.stop - run.start] = product
        out -= self.offset
        return out


def projected(projection: Projection, engine: Engine, plan: FoldPlan) -> np.ndarray:
    """``projection`` of all rows (n_rows, p), in float64."""
    out = np.empty((projection.matrix.shape[0], projection.basis.shape[1]))
    for run, part in zip(plan.runs, engine.map(projection, plan.runs, plan), strict=True):
        out[run.start : run.stop] = part
    return out
