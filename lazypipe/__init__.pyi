# What type checkers see of the names that __init__.py loads when they are first used.
__version__: str

from lazypipe import progress as progress
from lazypipe.engines import open_engine as open_engine
from lazypipe.errors import ClosePairWarning as ClosePairWarning
from lazypipe.errors import ConfigError as ConfigError
from lazypipe.errors import ConvergenceWarning as ConvergenceWarning
from lazypipe.errors import DataError as DataError
from lazypipe.errors import DroppedSpikesWarning as DroppedSpikesWarning
from lazypipe.errors import EngineError as EngineError
from lazypipe.errors import LazypipeError as LazypipeError
from lazypipe.errors import MemoryPlanError as MemoryPlanError
from lazypipe.errors import NotFittedError as NotFittedError
from lazypipe.errors import PlanError as PlanError
from lazypipe.io import convert as convert
from lazypipe.io import generate as generate
from lazypipe.io import open_matrix as open_matrix
from lazypipe.io.recordings import open_recording as open_recording
from lazypipe.io.spikes import read_spikes as read_spikes
from lazypipe.models.covariance import CovarianceResult as CovarianceResult
from lazypipe.models.covariance import covariance as covariance
from lazypipe.models.covariance import plan_covariance as plan_covariance
from lazypipe.models.linear import LinearRegression as LinearRegression
from lazypipe.models.linear import plan_linear_regression as plan_linear_regression
from lazypipe.models.pca import PCA as PCA
from lazypipe.models.pca import plan_pca as plan_pca
from lazypipe.models.spike_triggered import SpikeTriggeredAverage as SpikeTriggeredAverage
from lazypipe.models.spike_triggered import plan_spike_triggered_average as plan_spike_triggered_average
from lazypipe.models.spike_triggered import spike_triggered_average as spike_triggered_average
from lazypipe.models.tiled import TiledCovariance as TiledCovariance
