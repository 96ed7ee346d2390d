"""The pictures of a run (matplotlib, without its global state): scree, convergence, coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from lazypipe.progress import PassDone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008), told apart by colour-blind readers.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
SIZE = (7.0, 4.2)  # inches
COEFFICIENTS_SHOWN = 30
ROUNDING = 1e-17  # a residual of exactly 0 has no place on a logarithmic axis


def scree(pca: Any) -> Figure:
    """Explained variance of each component of a fitted PCA, as bars, and its cumulated share, as a line."""
    variance = np.asarray(pca.explained_variance_)
    share = 100 * np.cumsum(pca.explained_variance_ratio_)
    index = np.arange(1, len(variance) + 1)
    figure, axes = _figure()
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
    figure, axes = _figure()
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


def coefficients(model: Any) -> Figure:
    """The coefficients of a fitted LinearRegression with 95% confidence intervals, at most 30, by |t|."""
    strength = np.nan_to_num(np.abs(model.t_values_), nan=-1.0)
    shown = np.argsort(-strength, kind="stable")[:COEFFICIENTS_SHOWN]
    freedom = model.n_rows_ - model.ddof_
    reach = (stdtrit(freedom, 0.975) if freedom > 0 else np.nan) * model.standard_errors_[shown]
    values, place = model.coef_[shown], np.arange(len(shown))
    clear = model.p_values_[shown] < 0.05
    figure, axes = _figure()
    figure.set_figheight(max(2.4, 1.5 + 0.19 * len(shown)))
    for which, colour, label in ((clear, BLUE, "p < 0.05"), (~clear, GREY, "p ≥ 0.05")):
        if which.any():
            axes.errorbar(
                values[which], place[which], xerr=reach[which], fmt="o", color=colour, markersize=4.5,
                elinewidth=1.3, capsize=2.5, label=f"{label}, with 95% interval",
            )  # fmt: skip
    axes.spines["right"].set_visible(False)
    axes.axvline(0, color=VERMILION, linewidth=0.9, linestyle="--")
    axes.set_yticks(place, [f"{column:,}" for column in model.columns_[shown]], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the largest |t| on top
    axes.set_xlabel("coefficient (units of y per unit of the column)")
    n_all = len(model.coef_)
    axes.set_ylabel("column" if n_all == len(shown) else f"column ({len(shown)} of {n_all:,}, largest |t| first)")
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _figure() -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines["top"].set_visible(False)
    return figure, axes
