"""Pictures of a sweep over sizes and strengths of regularization: learning curves, heat map, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import GREY, NO_VALUE, VERMILION, WIDTH, blank, hatch, layout
from lazypipe.figures.confusions import confusion_matrix
from lazypipe.figures.labels import CHARACTER, SMALLEST, apart, name_of, short, size_axis, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 8  # strengths that are drawn
SEQUENTIAL = "viridis"  # told apart by colour-blind readers, and ordered in lightness
LIGHTEST = 0.88  # of it that can be read as a line on white
WORST_R2 = -0.2  # scores below it would leave no room for the others
WRITTEN = 100  # cells that have their value written, at most
HATCHED = 1000
STYLES: dict[str, dict[str, Any]] = {
    "training": {"linestyle": "-", "marker": "."},
    "validation": {"linestyle": "--", "marker": "o", "markersize": 3.5, "markerfacecolor": "white"},
}
UNITS = {"accuracy": "accuracy (share of rows)", "R²": "R² (share of the variance)"}


def learning_curves(sweep: Any) -> Figure:
    """Training and validation score over the number of training rows: a panel a model, a colour a strength.

    Lines are means over seeds, bands go from the lowest to the highest. Of more than 8 strengths 8 are drawn, the best
    among them; the title says so, and how many cells failed.
    """
    from matplotlib.lines import Line2D

    scores = [sweep.cube(which) for which in ("train", "validation")]
    means = [sweep.means(which) for which in ("train", "validation")]
    best = sweep.best_place()
    drawn = _drawn(sweep.strengths, best)
    colours = dict(zip(drawn, _line_colours(len(drawn)), strict=True))
    order = np.argsort(sweep.sizes)
    sizes = np.array(sweep.sizes)[order]
    n_columns, n_rows = layout(len(sweep.models))
    figure, panels = _panels(sweep.models, n_columns, 4.2 if n_rows == 1 else min(2.3 * n_rows + 1.2, 14))
    for model, axes in enumerate(panels):
        for k, colour in colours.items():
            for values, mean, style in zip(scores, means, STYLES.values(), strict=True):
                if len(sweep.seeds) > 1:
                    low, high = (end.reduce(values[model, k, order], axis=1) for end in (np.fmin, np.fmax))
                    axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(sizes, mean[model, k, order], color=colour, linewidth=1.2, **style)
        size_axis(axes, sizes, 0.7 * WIDTH / n_columns)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
        if np.isnan(means[1][model]).all():
            axes.text(0.5, 0.5, "no cell has a score", transform=axes.transAxes, ha="center", va="center", color=GREY)
    deep = 1 if len(drawn) == 1 else 2 if len(drawn) <= 4 else 3  # entries of a column of the legend
    handles = [Line2D([], [], color=colour, label=f"C = {sweep.strengths[k]:.3g}") for k, colour in colours.items()]
    handles += [Line2D([], [], linestyle="", label=" ")] * (-len(drawn) % deep)
    handles += [Line2D([], [], color="black", label=label, **style) for label, style in STYLES.items()]
    if best is not None:
        model, _, size = best
        handles += panels[model].plot(
            sweep.sizes[size], means[1][best], "*", color=VERMILION, markersize=13, markeredgecolor="white", zorder=5,
            label=f"best: {means[1][best]:.3f}",
        )  # fmt: skip
    notes = [_of_seeds(sweep, band=True)]
    if len(drawn) < len(sweep.strengths):
        notes.append(f"{len(drawn)} of {len(sweep.strengths):,} strengths C drawn")
    notes += [_failed(sweep), _cut(panels[0], sweep, np.concatenate(means)[:, list(drawn)])]
    figure.suptitle(titled("Learning curves", notes), fontsize="medium")
    figure.supylabel(UNITS[sweep.score], fontsize="medium")
    n_wide = -(-len(handles) // deep)
    figure.legend(handles=handles, loc="outside lower center", ncols=n_wide, frameon=False, fontsize="small")
    return figure


def heat_map(sweep: Any) -> Figure:
    """Validation score (a mean over seeds) of each size and strength, a panel a model; the best cell is ringed."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    means, best = sweep.means(), sweep.best_place()
    seen, highest = means[np.isfinite(means)], math.nan if best is None else means[best]
    across, down = np.argsort(sweep.sizes), np.argsort(sweep.strengths)  # the least regularization on top
    means = means[:, down][:, :, across]
    n_models, n_down, n_across = means.shape
    n_columns, n_rows = layout(n_models, at_most=max(1, 18 // n_across))
    each = min(3.2, max(1.3, 0.32 * n_down))
    figure, panels = _panels(sweep.models, n_columns, min(n_rows * (each + 0.4) + 1.3, 14))
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    below = sweep.score == "R²" and low < WORST_R2 < high
    low = WORST_R2 if below else low
    span = max(high - low, 0.01)
    colours = colormaps[SEQUENTIAL].with_extremes(bad=NO_VALUE)
    room = 0.72 * WIDTH / n_columns  # inches that the cells of a panel have
    font = min(8.0, 72 * room / n_across / (6 * CHARACTER))
    written = means.size <= WRITTEN and font >= SMALLEST
    for axes, values in zip(panels, means, strict=True):
        image = axes.imshow(values, aspect="auto", origin="lower", cmap=colours, vmin=low, vmax=low + span)
        if values.size <= HATCHED:
            hatch(axes, np.isnan(values))
        for y, x in np.argwhere(np.isfinite(values)) if written else ():
            colour = "white" if values[y, x] < low + 0.55 * span else "black"
            axes.text(
                x, y, f"{values[y, x]:.3f}".replace("-", "−"), ha="center", va="center", fontsize=font, color=colour
            )
        sizes = np.array(sweep.sizes)[across]
        ticks = apart(np.arange(n_across), sizes, room)
        axes.set_xticks(ticks, [short(size) for size in sizes[ticks]])
        every = math.ceil(n_down / max(1, int(each / 0.17)))
        axes.set_yticks(range(0, n_down, every), [f"{sweep.strengths[k]:.3g}" for k in down[::every]])
        axes.spines[:].set_visible(False)
    handles: list[Any] = []
    if np.isnan(means).any():
        handles.append(Patch(facecolor=NO_VALUE, edgecolor=GREY, hatch="////", linewidth=0, label="no score"))
    if best is not None:
        model, strength, size = best
        x, y = int(np.flatnonzero(across == size)[0]), int(np.flatnonzero(down == strength)[0])
        ring = Line2D(
            [x], [y], linestyle="", marker="s", markersize=9, fillstyle="none", color=VERMILION, markeredgewidth=2,
            clip_on=False, label=f"best: {highest:.3f}",
        )  # fmt: skip
        handles.append(ring)
        if min(room / n_across, each / n_down) > 0.15:
            panels[model].add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=VERMILION, linewidth=2, clip_on=False, zorder=3
                )
            )
        else:
            panels[model].add_line(ring)
    bar = figure.colorbar(image, ax=panels, extend="min" if below else "neither", pad=0.02)
    bar.set_label(f"validation {UNITS[sweep.score]}".replace(" (", "\n("))
    bar.outline.set_visible(False)
    figure.suptitle(titled("Validation score", [_of_seeds(sweep), _failed(sweep)]), fontsize="medium")
    figure.supylabel("C (larger: less regularization)", fontsize="medium")
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def confusion(sweep: Any) -> Figure:
    """The confusion matrix of the best cell: colours are shares of each true class, numbers are validation rows.

    ConfigError for a regression, and for a sweep whose every cell failed.
    """
    if sweep.best is None or sweep.best.confusion is None:
        unfitted = "every cell failed" if sweep.best_place() is None else "the best cell could not be fitted again"
        why = unfitted if sweep.best is None else "a regression has no classes"
        raise ConfigError(f"confusion: {why}. See heat_map and the table's notes.")
    cell = sweep.best.cell
    what = f"{name_of(cell['model'])}, C = {cell['C']:.3g}, {cell['size']:,} training rows"
    what += f", seed {cell['seed']}" if len(sweep.seeds) > 1 else ""
    return confusion_matrix(sweep.best.confusion, sweep.classes, f"Confusions of the best: {what}")


def _drawn(strengths: Sequence[float], best: tuple[int, int, int] | None) -> list[int]:
    """The strengths that get a curve, largest C first: all, or some evenly spaced and the best."""
    order = np.argsort(strengths)[::-1]
    if len(order) <= CURVES:
        return order.tolist()
    places = np.linspace(0, len(order) - 1, CURVES).round().astype(int)
    if best is not None:
        place = int(np.flatnonzero(order == best[1])[0])
        inner = places[1:-1]
        if place not in places:
            inner[np.argmin(np.abs(inner - place))] = place
    return order[places].tolist()


def _line_colours(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps[SEQUENTIAL](np.linspace(0, LIGHTEST, n))


def _panels(models: Sequence[str], n_columns: int, height: float) -> tuple[Figure, list[Any]]:
    """A figure with a panel for each model, row after row, on the same axes."""
    n_rows = -(-len(models) // n_columns)
    figure = blank(WIDTH, height)
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, axes in enumerate(grid):
        if i >= len(models):
            axes.remove()
            continue
        axes.set_title(name_of(models[i]), fontsize="medium")
        lowest = i + n_columns >= len(models)
        axes.tick_params(labelsize="small", labelbottom=lowest)
        axes.set_xlabel("training rows" if lowest else "")  # not supxlabel: a legend below would cover it
    return figure, list(grid[: len(models)])


def _cut(axes: Any, sweep: Any, means: np.ndarray) -> str:
    """Cut the axis of R² where it would go far below 0, and say how many means that leaves out."""
    if not np.isfinite(means).any():
        axes.set_ylim(0, 1)
        return ""
    n_below = int((means < WORST_R2).sum())
    if sweep.score != "R²" or not n_below or np.nanmax(means) <= WORST_R2:
        return ""
    axes.set_ylim(WORST_R2, axes.get_ylim()[1])
    return f"{n_below:,} means below {WORST_R2:g} are not shown".replace("-", "−")


def _of_seeds(sweep: Any, band: bool = False) -> str:
    n = len(sweep.seeds)
    return "" if n == 1 else f"mean of {n} seeds" + (", band: lowest to highest" if band else "")


def _failed(sweep: Any) -> str:
    status = sweep.table["status"].to_pylist()
    missing = [f"{n:,} {what}" for what in ("failed", "stopped") if (n := status.count(what))]
    return f"of {len(status):,} cells {' and '.join(missing)}" if missing else ""
