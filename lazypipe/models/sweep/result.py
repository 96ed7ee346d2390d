"""What a sweep gives: the table of all cells, the best of them, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lazypipe.plan import Plan


@dataclass(frozen=True)
class Best:
    """The cell of highest validation score, as fitted, and how it does class by class.

    ``confusion`` (K, K) counts validation rows, true class by predicted one; None in a regression.
    ``coef`` (outputs, D) and ``intercept`` (outputs,) are of the columns as they lie in the source, in
    scikit-learn's layout (one output where there are two classes); None where a model is no plane.
    ``present``: which of the sweep's classes the outputs are of, where the cell's rows lack some.
    """

    cell: dict[str, Any]
    confusion: np.ndarray | None = None
    coef: np.ndarray | None = None
    intercept: np.ndarray | None = None
    present: np.ndarray | None = None


@dataclass(frozen=True)
class RegularizationSweep:
    """A sweep over sizes, strengths and seeds.

    Attributes
    ----------
    table : pyarrow table, a row a cell; see ``cells.SCHEMA``.
    models, sizes, strengths, seeds : the grid; seeds (None,) are the rows as given.
    classes : (K,) sorted labels; None in a regression.
    n_features, n_rows, n_validation : columns, and rows there are.
    best : the cell of highest validation score; None where every cell failed.
    """

    table: pa.Table
    models: tuple[str, ...]
    sizes: tuple[int, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int | None, ...]
    classes: np.ndarray | None
    n_features: int
    n_rows: int
    n_validation: int
    source: str
    best: Best | None = None
    plan_: Plan | None = field(default=None, repr=False)

    @property
    def score(self) -> str:
        """The name of what the columns of ``score_columns`` hold: "accuracy" or "R²"."""
        return "R²" if self.classes is None else "accuracy"

    @property
    def score_columns(self) -> tuple[str, str]:
        """The columns of the table that hold the scores of the training and of the validation rows."""
        return ("train_r2", "validation_r2") if self.classes is None else ("train_accuracy", "validation_accuracy")

    def scores(self, model: str, strength: float, which: str = "validation") -> np.ndarray:
        """Scores (n_sizes, n_seeds) of one model at one strength; NaN where a cell failed."""
        column = self.score_columns[0 if which == "train" else 1]
        found = np.full((len(self.sizes), len(self.seeds)), np.nan)
        for row in self.table.select(["model", "C", "size", "seed", column]).to_pylist():
            if row["model"] == model and row["C"] == strength and row[column] is not None:
                found[self.sizes.index(row["size"]), self.seeds.index(row["seed"])] = row[column]
        return found
