"""lazypipe: statistics and learning on data too wide or too long for memory.

>>> import lazypipe as lp
>>> matrix = lp.open_matrix("data/wide.npy")
>>> with lp.open_engine("dask", memory="2GiB") as engine:
...     pca = lp.PCA(n_components=10).fit(matrix, engine=engine)
"""

from importlib import import_module
from typing import Any

from lazypipe import progress

__version__ = "0.1.0"

# Where each public name lives. Loaded when it is first used: an average of spikes needs neither Arrow nor LAPACK,
# which take 50 MiB of every process.
_HOMES = {
    "open_engine": "engines",
    "ClosePairWarning": "errors",
    "ConfigError": "errors",
    "ConvergenceWarning": "errors",
    "DataError": "errors",
    "DivergedError": "errors",
    "DroppedSpikesWarning": "errors",
    "EngineError": "errors",
    "LazypipeError": "errors",
    "MemoryPlanError": "errors",
    "NotFittedError": "errors",
    "PlanError": "errors",
    "RefusedError": "errors",
    "open_matrix": "io",
    "convert": "io.convert",
    "generate": "io.generate",
    "open_recording": "io.recordings",
    "Recording": "io.recordings.recording",
    "read_spikes": "io.spikes.read",
    "Spikes": "io.spikes.spikes",
    "CovarianceResult": "models.covariance",
    "covariance": "models.covariance",
    "plan_covariance": "models.covariance",
    "LinearRegression": "models.linear",
    "plan_linear_regression": "models.linear",
    "PCA": "models.pca",
    "plan_pca": "models.pca",
    "plan_spike_triggered_average": "models.spike_triggered.average",
    "spike_triggered_average": "models.spike_triggered.average",
    "RegularizationSweep": "models.sweep",
    "plan_regularization_sweep": "models.sweep",
    "regularization_sweep": "models.sweep",
    "SpikeTriggeredCovariance": "models.spike_triggered.covariance",
    "spike_triggered_covariance": "models.spike_triggered.covariance",
    "SpikeTriggeredAverage": "models.spike_triggered.result",
    "Significance": "models.spike_triggered.significance",
    "spike_triggered_significance": "models.spike_triggered.significance",
    "WhitenedAverage": "models.spike_triggered.whitened",
    "whitened_average": "models.spike_triggered.whitened",
    "TiledCovariance": "models.tiled",
    "Autoencoder": "nets.autoencoder",
    "DBN": "nets.dbn",
    "plan_dbn": "nets.dbn",
    "MLP": "nets.mlp",
    "plan_mlp": "nets.mlp",
    "RBM": "nets.rbm",
    "plan_rbm": "nets.rbm",
}

__all__ = [*_HOMES, "progress"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
