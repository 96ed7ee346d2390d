"""What a neuron saw before it fired: averages, their significance, covariances and filters."""

from importlib import import_module
from typing import Any

# Loaded when it is first used: an average needs no SciPy, which significance and covariances do.
_HOMES = {
    "SpikeTriggeredAverage": "result",
    "plan_spike_triggered_average": "average",
    "spike_triggered_average": "average",
    "Significance": "significance",
    "spike_triggered_significance": "significance",
    "SpikeTriggeredCovariance": "covariance",
    "spike_triggered_covariance": "covariance",
    "WhitenedAverage": "whitened",
    "whitened_average": "whitened",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
