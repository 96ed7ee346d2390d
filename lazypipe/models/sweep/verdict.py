"""What a sweep says, from its curves alone: would more rows, more regularization or a bigger model help?

Error is 1 - accuracy, or 1 - R² in a regression; scores are means over seeds. Noise: the binomial standard error of
the validation rows (``error * sqrt(2 / n)`` in a regression, as of normal residuals), and the seeds' own.

More rows: the errors of each size's best strength are fitted by ``error(n) = a + b n^-c``, a, b >= 0, 0 < c <= 1
(Cortes, Jackel, Solla, Vapnik & Denker, "Learning curves: asymptotic values and rate of convergence", NIPS 1993; it
holds for deep networks too, but for the smallest sizes: Hestness et al., arXiv 1712.00409, 2017). Intervals are of
the profile likelihood.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from lazypipe.models.sweep.result import RegularizationSweep

LEVEL = 0.95  # of every interval, and of what is told apart from noise
CHI2 = float(chi2.ppf(LEVEL, 1))
NORMAL = math.sqrt(CHI2)
EXPONENTS = np.geomspace(0.02, 1, 1000)
MISFIT = 0.01  # p below which the smallest size is taken to lie before the power law
POOR = 3.0  # chi² a degree of freedom
FEWEST_SIZES = 4  # one more than the power law has parameters
MOSTLY, HARDLY = 0.5, 0.2  # shares of the validation error, for what training does not show and infinite rows leave
FLAT = 0.8  # share of the validation error: if infinite rows leave that much, more rows do not help
BIGGER = "mlp"  # models of that prefix are bigger than the others


@dataclass(frozen=True)
class BestCell:
    """The cell of highest validation score, as a mean over its seeds."""

    model: str
    C: float
    size: int
    n_seeds: int
    validation: float
    standard_error: float  # of the validation rows
    seed_sd: float | None
    train: float


@dataclass(frozen=True)
class Regularization:
    """How far apart the strengths of the best model are at each size, and which of them is best."""

    sizes: tuple[int, ...]
    n_strengths: tuple[int, ...]  # that have a score
    spread: tuple[float, ...]  # of the validation score: best less worst strength
    noise: tuple[float, ...]  # half the 95% interval of a score
    best: tuple[float, ...]  # strengths
    irrelevant_from: int | None  # the size from which on the spread is less than the noise; None: it matters to the end
    edges: tuple[str | None, str | None]  # "smallest" or "largest" of the grid: the best C at the first and last size
    extend: tuple[bool, bool]  # ... and it leads its neighbour by more than the noise
    over_weakest: float  # at the largest size, the lead of the best over the largest C


@dataclass(frozen=True)
class MoreData:
    """The power law of the best model, and what it expects of twice the rows and of any number of them."""

    a: float
    b: float
    c: float
    sizes: tuple[int, ...]  # that were fitted
    misfit: float  # chi² a degree of freedom; above 1 it widens the intervals
    size: int  # twice the largest
    expected: float  # score there
    interval: tuple[float, float]
    gain: float  # over the law at the largest
    gain_interval: tuple[float, float]
    noise: float  # half the 95% interval of a score, of the validation rows
    limit_interval: tuple[float, float]  # of the error ``a``

    @property
    def helps(self) -> bool | None:
        """Whether twice the rows would; no: by less than a score's noise at most; None: it is not certain."""
        low, high = self.gain_interval
        return False if high <= self.noise else True if low > 0 else None


@dataclass(frozen=True)
class Limit:
    """What holds the best model back at its largest size.

    ``kind`` is "data", "regularization", "model", "both" (model and data), "nothing" or "unknown".
    """

    kind: str
    size: int
    C: float
    train: float
    validation: float


@dataclass(frozen=True)
class ModelScore:
    """A model at the largest size at which all models have a score (else its own), and its best strength there."""

    model: str
    size: int
    C: float
    validation: float
    standard_error: float  # validation rows and seeds


@dataclass(frozen=True)
class Cells:
    """What there is to mistrust."""

    n: int
    n_failed: int
    n_stopped: int
    n_without_score: int  # of those that are done
    n_not_converged: int
    n_without_all_classes: int
    why: str  # the commonest note of the failed


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
        return [*_lines(self)]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON takes them; None for what is not finite."""
        return dict(_plain(asdict(self)))


def verdict_of(sweep: RegularizationSweep) -> Verdict:
    """What the cells of a sweep say together."""
    curves = _Curves(sweep)
    best = curves.best()
    found: dict[str, Any] = dict.fromkeys(
        ("rows_per_feature", "rows_per_weight", "regularization", "more_data", "limit")
    )
    n_sizes = 0
    if best is not None:
        curve = _Curve(curves, best.model)
        n_sizes, largest = len(curve.sizes), int(curve.sizes[-1])
        more = _more_data(curve)
        fitted = sweep.best
        if fitted is not None and fitted.coef is not None and fitted.cell["model"] == best.model:
            n_weights = fitted.coef.size + (0 if fitted.intercept is None else fitted.intercept.size)
            found["rows_per_weight"] = largest / n_weights
        found |= {"rows_per_feature": largest / sweep.n_features, "regularization": _regularization(curve)}
        found |= {"more_data": more, "limit": _limit(curve, more)}
    return Verdict(
        sweep.score, sweep.n_features, sweep.n_validation, n_sizes, best=best, models=_models(curves),
        cells=_cells(sweep), **found,
    )  # fmt: skip


class _Curves:
    """The scores of a sweep as arrays (models, strengths, sizes, seeds), NaN where there is none."""

    def __init__(self, sweep: RegularizationSweep) -> None:
        self.sweep = sweep
        self.train, self.validation = (self._array(column) for column in sweep.score_columns)

    def _array(self, column: str) -> np.ndarray:
        sweep = self.sweep
        axes: dict[str, tuple[Any, ...]] = {
            "model": sweep.models, "C": sweep.strengths, "size": sweep.sizes, "seed": sweep.seeds
        }  # fmt: skip
        at = []
        for name, values in axes.items():
            place = {value: i for i, value in enumerate(values)}
            at.append([place[value] for value in sweep.table[name].to_pylist()])
        scores = np.array(sweep.table[column].to_pylist(), np.float64)  # a null becomes NaN
        found = np.full([len(values) for values in axes.values()], np.nan)
        found[tuple(at)] = np.where(np.isfinite(scores), scores, np.nan)
        return found

    def best(self) -> BestCell | None:
        means = _mean(self.validation)
        if np.isnan(means).all():
            return None
        sizes, strengths = self.sweep.sizes, self.sweep.strengths
        highest = [tuple(at) for at in np.argwhere(means == np.nanmax(means)).tolist()]
        # of equal ones that of fewest rows, then the most regularized
        model, strength, size = at = min(highest, key=lambda at: (sizes[at[2]], strengths[at[1]]))
        seeds = self.validation[at][np.isfinite(self.validation[at])]
        return BestCell(
            self.sweep.models[model], float(strengths[strength]), int(sizes[size]), len(seeds),
            float(means[at]), float(self.standard_error(means[at])),
            float(seeds.std(ddof=1)) if len(seeds) > 1 else None, float(_mean(self.train[at])),
        )  # fmt: skip

    def standard_error(self, score: Any) -> np.ndarray:
        """Of the validation rows; binomial with two rows more of either kind, since no score is certain."""
        n = max(1, self.sweep.n_validation)
        if self.sweep.classes is None:
            return np.maximum(1 - np.asarray(score), 1e-9) * math.sqrt(2 / n)
        share = (np.clip(score, 0, 1) * n + 2) / (n + 4)  # Agresti & Coull (1998)
        return np.sqrt(share * (1 - share) / (n + 4))


class _Curve:
    """One model at the sizes that have a score: ``means`` (strengths, sizes), and the best strength at each."""

    def __init__(self, curves: _Curves, name: str) -> None:
        sweep, model = curves.sweep, curves.sweep.models.index(name)
        self.curves, self.model = curves, name
        order = np.argsort(sweep.sizes)
        order = order[np.isfinite(curves.validation[model]).any(axis=(0, 2))[order]]
        every = np.arange(len(order))
        self.sizes = np.array(sweep.sizes, np.int64)[order]
        self.seeds = curves.validation[model][:, order]
        self.means = _mean(self.seeds)
        self.at = np.argmax(np.where(np.isnan(self.means), -np.inf, self.means), axis=0)
        self.strengths = np.array(sweep.strengths, np.float64)[self.at]
        self.best = self.seeds[self.at, every]  # (sizes, seeds)
        self.scores = self.means[self.at, every]
        self.train = _mean(curves.train[model][:, order])[self.at, every]
        self.standard_error = curves.standard_error(self.scores)

    def noise(self, size: int, other: int) -> float:
        """Half the 95% interval of the best score at a size; of the seeds, what its lead over another strength has.

        One score's noise, not that of a difference: strengths have their validation rows in common, and so differ
        by less than independent scores would.
        """
        return NORMAL * math.hypot(self.standard_error[size], _seed_error(self.best[size] - self.seeds[other, size]))

    def score_at(self, size: int) -> ModelScore:
        i = int(np.flatnonzero(self.sizes == size)[0])
        se = math.hypot(self.standard_error[i], _seed_error(self.best[i]))
        return ModelScore(self.model, size, float(self.strengths[i]), float(self.scores[i]), se)


def _mean(scores: np.ndarray) -> np.ndarray:
    """Over seeds (the last axis), of those that have a score."""
    n = np.isfinite(scores).sum(axis=-1)
    return np.where(n > 0, np.nansum(scores, axis=-1) / np.maximum(n, 1), np.nan)


def _seed_error(scores: np.ndarray) -> float:
    """The standard error of a mean over seeds, as seeds tell it; 0 where there is only one."""
    scores = scores[np.isfinite(scores)]
    return float(scores.std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def _models(curves: _Curves) -> tuple[ModelScore, ...]:
    scored = [curve for curve in (_Curve(curves, model) for model in curves.sweep.models) if len(curve.sizes)]
    common = set.intersection(*(set(curve.sizes.tolist()) for curve in scored)) if scored else set()
    scores = (curve.score_at(max(common or curve.sizes.tolist())) for curve in scored)
    return tuple(sorted(scores, key=lambda score: -score.validation))


def _regularization(curve: _Curve) -> Regularization | None:
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


def _edge(curve: _Curve, size: int) -> tuple[str | None, bool]:
    """On which edge of the grid the best strength lies, and whether it leads its neighbour by more than the noise."""
    order = np.argsort(curve.curves.sweep.strengths)
    order = order[np.isfinite(curve.means[order, size])]
    place = int(np.flatnonzero(order == curve.at[size])[0])
    if len(order) < 2 or 0 < place < len(order) - 1:
        return None, False
    neighbour = int(order[1 if place == 0 else place - 1])
    lead = curve.scores[size] - curve.means[neighbour, size]
    return "largest" if place else "smallest", bool(lead > curve.noise(size, neighbour))


def _limit(curve: _Curve, more: MoreData | None) -> Limit:
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


def _more_data(curve: _Curve) -> MoreData | None:
    """The fit of a model's curve, from the size on from which a power law holds.

    A size's mean has the variance of its seeds, but at least that of the validation rows over the number of seeds.
    All cells are scored on the same rows: what these have left is added to the intervals, which are never narrower
    than that of one score.
    """
    if len(curve.sizes) < FEWEST_SIZES:
        return None
    n = np.isfinite(curve.best).sum(axis=1)
    variances = np.maximum(curve.standard_error**2 / n, [_seed_error(seeds) ** 2 for seeds in curve.best])
    law = _PowerLaw(curve.sizes, 1 - curve.scores, variances)
    while len(law.sizes) > FEWEST_SIZES and chi2.sf(law.chi2, law.freedom) < MISFIT:
        law = _PowerLaw(law.sizes[1:], law.errors[1:], law.variances[1:])
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


class _PowerLaw:
    """``error(n) = a + b n^-c`` by weighted least squares: for each ``c`` of a grid, ``a, b >= 0`` in closed form."""

    def __init__(self, sizes: np.ndarray, errors: np.ndarray, variances: np.ndarray) -> None:
        self.sizes, self.errors, self.variances, self.freedom = sizes, errors, variances, len(sizes) - 3
        self._largest = float(sizes[-1])  # the unit of n, for the sake of rounding
        w = self._weights = 1 / variances
        x = self._x = (sizes / self._largest) ** -EXPONENTS[:, None]  # (exponents, sizes)
        centred = x - ((x @ w) / w.sum())[:, None]
        b = np.maximum((centred * errors) @ w / (centred**2 @ w), 0)
        a = (errors - b[:, None] * x) @ w / w.sum()
        b = np.where(a < 0, (x * errors) @ w / (x**2 @ w), b)
        a = np.maximum(a, 0)
        misfits = (errors - a[:, None] - b[:, None] * x) ** 2 @ w
        best = int(np.argmin(misfits))
        self.chi2, self.a, self._b, self.c = (float(v[best]) for v in (misfits, a, b, EXPONENTS))
        self.b = self._b * self._largest**self.c

    def error(self, n: float) -> float:
        return self.a + self._b * (n / self._largest) ** -self.c

    def error_interval(self, n: float) -> tuple[float, float]:
        """Of the error at ``n``."""
        z = (n / self._largest) ** -EXPONENTS
        x, w = self._x - z[:, None], self._weights

        def misfit(error: float) -> float:  # of error + b (x - z)
            away = self.errors - error
            most = np.divide(error, z, out=np.full(len(z), np.inf), where=z > 0)  # above it a < 0
            b = np.clip((x * away) @ w / (x**2 @ w), 0, most)
            return float(((away - b[:, None] * x) ** 2 @ w).min())

        return self._profile(misfit, self.error(n))

    def gain_interval(self, times: float, shared: float) -> tuple[float, float]:
        """Of what so many times the largest size takes off the error, all sizes being off by as much as ``shared``."""
        w = self._weights

        def misfit(gain: float) -> float:
            away = self.errors - (gain / (1 - times**-EXPONENTS))[:, None] * self._x
            a = np.maximum(away @ w / w.sum(), -shared)
            return float(((away - a[:, None]) ** 2 @ w).min())

        return self._profile(misfit, self._b * (1 - times**-self.c))

    def _profile(self, misfit: Callable[[float], float], middle: float) -> tuple[float, float]:
        """All that fits as well as chi² allows, the other parameters free; scaled where the law itself fits badly."""
        step, allowed = math.sqrt(float(self.variances.min())), self.chi2 + CHI2 * max(1.0, self.chi2 / self.freedom)

        def excess(value: float) -> float:
            return misfit(value) - allowed

        low, high = max(0.0, middle - step), middle + step
        while low > 0 and excess(low) < 0:
            low = max(0.0, middle - 2 * (middle - low))
        while excess(high) < 0:
            high = middle + 2 * (high - middle)
        if low < middle and excess(low) > 0:
            low = brentq(excess, low, middle, rtol=1e-6)
        return float(low), float(brentq(excess, middle, high, rtol=1e-6))


def _cells(sweep: RegularizationSweep) -> Cells:
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


def _lines(v: Verdict) -> Iterator[str]:
    if v.best is None:
        yield "No cell has a score: nothing can be told."
    else:
        yield _best_line(v, v.best)
        yield _rows_line(v)
        yield _regularization_line(v.regularization)
        yield _more_data_line(v)
        if v.limit is not None:
            yield _limit_line(v.limit, v.more_data)
        if len(v.models) > 1:
            yield _models_line(v.models)
    yield from _cells_line(v.cells)


def _best_line(v: Verdict, best: BestCell) -> str:
    seeds = f"{best.n_seeds} seeds, SD {best.seed_sd:.4f}" if best.seed_sd is not None else "one seed"
    return (
        f"Best: {best.model}, C = {best.C:g}, {best.size:,} rows: validation {v.score} {best.validation:.4f} ± "
        f"{best.standard_error:.4f} (standard error of {v.n_validation:,} rows; {seeds}), training {best.train:.4f}."
    )


def _rows_line(v: Verdict) -> str:
    weights = "" if v.rows_per_weight is None else f", {v.rows_per_weight:.3g} a weight"
    return f"Rows: {v.rows_per_feature:.3g} a feature at the largest size ({v.n_features:,} features){weights}."


def _regularization_line(found: Regularization | None) -> str:
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


def _more_data_line(v: Verdict) -> str:
    more = v.more_data
    if more is None:
        return f"More rows: cannot be told from {v.n_sizes} size{'s' * (v.n_sizes != 1)}; {FEWEST_SIZES} are needed."
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


LIMITS = {
    "nothing": "none that these validation rows can show",
    "unknown": "cannot be told without a training score",
    "model": "the model, or what the columns cannot tell; more rows would add little",
    "regularization": "overfitting that more rows do not mend; more regularization, or another model",
    "data": "the data; more rows or more regularization",
    "both": "both the data and the model",
}


def _limit_line(limit: Limit, more: MoreData | None) -> str:
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


def _models_line(models: tuple[ModelScore, ...]) -> str:
    """The bigger models' best against the others' best; without the two kinds, the first against the second."""
    kinds = [[m for m in models if m.model.startswith(BIGGER) == bigger] for bigger in (True, False)]
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


def _cells_line(cells: Cells) -> Iterator[str]:
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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
