"""Pictures of networks in training and of what they reach: curves over epochs, over code sizes, over labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, WIDTH, blank, with_axes
from lazypipe.figures.labels import name_of, size_axis, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = 6  # rows of panels
MEASURES = 3  # panels of a stage
DOTTED = 40  # epochs that have a dot each, at most
SPANNING = 10.0  # a ratio from which values lie on a logarithmic axis
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
MARKERS = "osD^vP"
KINDS: dict[str, dict[str, Any]] = {
    "train": {"color": BLUE, "label": "training"},
    "validation": {"color": VERMILION, "label": "validation", "linestyle": "--"},
}
ACCURACY = "accuracy (share of rows)"
UNITS = {"accuracy": ACCURACY, "loss": "loss (mean over rows)", "pseudo_likelihood": "pseudo-likelihood\n(nats)"}


def training_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and whatever else was measured, over epochs: training and validation, a row of panels a stage.

    ``history`` has a dict an epoch: ``stage``, ``epoch``, and measures such as ``train_loss`` and
    ``validation_loss``; what is missing or no number is a gap. A star marks ``best_epoch`` of the last stage; without
    it, in each stage, the epoch of highest validation accuracy, else of lowest validation loss. The last 6 stages are
    drawn, and 3 measures each. Values that span a factor of 10 lie on a logarithmic axis. ConfigError where there is
    no epoch.
    """
    from matplotlib.lines import Line2D

    stages = _by_stage(history)
    if not stages:
        raise ConfigError("training_curves: the history has no epoch. Give history_ of a fitted network.")
    drawn = list(stages.items())[-STAGES:]
    measures = {name: _measures(epochs) for name, epochs in drawn}
    n_columns = max(1, *(len(of_stage) for of_stage in measures.values()))
    figure = blank(WIDTH, 3.6 if len(drawn) == 1 else min(2.1 * len(drawn) + 0.8, 14))
    figure.set_layout_engine("constrained", wspace=0.03)
    grid = figure.subplots(len(drawn), n_columns, squeeze=False)
    kinds, marked = set(), set()
    for i, (name, epochs) in enumerate(drawn):
        at = np.array([epoch["epoch"] for epoch in epochs])
        best = best_epoch if best_epoch is not None and i == len(drawn) - 1 else None
        best = _best_of(at, epochs) if best_epoch is None else best
        grid[i][0].set_title(name_of(name), fontsize="medium", fontweight="bold", loc="left")
        for axes, measure in zip(grid[i], measures[name] or ["loss"], strict=False):
            kinds |= _draw(axes, at, epochs, measure, best)
            axes.set_ylabel(UNITS.get(measure, measure.replace("_", " ") + "\n(mean over rows)"), fontsize="small")
            axes.set_xlabel("epoch" if i == len(drawn) - 1 else "", fontsize="small")
            marked |= {best} - {None}
        for axes in grid[i][max(1, len(measures[name])) :]:
            axes.remove()
    handles: list[Any] = [Line2D([], [], **KINDS[kind]) for kind in KINDS if kind in kinds]
    if marked:
        text = f"best epoch: {marked.pop():,}" if len(marked) == 1 else "best epoch"
        handles.append(Line2D([], [], linestyle="", marker="*", markersize=10, color="black", label=text))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    left_out = len(stages) - len(drawn)
    note = f"the last {len(drawn)} of {len(stages)} stages" if left_out else ""
    figure.suptitle(titled("Training", [note]), fontsize="medium")
    return figure


def code_errors(table: Sequence[Mapping[str, Any]], unit: str = "mean squared error of an entry") -> Figure:
    """Error of reconstructions over the number of components of the code, a line a method.

    ``table`` has a dict a number of components: ``n_components``, and an error by the name of each method, such as
    ``{"n_components": 30, "autoencoder": 0.004, "PCA": 0.011}``. Of several dicts of one number (seeds) the mean is
    drawn, and a band from the lowest to the highest.
    """
    return _over(table, "n_components", "components of the code", f"reconstruction error\n({unit})", "Reconstruction")


def accuracy_by_labels(table: Sequence[Mapping[str, Any]], rows: str = "test rows") -> Figure:
    """Accuracy over the number of labels that were learnt from, a line a method: mean over seeds, and their range.

    ``table`` has a dict a number of labels and seed: ``n_labels``, and an accuracy by the name of each method, such as
    ``{"n_labels": 1000, "seed": 0, "pre-trained": 0.95, "from random weights": 0.91}``.
    """
    return _over(
        table, "n_labels", "labelled training rows", f"accuracy (share of {rows})", "Accuracy by number of labels"
    )


def _by_stage(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for epoch in history:
        stages.setdefault(str(epoch.get("stage") or ""), []).append(epoch)
    return stages


def _measures(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured on training or validation rows, the loss first."""
    found: dict[str, None] = {}
    for name in (name for epoch in epochs for name in epoch):
        kind, _, measure = name.partition("_")
        if kind in KINDS and measure:
            found[measure] = None
    return sorted(found, key=("loss", "accuracy", *found).index)[:MEASURES]


def _values(epochs: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = np.array([math.nan if epoch.get(name) is None else epoch[name] for epoch in epochs], np.float64)
    values[~np.isfinite(values)] = math.nan
    return values


def _best_of(at: np.ndarray, epochs: Sequence[Mapping[str, Any]]) -> int | None:
    for values in (_values(epochs, "validation_accuracy"), -_values(epochs, "validation_loss")):
        if not np.isnan(values).all():
            return int(at[np.nanargmax(values)])
    return None


def _draw(
    axes: Any, at: np.ndarray, epochs: Sequence[Mapping[str, Any]], measure: str, best: int | None
) -> set[str]:  # fmt: skip
    """A panel; the kinds of rows that it has lines of."""
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
    axes.tick_params(labelsize="small")
    kinds, seen = set(), []
    for kind, style in KINDS.items():
        values = _values(epochs, f"{kind}_{measure}")
        if np.isnan(values).all():
            continue
        marker = "o" if len(at) <= DOTTED else ""
        axes.plot(at, values, linewidth=1.3, marker=marker, markersize=3, **style)
        kinds.add(kind)
        seen.append(values[np.isfinite(values)])
        if best in at and np.isfinite(values[at == best]).any():
            axes.plot(
                best, values[at == best][0], "*", color=style["color"], markersize=12, markeredgecolor="black",
                markeredgewidth=0.7, zorder=5, label="best epoch",
            )  # fmt: skip
    margin = max(0.5, 0.02 * float(at.max() - at.min()))
    axes.set_xlim(at.min() - margin, at.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if seen:
        _spread(axes, np.concatenate(seen))
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=GREY)
    return kinds


def _spread(axes: Any, values: np.ndarray) -> None:
    """A logarithmic axis for values above 0 that span more than could be told apart on a linear one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() / values.min() < SPANNING:
        return
    axes.set_yscale("log")
    decades = math.log10(values.max() / values.min())
    if decades < 5:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades > 1.8 else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _over(table: Sequence[Mapping[str, Any]], by: str, across: str, up: str, title: str) -> Figure:
    """Lines over the logarithm of a count: a mean of the rows of each count, and a band between their extremes."""
    names = list(dict.fromkeys(name for row in table for name in row if name not in (by, "seed")))
    if not names or not all(row.get(by) for row in table):
        raise ConfigError(f"table: needs rows with {by} and a value by the name of each method; has {list(table)[:1]}.")
    if len(names) > len(SERIES):
        raise ConfigError(f"table: has {len(names)} methods; at most {len(SERIES)} can be told apart.")
    counts = np.array(sorted({row[by] for row in table}))
    figure, axes = with_axes()
    axes.spines["right"].set_visible(False)
    repeats, drawn = {0}, []
    for name, colour, marker in zip(names, SERIES, MARKERS, strict=False):
        of_counts = [_values([row for row in table if row[by] == count], name) for count in counts]
        of_counts = [values[np.isfinite(values)] for values in of_counts]
        repeats |= set(map(len, of_counts))
        has = np.array([len(values) > 0 for values in of_counts])
        if not has.any():
            continue
        low, mean, high = (
            np.array([function(values) for values in of_counts if len(values)])
            for function in (np.min, np.mean, np.max)
        )
        if (high > low).any():
            axes.fill_between(counts[has], low, high, color=colour, alpha=0.18, linewidth=0)
            axes.vlines(counts[has], low, high, color=colour, linewidth=1.2)
        axes.plot(counts[has], mean, color=colour, marker=marker, markersize=5, linewidth=1.4, label=name_of(name, 40))
        drawn.append(np.concatenate((low, high)))
    size_axis(axes, counts, 0.8 * WIDTH)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    if drawn:
        _spread(axes, np.concatenate(drawn))
    most, up_to = max(repeats), "up to " if len(repeats - {0}) > 1 else ""
    note = f"mean of {up_to}{most} seeds, band: lowest to highest" if most > 1 else ""
    figure.suptitle(titled(title, [note]), fontsize="medium")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
