"""The pictures of a run (matplotlib, without its global state), one file a subject."""

from lazypipe.figures.canvas import BLUE, GREEN, GREY, VERMILION
from lazypipe.figures.confusions import confusion_matrix
from lazypipe.figures.linear import coefficients
from lazypipe.figures.network_images import filters, image_rows, samples
from lazypipe.figures.networks import accuracy_by_labels, code_errors, training_curves
from lazypipe.figures.pca import components, convergence, scree
from lazypipe.figures.spike_triggered import spike_triggered
from lazypipe.figures.sweep import confusion, heat_map, learning_curves
from lazypipe.figures.units import units

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "VERMILION",
    "accuracy_by_labels",
    "code_errors",
    "coefficients",
    "components",
    "confusion",
    "confusion_matrix",
    "convergence",
    "filters",
    "heat_map",
    "image_rows",
    "learning_curves",
    "samples",
    "scree",
    "spike_triggered",
    "training_curves",
    "units",
]
