"""What each part of a verdict is computed from: the curve of the best model, those of all, or the table."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from scipy.stats import chi2

from lazypipe.models.sweep.result import RegularizationSweep
from lazypipe.models.sweep.verdict.curves import Curve, Curves
from lazypipe.models.sweep.verdict.noise import NORMAL, seed_error
from lazypipe.models.sweep.verdict.parts import Cells, Limit, ModelScore, MoreData, Regularization
from lazypipe.models.sweep.verdict.power_law import FEWEST_SIZES, PowerLaw

MISFIT = 0.01  # p below which the smallest size is taken to lie before the power law
MOSTLY, HARDLY = 0.5, 0.2  # shares of the validation error, for what training does not show and infinite rows leave
FLAT = 0.8  # share of the validation error: if infinite rows leave that much, more rows do not help


def regularization(curve: Curve) -> Regularization | None:
    if np.isfinite(curve.means).sum(axis=0).max() < 2:
        return None
    every = range(len(curve.sizes))
    worst = np.argmin(np.where(np.isnan(curve.means), np.inf, curve.means), axis=0)
    spread = curve.scores - curve.means[worst, every]
    noise = np.array([curve.noise(i, worst[i]) for i in every])
    matters = np.flatnonzero(spread >= noise)
    first = matters[-1] + 1 if len(matters) else 0
    (first_edge, extend_first), (last_edge, extend_last) = _edge(curve, 0), _edge(curve, len(every) - 1)
    return Regularization(
        sizes=tuple(curve.sizes.tolist()), n_strengths=tuple(np.isfinite(curve.means).sum(axis=0).tolist()),
        spread=tuple(spread.tolist()), noise=tuple(noise.tolist()), best=tuple(curve.strengths.tolist()),
        irrelevant_from=int(curve.sizes[first]) if first < len(every) else None,
        edges=(first_edge, last_edge), extend=(extend_first, extend_last),
        over_weakest=float(curve.scores[-1] - curve.means[np.argmax(curve.curves.sweep.strengths), -1]),
    )  # fmt: skip


def _edge(curve: Curve, size: int) -> tuple[str | None, bool]:
    """On which edge of the grid the best strength lies, and whether it leads its neighbour by more than the noise."""
    order = np.argsort(curve.curves.sweep.strengths)
    order = order[np.isfinite(curve.means[order, size])]
    place = int(np.flatnonzero(order == curve.at[size])[0])
    if len(order) < 2 or 0 < place < len(order) - 1:
        return None, False
    neighbour = int(order[1 if place == 0 else place - 1])
    lead = curve.scores[size] - curve.means[neighbour, size]
    return "largest" if place else "smallest", bool(lead > curve.noise(size, neighbour))


def more_data(curve: Curve) -> MoreData | None:
    """The fit of a model's curve, from the size on from which a power law holds.

    A size's mean has the variance of its seeds, but at least that of the validation rows over the number of seeds.
    All cells are scored on the same rows: what these have left is added to the intervals, which are never narrower
    than that of one score.
    """
    if len(curve.sizes) < FEWEST_SIZES:
        return None
    n = np.isfinite(curve.best).sum(axis=1)
    variances = np.maximum(curve.standard_error**2 / n, [seed_error(seeds) ** 2 for seeds in curve.best])
    law = PowerLaw(curve.sizes, 1 - curve.scores, variances)
    while len(law.sizes) > FEWEST_SIZES and chi2.sf(law.chi2, law.freedom) < MISFIT:
        law = PowerLaw(law.sizes[1:], law.errors[1:], law.variances[1:])
    size, ends = 2 * int(curve.sizes[-1]), []
    for at in (size, math.inf):
        middle, rows = law.error(at), NORMAL * float(curve.curves.standard_error(1 - law.error(at)))
        low, high = (
            max(math.hypot(end - middle, rows * math.sqrt(1 - 1 / n[-1])), rows) for end in law.error_interval(at)
        )
        ends.append((max(0.0, middle - low), middle + high))
    noise = NORMAL * float(curve.standard_error[-1])
    return MoreData(
        law.a, law.b, law.c, tuple(law.sizes.tolist()), law.chi2 / law.freedom, size,
        expected=1 - law.error(size), interval=(1 - ends[0][1], 1 - ends[0][0]),
        gain=law.error(size / 2) - law.error(size), gain_interval=law.gain_interval(2, noise),
        noise=noise, limit_interval=ends[1],
    )  # fmt: skip


def limit(curve: Curve, more: MoreData | None) -> Limit:
    score, train, noise = float(curve.scores[-1]), float(curve.train[-1]), NORMAL * float(curve.standard_error[-1])
    error, gap = 1 - score, train - score
    if error <= noise:
        kind = "nothing"
    elif math.isnan(gap):
        kind = "unknown"
    elif gap <= max(noise, HARDLY * error) and not (more is not None and more.helps):
        kind = "model"
    elif more is not None and more.a >= FLAT * error and not more.helps:
        kind = "regularization" if gap >= MOSTLY * error else "model"
    else:
        kind = "data" if gap >= MOSTLY * error and (more is None or more.a <= MOSTLY * error) else "both"
    return Limit(kind, int(curve.sizes[-1]), float(curve.strengths[-1]), train, score)


def models(curves: Curves) -> tuple[ModelScore, ...]:
    scored = [curve for curve in (Curve(curves, model) for model in curves.sweep.models) if len(curve.sizes)]
    common = set.intersection(*(set(curve.sizes.tolist()) for curve in scored)) if scored else set()
    scores = (curve.score_at(max(common or curve.sizes.tolist())) for curve in scored)
    return tuple(sorted(scores, key=lambda score: -score.validation))


def cells(sweep: RegularizationSweep) -> Cells:
    score = sweep.score_columns[1]
    rows = sweep.table.select(["status", "converged", "n_classes", "note", score]).to_pylist()
    failed = Counter(row["note"] for row in rows if row["status"] == "failed")
    done = [row for row in rows if row["status"] == "done"]
    n_classes = 0 if sweep.classes is None else len(sweep.classes)
    return Cells(
        len(rows), failed.total(), sum(row["status"] == "stopped" for row in rows),
        sum(row[score] is None or not math.isfinite(row[score]) for row in done),
        sum(row["converged"] is False for row in done),
        sum(row["n_classes"] is not None and row["n_classes"] < n_classes for row in done),
        failed.most_common(1)[0][0] if failed else "",
    )  # fmt: skip
