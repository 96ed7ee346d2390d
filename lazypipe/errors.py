"""What can go wrong, told in one line: what, where, and what to do."""

from typing import Self


class LazypipeError(Exception):
    """Base of every error that a user can mend; its message is one line."""


class DataError(LazypipeError, ValueError):
    """A source or an output cannot be used as it is."""


class DiskFullError(DataError):
    """A disk has no room for what is to be written; on a worker it is told whose disk."""


class PlanError(LazypipeError):
    """The work as asked for cannot be done, known before any data is read."""


class MemoryPlanError(PlanError, MemoryError):
    """The work needs more memory than its budget."""

    def __new__(cls, *arguments: object) -> Self:
        """MemoryError has one of its own, which refuses what Dask calls to take an error from a worker."""
        return Exception.__new__(cls, *arguments)


class ConfigError(LazypipeError, ValueError):
    """A parameter has a wrong name or value."""


class NotFittedError(LazypipeError, ValueError, AttributeError):
    """A model is used before it was fitted."""


def require_fitted(model: object, attribute: str) -> None:
    """Raise NotFittedError unless a model has what its ``fit`` leaves."""
    if not hasattr(model, attribute):
        raise NotFittedError(f"{type(model).__name__}: is not fitted yet. Call fit first.")


class EngineError(LazypipeError, RuntimeError):
    """A cluster cannot be reached, or cannot run the work."""


class RefusedError(EngineError):
    """A cluster as it is cannot run the work as it is asked for: another try does not help, a change does."""


class DivergedError(LazypipeError, ArithmeticError):
    """A training whose loss is not finite any more."""


class ClosePairWarning(UserWarning):
    """Two eigenvalues are too close for their components to mean anything alone."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before its tolerance; the message says by how much."""


class DroppedSpikesWarning(UserWarning):
    """Spikes lie beyond the end of the recording, as if it were not the one they came from."""
