"""The whole verdict of a sweep: all parts, in words and as JSON takes them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lazypipe.models.sweep.result import RegularizationSweep
from lazypipe.models.sweep.verdict import judgements, words
from lazypipe.models.sweep.verdict.curves import Curve, Curves
from lazypipe.models.sweep.verdict.parts import BestCell, Cells, Limit, ModelScore, MoreData, Regularization
from lazypipe.plain import plain


@dataclass(frozen=True)
class Verdict:
    """Would more rows, more regularization or a bigger model help? A part is None where it cannot be told."""

    score: str
    n_features: int
    n_validation: int
    n_sizes: int  # of the best model, with a score
    rows_per_feature: float | None
    rows_per_weight: float | None
    best: BestCell | None
    regularization: Regularization | None
    more_data: MoreData | None
    limit: Limit | None
    models: tuple[ModelScore, ...]  # highest score first
    cells: Cells

    def lines(self) -> list[str]:
        """The verdict in words, a question a line."""
        if self.best is None:
            lines = ["No cell has a score: nothing can be told."]
        else:
            lines = [
                words.best_line(self.best, self.score, self.n_validation),
                words.rows_line(self.n_features, self.rows_per_feature, self.rows_per_weight),
                words.regularization_line(self.regularization),
                words.more_data_line(self.more_data, self.n_sizes),
            ]
            if self.limit is not None:
                lines.append(words.limit_line(self.limit, self.more_data))
            if len(self.models) > 1:
                lines.append(words.models_line(self.models))
        return [*lines, *words.cells_line(self.cells)]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON takes them; None for what is not finite."""
        return dict(plain(asdict(self)))


def verdict_of(sweep: RegularizationSweep) -> Verdict:
    """What the cells of a sweep say together."""
    curves = Curves(sweep)
    best = curves.best()
    found: dict[str, Any] = dict.fromkeys(
        ("rows_per_feature", "rows_per_weight", "regularization", "more_data", "limit")
    )
    n_sizes = 0
    if best is not None:
        curve = Curve(curves, best.model)
        n_sizes, largest = len(curve.sizes), int(curve.sizes[-1])
        more = judgements.more_data(curve)
        fitted = sweep.best
        if fitted is not None and fitted.coef is not None and fitted.cell["model"] == best.model:
            n_weights = fitted.coef.size + (0 if fitted.intercept is None else fitted.intercept.size)
            found["rows_per_weight"] = largest / n_weights
        found |= {"rows_per_feature": largest / sweep.n_features, "regularization": judgements.regularization(curve)}
        found |= {"more_data": more, "limit": judgements.limit(curve, more)}
    return Verdict(
        sweep.score, sweep.n_features, sweep.n_validation, n_sizes, best=best, models=judgements.models(curves),
        cells=judgements.cells(sweep), **found,
    )  # fmt: skip
