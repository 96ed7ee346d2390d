"""What a neuron saw before it fired: averages, their significance, covariances and filters."""

from lazypipe.models.spike_triggered.average import plan_spike_triggered_average, spike_triggered_average
from lazypipe.models.spike_triggered.result import SpikeTriggeredAverage

__all__ = ["SpikeTriggeredAverage", "plan_spike_triggered_average", "spike_triggered_average"]
