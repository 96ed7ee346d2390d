"""What a verdict is made of: the best cell, and an answer to each question, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BestCell:
    """The cell of highest validation score, as a mean over its seeds."""

    model: str
    C: float
    size: int
    n_seeds: int
    validation: float
    standard_error: float  # of the validation rows
    seed_sd: float | None
    train: float


@dataclass(frozen=True)
class Regularization:
    """How far apart the strengths of the best model are at each size, and which of them is best."""

    sizes: tuple[int, ...]
    n_strengths: tuple[int, ...]  # that have a score
    spread: tuple[float, ...]  # of the validation score: best less worst strength
    noise: tuple[float, ...]  # half the 95% interval of a score
    best: tuple[float, ...]  # strengths
    irrelevant_from: int | None  # the size from which on the spread is less than the noise; None: it matters to the end
    edges: tuple[str | None, str | None]  # "smallest" or "largest" of the grid: the best C at the first and last size
    extend: tuple[bool, bool]  # ... and it leads its neighbour by more than the noise
    over_weakest: float  # at the largest size, the lead of the best over the largest C


@dataclass(frozen=True)
class MoreData:
    """The power law of the best model, and what it expects of twice the rows and of any number of them."""

    a: float
    b: float
    c: float
    sizes: tuple[int, ...]  # that were fitted
    misfit: float  # chi² a degree of freedom; above 1 it widens the intervals
    size: int  # twice the largest
    expected: float  # score there
    interval: tuple[float, float]
    gain: float  # over the law at the largest
    gain_interval: tuple[float, float]
    noise: float  # half the 95% interval of a score, of the validation rows
    limit_interval: tuple[float, float]  # of the error ``a``

    @property
    def helps(self) -> bool | None:
        """Whether twice the rows would; no: by less than a score's noise at most; None: it is not certain."""
        low, high = self.gain_interval
        return False if high <= self.noise else True if low > 0 else None


@dataclass(frozen=True)
class Limit:
    """What holds the best model back at its largest size.

    ``kind`` is "data", "regularization", "model", "both" (model and data), "nothing" or "unknown".
    """

    kind: str
    size: int
    C: float
    train: float
    validation: float


@dataclass(frozen=True)
class ModelScore:
    """A model at the largest size at which all models have a score (else its own), and its best strength there."""

    model: str
    size: int
    C: float
    validation: float
    standard_error: float  # validation rows and seeds


@dataclass(frozen=True)
class Cells:
    """What there is to mistrust."""

    n: int
    n_failed: int
    n_stopped: int
    n_without_score: int  # of those that are done
    n_not_converged: int
    n_without_all_classes: int
    why: str  # the commonest note of the failed
