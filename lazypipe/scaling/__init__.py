"""The time and memory of a plan on workers that are not there: a model, from its cuts and a few rates of a machine.

docs/scale.md tells the formulae, and how near they come to what was measured.
"""

from lazypipe.scaling.engine import OnPaper
from lazypipe.scaling.limits import Stop, where_it_stops
from lazypipe.scaling.machine import Machine
from lazypipe.scaling.prediction import Prediction, Seconds, predict

__all__ = ["Machine", "OnPaper", "Prediction", "Seconds", "Stop", "predict", "where_it_stops"]
