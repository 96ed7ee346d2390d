"""The statistics that the laws are tested on: a new statistic is one more ``Case``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.stats import (
    ColumnProduct,
    Covariance,
    Gram,
    Moments,
    ResidualSquares,
    RowProduct,
    Statistic,
    TriangularFactor,
)


@dataclass(frozen=True)
class Case:
    """A statistic for an array, and a dozen lines of float64 NumPy that say what it is."""

    name: str
    make: Callable[[np.ndarray], Statistic]
    reference: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    answer: Callable[[Any], tuple[np.ndarray, ...]]  # of what ``finish`` returns


def centred(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x - x.mean(axis=0)


def basis_for(n: int, dtype: np.dtype) -> np.ndarray:
    block = np.random.default_rng(7).standard_normal((n, 3))
    return (block - block.mean(axis=0)).astype(compute_dtype(dtype))


def row_product(x: np.ndarray) -> RowProduct:
    mean = x.mean(axis=0, dtype=np.float64)
    return RowProduct(mean, mean.astype(compute_dtype(x.dtype)), basis_for(x.shape[1], x.dtype), len(x))


def coef_for(n: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(n)


def residual_and_total_squares(x: np.ndarray) -> tuple[np.ndarray, ...]:
    x = x.astype(np.float64)
    residual = x[:, -1] - x[:, :-1] @ coef_for(x.shape[1] - 1) - 0.5
    return np.array(residual @ residual), x[:, -1].mean(), ((x[:, -1] - x[:, -1].mean()) ** 2).sum()


def with_ones(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(x)), x.astype(np.float64) - x[0]])


CASES = (
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
        lambda x: Gram(),
        lambda x: (centred(x) @ centred(x).T,),
        lambda answer: (answer,),
    ),
    Case(
        "row product",
        row_product,
        lambda x: (centred(x).T @ (centred(x) @ basis_for(x.shape[1], x.dtype).astype(float)),),
        lambda answer: (answer,),
    ),
    Case(
        "column product",
        lambda x: ColumnProduct(basis_for(len(x), x.dtype), with_squares=True),
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
