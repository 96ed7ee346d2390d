"""What a sweep gives: the table of all cells, the best of them, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lazypipe.errors import ConfigError
from lazypipe.plan import Plan

if TYPE_CHECKING:
    from lazypipe.models.sweep.verdict import Verdict

TIE = 1e-12  # means no further apart are equal: sums over seeds round


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
    n_features, n_rows, n_validation : columns, training rows and validation rows that there are.
    source : where the training rows are.
    best : the cell of highest validation score; None where every cell failed.
    n_recorded : cells that were taken from the state.
    plan_ : what was planned of the others.
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
    n_recorded: int = 0
    plan_: Plan | None = field(default=None, repr=False)

    @property
    def score(self) -> str:
        """The name of what the columns of ``score_columns`` hold: "accuracy" or "R²"."""
        return "R²" if self.classes is None else "accuracy"

    @property
    def score_columns(self) -> tuple[str, str]:
        """The columns of the table that hold the scores of the training and of the validation rows."""
        return ("train_r2", "validation_r2") if self.classes is None else ("train_accuracy", "validation_accuracy")

    def cube(self, which: str = "validation") -> np.ndarray:
        """Scores (models, strengths, sizes, seeds) of "train" or "validation" rows; NaN where a cell has no score."""
        columns = dict(zip(("train", "validation"), self.score_columns, strict=True))
        if which not in columns:
            raise ConfigError(f'cube: there are no {which!r} scores. Pass which="train" or which="validation".')
        axes = {"model": self.models, "C": self.strengths, "size": self.sizes, "seed": self.seeds}
        at = []
        for name, values in axes.items():
            place = {value: i for i, value in enumerate(values)}
            at.append([place[value] for value in self.table[name].to_pylist()])
        scores = np.array(self.table[columns[which]].to_pylist(), np.float64)  # a null becomes NaN
        found = np.full([len(values) for values in axes.values()], np.nan)
        found[tuple(at)] = np.where(np.isfinite(scores), scores, np.nan)
        return found

    def scores(self, model: str, strength: float, which: str = "validation") -> np.ndarray:
        """Scores (n_sizes, n_seeds) of one model at one strength; NaN where a cell has none."""
        for name, value, known in (("model", model, self.models), ("strength", strength, self.strengths)):
            if value not in known:
                raise ConfigError(f"{name}: {value!r} is not in the sweep, which has {', '.join(map(str, known))}.")
        return self.cube(which)[self.models.index(model), self.strengths.index(strength)]

    def means(self, which: str = "validation") -> np.ndarray:
        """Scores (models, strengths, sizes), means over the seeds that have one; NaN where none has."""
        return mean_over_seeds(self.cube(which))

    def best_place(self) -> tuple[int, int, int] | None:
        """Where among models, strengths and sizes the mean validation score is highest; see ``best_place_of``."""
        return best_place_of(self.cube(), self.sizes, self.strengths)

    def verdict(self) -> Verdict:
        """What the cells say together, in ``.lines()``: would more rows, more regularization or a bigger model help?"""
        from lazypipe.models.sweep.verdict import verdict_of  # which reads sweeps

        return verdict_of(self)


def mean_over_seeds(cube: np.ndarray) -> np.ndarray:
    """Over the last axis, of those that have a score; NaN where none has."""
    n = np.isfinite(cube).sum(axis=-1)
    return np.where(n > 0, np.nansum(cube, axis=-1) / np.maximum(n, 1), np.nan)


def best_place_of(cube: np.ndarray, sizes: Sequence[int], strengths: Sequence[float]) -> tuple[int, int, int] | None:
    """The best cell of scores (models, strengths, sizes, seeds): model, strength and size, as places; None: no score.

    Of the places with the most seeds, that of highest mean; of equal ones that of fewest rows, then of the smallest
    C, then the first model.
    """
    n, means = np.isfinite(cube).sum(axis=-1), mean_over_seeds(cube)
    if not n.any():
        return None
    means = np.where(n == n.max(), means, -np.inf)
    highest = np.argwhere(means >= means.max() - TIE).tolist()
    model, strength, size = min(highest, key=lambda at: (sizes[at[2]], strengths[at[1]], at[0]))
    return model, strength, size
