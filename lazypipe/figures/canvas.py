"""What the pictures share: colours that colour-blind readers tell apart, and figures without matplotlib's globals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008), told apart by colour-blind readers.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
SIZE = (7.0, 4.2)  # inches


def blank(width: float, height: float) -> Figure:
    """A figure of that size in inches, without axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def with_axes() -> tuple[Figure, Any]:
    """A figure of the usual size, and its axes."""
    figure = blank(*SIZE)
    axes = figure.add_subplot()
    axes.spines["top"].set_visible(False)
    return figure, axes
