"""Pictures of linear regression: coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from lazypipe.figures.canvas import BLUE, GREY, VERMILION, with_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COEFFICIENTS_SHOWN = 30


def coefficients(model: Any) -> Figure:
    """The coefficients of a fitted LinearRegression with 95% confidence intervals, at most 30, by |t|."""
    strength = np.nan_to_num(np.abs(model.t_values_), nan=-1.0)
    shown = np.argsort(-strength, kind="stable")[:COEFFICIENTS_SHOWN]
    freedom = model.n_rows_ - model.ddof_
    reach = (stdtrit(freedom, 0.975) if freedom > 0 else np.nan) * model.standard_errors_[shown]
    values, place = model.coef_[shown], np.arange(len(shown))
    clear = model.p_values_[shown] < 0.05
    figure, axes = with_axes()
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
