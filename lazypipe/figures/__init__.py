"""The pictures of a run (matplotlib, without its global state), one file a subject."""

from lazypipe.figures.canvas import BLUE, GREEN, GREY, VERMILION
from lazypipe.figures.linear import coefficients
from lazypipe.figures.pca import convergence, scree
from lazypipe.figures.spike_triggered import spike_triggered
from lazypipe.figures.sweep import confusion, heat_map, learning_curves
from lazypipe.figures.units import units

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "VERMILION",
    "coefficients",
    "confusion",
    "convergence",
    "heat_map",
    "learning_curves",
    "scree",
    "spike_triggered",
    "units",
]
