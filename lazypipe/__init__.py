"""lazypipe: statistics and learning on data too wide or too long for memory.

>>> import lazypipe as lp
>>> matrix = lp.open_matrix("data/wide.npy")
>>> with lp.open_engine("dask", memory="2GiB") as engine:
...     pca = lp.PCA(n_components=10).fit(matrix, engine=engine)
"""

__version__ = "0.1.0"

from lazypipe import progress
from lazypipe.engines import open_engine
from lazypipe.errors import (
    ClosePairWarning,
    ConfigError,
    ConvergenceWarning,
    DataError,
    DroppedSpikesWarning,
    EngineError,
    LazypipeError,
    MemoryPlanError,
    NotFittedError,
    PlanError,
)
from lazypipe.io import convert, generate, open_matrix
from lazypipe.io.recordings import open_recording
from lazypipe.io.spikes import read_spikes
from lazypipe.models.covariance import CovarianceResult, covariance, plan_covariance
from lazypipe.models.linear import LinearRegression, plan_linear_regression
from lazypipe.models.pca import PCA, plan_pca
from lazypipe.models.spike_triggered import (
    SpikeTriggeredAverage,
    plan_spike_triggered_average,
    spike_triggered_average,
)
from lazypipe.models.tiled import TiledCovariance

__all__ = [
    "PCA",
    "ClosePairWarning",
    "ConfigError",
    "ConvergenceWarning",
    "CovarianceResult",
    "DataError",
    "DroppedSpikesWarning",
    "EngineError",
    "LazypipeError",
    "LinearRegression",
    "MemoryPlanError",
    "NotFittedError",
    "PlanError",
    "SpikeTriggeredAverage",
    "TiledCovariance",
    "convert",
    "covariance",
    "generate",
    "open_engine",
    "open_matrix",
    "open_recording",
    "plan_covariance",
    "plan_linear_regression",
    "plan_pca",
    "plan_spike_triggered_average",
    "progress",
    "read_spikes",
    "spike_triggered_average",
]
