"""Pictures of principal components: scree, components as images, convergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import BLUE, DIVERGING, GREEN, GREY, NO_VALUE, PURPLE, VERMILION, WIDTH, blank, with_axes
from lazypipe.figures.images import Shape, bar, filled, rows_of, thinned
from lazypipe.figures.labels import name_of, titled
from lazypipe.progress import PassDone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDING = 1e-17  # a residual of exactly 0 has no place on a logarithmic axis
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o"}, {"color": GREEN, "marker": "s"}, {"color": PURPLE, "marker": "^"},
)  # fmt: skip
DOTTED = 60  # passes that have a dot each, at most
SPANNING = 10  # times as many passes, from which on they lie on a logarithmic axis
COMPONENTS = 24  # images
Passes = Sequence[PassDone | Mapping[str, Any]]


def scree(pca: Any) -> Figure:
    """Explained variance of each component of a fitted PCA, as bars, and its cumulated share, as a line."""
    variance = np.asarray(pca.explained_variance_)
    share = 100 * np.cumsum(pca.explained_variance_ratio_)
    index = np.arange(1, len(variance) + 1)
    figure, axes = with_axes()
    axes.bar(index, variance, color=BLUE, width=0.7, label="explained variance")
    axes.set_xlabel("component")
    axes.set_ylabel("explained variance (squared units of the data)")
    axes.set_xlim(0.4, len(variance) + 0.6)
    if 1000 <= variance.max() < 1e6:  # larger ones have their power of ten above the axis
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    right = axes.twinx()
    right.plot(index, share, color=VERMILION, marker="o", markersize=4, label="cumulated share")
    right.set_ylabel("cumulated share of the total variance (%)", color=VERMILION)
    right.tick_params(axis="y", colors=VERMILION)
    right.set_ylim(0, max(5.0, min(105.0, 1.15 * float(share[-1]))))
    right.spines["top"].set_visible(False)
    right.annotate(
        f"{share[-1]:.1f}%", (index[-1], share[-1]), (0, 6), textcoords="offset points",
        ha="right", color=VERMILION,
    )  # fmt: skip
    lines = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, frameon=False)
    return figure


def components(pca: Any, shape: Shape | None = None) -> Figure:
    """Components of a fitted PCA as images, the first 24, each with its share of the total variance.

    Colours reach to the largest absolute entry of the component; white is 0. ``shape`` (height, width) of an image;
    without it a square. ConfigError where the columns do not fill it.
    """
    from matplotlib import colormaps

    rows = rows_of("components", pca.components_)
    shape = filled("components", shape, rows.shape[1])
    drawn = thinned(np.asarray(rows[:COMPONENTS], np.float64).reshape(-1, *shape))
    n, height, width = drawn.shape
    n_columns = n if n <= 6 else min((8, 7, 6, 5), key=lambda columns: (-n % columns, -columns))
    n_rows = -(-n // n_columns)
    each = min(1.6, (WIDTH - 1.3) / n_columns)  # inches of the longer side
    scale = each / max(height, width)
    size = n_columns * (width * scale + 0.08) + 1.3, n_rows * (height * scale + 0.22) + 0.6
    figure = blank(max(4.5, size[0]), max(2.4, size[1]))
    colours = colormaps[DIVERGING].with_extremes(bad=NO_VALUE)
    panels = []
    for i, values in enumerate(drawn):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        reach = np.max(np.abs(values), initial=0.0, where=np.isfinite(values)) or 1.0
        image = axes.imshow(values / reach, cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{i + 1}: {pca.explained_variance_ratio_[i]:.1%}", fontsize="small", pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(GREY)
        axes.spines[:].set_linewidth(0.6)
        panels.append(axes)
    bar(figure, panels, image, "entry, as a share of\nthe component's largest")
    some = f"the first {n} of {len(rows):,}" if n < len(rows) else ""
    figure.suptitle(titled("Components, and their share of the total variance", [some]), fontsize="medium")
    return figure


def convergence(history: Passes | Mapping[str, Passes], tol: float) -> Figure:
    """Largest relative residual after each pass over the data, and the tolerance it has to reach.

    ``history`` is what a fit told of its passes (``history_`` of a PCA), or up to three of those by the name of a
    method: a line each. Of deflation it is the residual of the component that it is at. Where one method takes ten
    times the passes of another, passes lie on a logarithmic axis. ConfigError for more than three methods.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    several = isinstance(history, Mapping)
    methods: Mapping[str, Passes] = history if isinstance(history, Mapping) else {"largest residual": history}
    if len(methods) > len(LINES):
        raise ConfigError(f"convergence: has {len(methods)} methods; at most {len(LINES)} can be told apart.")
    figure, axes = with_axes()
    numbers = []
    for (name, passes), style in zip(methods.items(), LINES, strict=False):
        index, residuals = np.array([_judged(event) for event in passes]).reshape(-1, 2).T
        label = f"{name_of(name, 40)}: {int(index[-1]):,} passes" if several and len(index) else name
        options = style | {"marker": style["marker"] if len(index) <= DOTTED else ""}
        axes.semilogy(index, np.maximum(residuals, ROUNDING), markersize=4, linewidth=1.4, label=label, **options)
        numbers.append(len(index))
    axes.axhline(tol, color=VERMILION, linestyle="--", label=f"tolerance {tol:g}")
    axes.set_xlabel("passes over the data")
    axes.set_ylabel("relative residual ‖Cv − λv‖ / λ")
    axes.spines["right"].set_visible(False)
    if max(numbers) >= SPANNING * max(1, min(numbers)):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2 if len(methods) == 1 else 3, frameon=False)
    return figure


def _judged(event: PassDone | Mapping[str, Any]) -> tuple[float, float]:
    """The number of a pass, and its residual."""
    return (event.index, event.residual) if isinstance(event, PassDone) else (event["pass"], event["residual"])
