"""What a neuron saw before it fired: averages, their significance, covariances and filters."""

from lazypipe.models.spike_triggered.average import (
    SpikeTriggeredAverage,
    plan_spike_triggered_average,
    spike_triggered_average,
)
from lazypipe.models.spike_triggered.covariance import SpikeTriggeredCovariance, spike_triggered_covariance
from lazypipe.models.spike_triggered.significance import Significance, spike_triggered_significance
from lazypipe.models.spike_triggered.whitened import WhitenedAverage, whitened_average

__all__ = [
    "Significance",
    "SpikeTriggeredAverage",
    "SpikeTriggeredCovariance",
    "WhitenedAverage",
    "plan_spike_triggered_average",
    "spike_triggered_average",
    "spike_triggered_covariance",
    "spike_triggered_significance",
    "whitened_average",
]
