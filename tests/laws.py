"""The statistics that the laws are tested on: a new statistic is one more ``Case``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span, compute_dtype
from lazypipe.stats import (
    AdjointProduct,
    Centring,
    ColumnProduct,
    Covariance,
    Gram,
    Moments,
    ResidualSquares,
    RowProduct,
    Statistic,
    TriangularFactor,
)
from lazypipe.stats.spike_triggered import SpikeTriggered
from lazypipe.stats.windows import find_windows


@dataclass(frozen=True)
class Case:
    """A statistic for an array, and a dozen lines of float64 NumPy that say what it is."""

    name: str
    make: Callable[[np.ndarray], Statistic]
    reference: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    answer: Callable[[Any], tuple[np.ndarray, ...]]  # of what ``finish`` returns
    centred: bool = False  # the rows are read less ``centre_of``, as models have them


def centre_of(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0, dtype=np.float64).astype(compute_dtype(x.dtype))


def centred(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x - x.mean(axis=0)


def weights_of(n: int) -> np.ndarray:
    """Whole numbers, so that a weighted row is so many rows; some of them none."""
    return np.random.default_rng(8).integers(0, 4, n).astype(float)


def repeated(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, weights_of(len(x)).astype(int), axis=0)


def basis_for(n: int, dtype: np.dtype) -> np.ndarray:
    block = np.random.default_rng(7).standard_normal((n, 3))
    return (block - block.mean(axis=0)).astype(compute_dtype(dtype))


def row_product(x: np.ndarray) -> RowProduct:
    return RowProduct(basis_for(x.shape[1], x.dtype), x.mean(axis=0, dtype=np.float64) - centre_of(x), len(x))


def coef_for(n: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(n)


def residual_and_total_squares(x: np.ndarray) -> tuple[np.ndarray, ...]:
    x = x.astype(np.float64)
    residual = x[:, -1] - x[:, :-1] @ coef_for(x.shape[1] - 1) - 0.5
    return np.array(residual @ residual), x[:, -1].mean(), ((x[:, -1] - x[:, -1].mean()) ** 2).sum()


def with_ones(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(x)), x.astype(np.float64) - x[0]])


def windows_for(x: np.ndarray) -> SpikeTriggered:
    """Windows of 5 rows around 40 spikes of two units, each on one sample in six."""
    samples = np.sort(np.random.default_rng(10).choice(len(x), max(2, len(x) // 6)))
    edges = np.array([0, len(samples) // 2, len(samples)])
    windows, _ = find_windows(samples, edges, (-3, 2), [Span(0, len(x))], at_edges="nan")
    return SpikeTriggered(windows, Span(0, x.shape[1]), x.dtype.name)


def window_sums(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of whole windows, and of those clipped by the begin, that the end does not cut off."""
    windows, x = windows_for(x).windows, x.astype(np.float64)
    total = np.zeros((2, 5, x.shape[1]))
    squares = np.zeros_like(total)
    for u in range(2):
        for row in windows.first[windows.edges[u] : windows.edges[u + 1]]:
            total[u] += x[row : row + 5]
            squares[u] += x[row : row + 5] ** 2
    for unit, row, lag, n, owner in zip(*windows.clipped, strict=True):
        if owner < len(x):
            total[unit, lag : lag + n] += x[row : row + n]
            squares[unit, lag : lag + n] += x[row : row + n] ** 2
    return total.reshape(2, -1), squares.reshape(2, -1)


CASES = (
    Case(
        "spike-triggered",
        windows_for,
        window_sums,
        lambda sums: (sums.total, sums.squares),
    ),
    Case(
        "moments",
        lambda x: Moments(ddof=1),
        lambda x: (x.astype(float).mean(axis=0), x.astype(float).var(axis=0, ddof=1)),
        lambda answer: (answer.mean, answer.variance),
    ),
    Case(
        "covariance",
        lambda x: Covariance(x[:3].astype(compute_dtype(x.dtype)).mean(axis=0), ddof=1),
        lambda x: (x.astype(float).mean(axis=0), centred(x).T @ centred(x) / (len(x) - 1)),
        lambda answer: (answer.mean, answer.covariance),
    ),
    Case(
        "covariance, ddof 0",
        lambda x: Covariance(x[:3].astype(compute_dtype(x.dtype)).mean(axis=0), ddof=0),
        lambda x: (centred(x).T @ centred(x) / len(x),),
        lambda answer: (answer.covariance,),
    ),
    Case(
        "gram",
        lambda x: Gram(Centring.of(len(x))),
        lambda x: (centred(x) @ centred(x).T,),
        lambda answer: (answer,),
    ),
    Case(
        "row product",
        row_product,
        lambda x: (centred(x).T @ (centred(x) @ basis_for(x.shape[1], x.dtype).astype(float)),),
        lambda answer: (answer,),
        centred=True,
    ),
    Case(
        "adjoint product",
        lambda x: AdjointProduct(basis_for(len(x), x.dtype)),
        lambda x: (centred(x).T @ basis_for(len(x), x.dtype).astype(float),),
        lambda answer: (answer,),
        centred=True,
    ),
    Case(
        "weighted moments",
        lambda x: Moments(ddof=1, weights=weights_of(len(x))),
        lambda x: (repeated(x).astype(float).mean(axis=0), repeated(x).astype(float).var(axis=0, ddof=1)),
        lambda answer: (answer.mean, answer.variance),
    ),
    Case(
        "weighted covariance",
        lambda x: Covariance(centre_of(x[:3]), weights=weights_of(len(x))),
        lambda x: (centred(repeated(x)).T @ centred(repeated(x)) / (len(repeated(x)) - 1),),
        lambda answer: (answer.covariance,),
    ),
    Case(
        "moment about zero",
        lambda x: Covariance(None, ddof=0, centred=False),
        lambda x: (x.astype(float).T @ x.astype(float) / len(x),),
        lambda answer: (answer.covariance,),
    ),
    Case(
        "column product",
        lambda x: ColumnProduct(basis_for(len(x), x.dtype), Centring.of(len(x)), with_squares=True),
        lambda x: (
            centred(x) @ (centred(x).T @ basis_for(len(x), x.dtype).astype(float)),
            np.array((centred(x) ** 2).sum()),
        ),
        lambda answer: (answer.product, np.array(answer.squares)),
    ),
    Case(
        "triangular factor",
        lambda x: TriangularFactor(x[0].astype(compute_dtype(x.dtype))),
        lambda x: (with_ones(x).T @ with_ones(x),),
        lambda answer: (answer.T @ answer,),
    ),
    Case(
        "residual squares",
        lambda x: ResidualSquares(coef_for(x.shape[1] - 1), 0.5),
        residual_and_total_squares,
        lambda answer: (np.array(answer.residual), np.array(answer.mean), np.array(answer.total)),
    ),
)
