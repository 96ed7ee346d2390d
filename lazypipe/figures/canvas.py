"""What the pictures share: colours that colour-blind readers tell apart, and figures without matplotlib's globals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito (2008), told apart by colour-blind readers.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#666666"
NO_VALUE = "#DDDDDD"
DIVERGING = "RdBu_r"  # a colour map for values on either side of 0, which is white; read by the colour-blind too
SIZE = (7.0, 4.2)  # inches
WIDTH = SIZE[0]
PER_ROW = 3  # panels


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


def layout(n_panels: int, at_most: int = PER_ROW) -> tuple[int, int]:
    """Columns and rows of panels."""
    n_columns = min(n_panels, PER_ROW, at_most)
    n_columns = 2 if n_panels == 4 and n_columns == 3 else n_columns
    return n_columns, -(-n_panels // n_columns)


def hatch(axes: Any, cells: np.ndarray) -> None:
    """Mark the cells of an image that have no value."""
    from matplotlib.patches import Rectangle

    for y, x in np.argwhere(cells):
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=NO_VALUE, edgecolor=GREY, hatch="////", linewidth=0)
        )
