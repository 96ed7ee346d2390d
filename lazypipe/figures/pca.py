"""Pictures of principal components: scree, convergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.figures.canvas import BLUE, GREY, VERMILION, with_axes
from lazypipe.progress import PassDone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDING = 1e-17  # a residual of exactly 0 has no place on a logarithmic axis


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


def convergence(history: Sequence[PassDone], tol: float) -> Figure:
    """Largest relative residual after each pass over the data, and the tolerance it has to reach."""
    figure, axes = with_axes()
    passes = [event.index for event in history]
    residuals = [max(event.residual, ROUNDING) for event in history]
    axes.semilogy(passes, residuals, color=BLUE, marker="o", markersize=4, label="largest residual")
    axes.axhline(tol, color=VERMILION, linestyle="--", label=f"tolerance {tol:g}")
    axes.set_xlabel("passes over the data")
    axes.set_ylabel("relative residual ‖Cv − λv‖ / λ")
    axes.spines["right"].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
