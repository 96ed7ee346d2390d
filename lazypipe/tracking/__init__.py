"""Runs, figures and models in MLflow: what was asked, on which data, how it went, what came out.

Everything is logged from the driver, and never from a block. MLflow takes seconds to import: the
functions here do so when they are called.
"""

from lazypipe.tracking.children import Child, Point
from lazypipe.tracking.fitted import PROJECTION, log_network, log_projection
from lazypipe.tracking.opening import Data, reopened, tracked_run
from lazypipe.tracking.parameters import PARAMETER_LENGTH, flatten, note
from lazypipe.tracking.record import Model, Record
from lazypipe.tracking.run import TrackedRun, points_of
from lazypipe.tracking.store import is_away, load_libraries, page_of, require_store, said

__all__ = [
    "PARAMETER_LENGTH", "PROJECTION", "Child", "Data", "Model", "Point", "Record", "TrackedRun", "flatten", "is_away",
    "load_libraries", "log_network", "log_projection", "note", "page_of", "points_of", "reopened", "require_store",
    "said", "tracked_run",
]  # fmt: skip
