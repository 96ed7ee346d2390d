"""A verdict in words: a line for each of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lazypipe.models.sweep.grid import NETWORKS
from lazypipe.models.sweep.verdict.noise import NORMAL
from lazypipe.models.sweep.verdict.parts import BestCell, Cells, Limit, ModelScore, MoreData, Regularization
from lazypipe.models.sweep.verdict.power_law import FEWEST_SIZES

POOR = 3.0  # chi² a degree of freedom
LIMITS = {
    "nothing": "none that these validation rows can show",
    "unknown": "cannot be told without a training score",
    "model": "the model, or what the columns cannot tell; more rows would add little",
    "regularization": "overfitting that more rows do not mend; more regularization, or another model",
    "data": "the data; more rows or more regularization",
    "both": "both the data and the model",
}


def best_line(best: BestCell, score: str, n_validation: int) -> str:
    seeds = f"{best.n_seeds} seeds, SD {best.seed_sd:.4f}" if best.seed_sd is not None else "one seed"
    return (
        f"Best: {best.model}, C = {best.C:g}, {best.size:,} rows: validation {score} {best.validation:.4f} ± "
        f"{best.standard_error:.4f} (standard error of {n_validation:,} rows; {seeds}), training {best.train:.4f}."
    )


def rows_line(n_features: int, per_feature: float | None, per_weight: float | None) -> str:
    weights = "" if per_weight is None else f", {per_weight:.3g} a weight"
    return f"Rows: {per_feature:.3g} a feature at the largest size ({n_features:,} features){weights}."


def regularization_line(found: Regularization | None) -> str:
    if found is None:
        return "Regularization: one strength only, nothing to compare."
    if found.irrelevant_from is None:
        i, said = -1, f"still matters at {found.sizes[-1]:,} rows"
    else:
        i = found.sizes.index(found.irrelevant_from)
        said = f"stops mattering at {found.irrelevant_from:,} rows" if i else "matters at no size"
    than = "noise" if found.irrelevant_from is None else "less than the noise,"
    some = f"the {found.n_strengths[i]} " if found.n_strengths[i] < max(found.n_strengths) else ""
    left = " left" if some else ""
    apart = f"{some}strengths{left} are {found.spread[i]:.4f} apart there, {than} ± {found.noise[i]:.4f}"
    if found.over_weakest > 0:
        apart += f"; at {found.sizes[-1]:,} the best leads the least regularized by {found.over_weakest:.4f}"
    ends = dict.fromkeys((0, len(found.sizes) - 1))
    best = ", ".join(f"{found.best[i]:g} at {found.sizes[i]:,} rows{_edge_said(found, min(i, 1))}" for i in ends)
    return f"Regularization {said}: {apart}. Best C: {best}."


def _edge_said(found: Regularization, end: int) -> str:
    if found.edges[end] is None:
        return ""
    return f" ({found.edges[end]} of the grid: {'extend it' if found.extend[end] else 'its neighbour is as good'})"


def more_data_line(more: MoreData | None, n_sizes: int) -> str:
    if more is None:
        return f"More rows: cannot be told from {n_sizes} size{'s' * (n_sizes != 1)}; {FEWEST_SIZES} are needed."
    low, high = more.gain_interval
    said = {
        True: "they help",
        False: f"they hardly help, by less than the noise of a score (± {more.noise:.4f})",
        None: "whether they help is not certain",
    }[more.helps]
    law = f"error = {more.a:.3g} + {more.b:.3g} n^-{more.c:.2g}" if more.b else f"error = {more.a:.3g}"
    return (
        f"More rows: {said}. {more.size:,} would give {more.expected:.4f} (95% interval {more.interval[0]:.4f} to "
        f"{more.interval[1]:.4f}), a gain of {more.gain:.4f} ({low:.4f} to {high:.4f}); {law}, fitted to "
        f"{len(more.sizes)} sizes from {more.sizes[0]:,} rows on{', badly' if more.misfit > POOR else ''}."
    )


def limit_line(limit: Limit, more: MoreData | None) -> str:
    line = (
        f"Limit: {LIMITS[limit.kind]}. Training {limit.train:.4f}, validation {limit.validation:.4f} at "
        f"{limit.size:,} rows (C = {limit.C:g}): {limit.train - limit.validation:+.4f}"
    )
    if more is None:
        return line + "."
    low, high = more.limit_interval
    return (
        f"{line}; of the error, {1 - limit.validation:.4f}, infinitely many rows would leave {more.a:.4f} "
        f"(95% interval {low:.4f} to {high:.4f})."
    )


def models_line(models: tuple[ModelScore, ...]) -> str:
    """The best network against the best of the others; without the two kinds, the first against the second."""
    kinds = [[m for m in models if (m.model in NETWORKS) == bigger] for bigger in (True, False)]
    one, other = (kinds[0][0], kinds[1][0]) if all(kinds) else models[:2]
    lead, error = one.validation - other.validation, math.hypot(one.standard_error, other.standard_error)
    told = abs(lead) > NORMAL * error
    if not all(kinds):
        said = "no bigger one is in the sweep; the best two " + ("differ" if told else "differ by no more than noise")
    elif told:
        said = "the bigger one helps" if lead > 0 else "the bigger one is worse"
    else:
        said = "that the bigger one helps cannot be told"
    scores = ", ".join(f"{m.model} {m.validation:.4f} (C = {m.C:g}, {m.size:,} rows)" for m in models)
    return (
        f"Models: {said}. {scores}; {one.model} − {other.model} = {lead:+.4f} ± {error:.4f} (standard error, unpaired)."
    )


def cells_line(cells: Cells) -> Iterator[str]:
    why = f" ({cells.why})" if cells.why else ""
    told = [
        (cells.n_failed, f"failed{why}"),
        (cells.n_stopped, "were stopped"),
        (cells.n_without_score, "have no score"),
        (cells.n_not_converged, "did not converge"),
        (cells.n_without_all_classes, "lack classes in their training rows"),
    ]
    said = "; ".join(f"{n:,} {what}" for n, what in told if n)
    if said:
        yield f"Of {cells.n:,} cells: {said}."
