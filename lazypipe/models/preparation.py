"""Centring, scaling, weights and NaN: what is done to the entries inside the passes, never to a copy.

With ``x`` an entry, ``m`` the (weighted) mean of its column and ``w`` the weight of its row, the models see
``√w (x - m) / s``. The mean and the scale ``s`` come from one pass over the rows. A row of weight 2 counts
as two rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lazypipe.blocks import compute_dtype
from lazypipe.engines import Engine
from lazypipe.errors import ConfigError, DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.matrix import Matrix
from lazypipe.io.prepared import Prepared
from lazypipe.io.sources import one_line, require_there
from lazypipe.plan import FoldPlan, Host, plan_fold
from lazypipe.stats.moments import ColumnMoments, Moments, NanPolicy
from lazypipe.stores import path_of

Scale = bool | Literal["genotype"]
ROUNDING = 1e-9  # of a weighted mean of allele counts


@dataclass(frozen=True)
class Preparation:
    """What is asked for; ``weights`` (n_rows,) float64 or None."""

    center: bool = True
    scale: Scale = False
    nan: NanPolicy = "raise"
    weights: np.ndarray | None = None

    @property
    def plain(self) -> bool:
        """Whether blocks of columns need nothing that only a pass over the rows can tell."""
        return not self.scale and self.nan == "raise" and self.weights is None

    @property
    def scales_about_zero(self) -> bool:
        """Whether the scales, which are about the means, cannot be told from the second moment asked for."""
        return bool(self.scale) and not self.center

    @property
    def alleles(self) -> bool:
        """Whether entries have to be allele counts."""
        return self.scale == "genotype"

    def degrees(self, weight: float) -> float:
        """What a sum of squares over rows of that weight is divided by: one is lost to the mean."""
        return weight - 1 if self.center else weight

    def describe(self) -> dict[str, Any]:
        """The same as JSON values; the weights by a hash."""
        hashed = None if self.weights is None else hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]
        return {"center": self.center, "scale": self.scale, "nan": self.nan, "row_weights": hashed}


class Standardised(NamedTuple):
    """A matrix as the models see it, and what was found on the way."""

    matrix: Matrix  # reads √w (x - m) / s; sparse ones √w x / s
    mean: np.ndarray  # (n_columns,) float64, zero where nothing was centred
    scale: np.ndarray | None  # (n_columns,) float64, 1 for constant columns
    rest: np.ndarray | None  # (n_columns,) mean that the rows still have, None about zero
    weights: np.ndarray | None  # (n_rows,), zero for rows left out
    weight: float
    total_variance: float
    n_omitted: int
    n_constant: int  # columns that scaling found constant
    fill: np.ndarray | None  # (n_columns,) float64, what gaps are filled with


def preparation(matrix: Matrix, center: bool, scale: Any, nan: Any, row_weights: Any) -> Preparation:
    """Check the options of a model against a matrix. Raises ConfigError, DataError."""
    if scale not in (False, True, "genotype"):
        raise ConfigError(f"scale: {scale!r} is not True, False or 'genotype'.")
    if nan not in get_args(NanPolicy):
        raise ConfigError(f"nan: {nan!r} is not one of {', '.join(get_args(NanPolicy))}.")
    if scale == "genotype" and not center:
        raise ConfigError("scale: 'genotype' is (x - 2p) / sqrt(2p (1 - p)), which centres. Leave out center=False.")
    weights = None if row_weights is None else _checked_weights(row_weights, matrix)
    return Preparation(bool(center), "genotype" if scale == "genotype" else bool(scale), nan, weights)


def _checked_weights(row_weights: Any, matrix: Matrix) -> np.ndarray:
    what = "row_weights"
    if isinstance(row_weights, str | Path):
        what = f"row_weights {row_weights}"
        place = path_of(row_weights)
        if not place.is_file():
            raise DataError(f"{what}: no such file. Check the path.")
        require_there(place)
        try:
            with place.open("rb") as file:
                row_weights = np.load(file, allow_pickle=False)
        except DAMAGED as error:
            raise DataError(f"{what}: is not a readable .npy file ({one_line(error)}). Write it again.") from error
    try:
        weights = np.asarray(row_weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: are no numbers. Give one weight a row, 0 or above.") from error
    if weights.shape in ((matrix.shape[0], 1), (1, matrix.shape[0])):
        weights = weights.ravel()
    if weights.shape != (matrix.shape[0],):
        raise DataError(
            f"{what}: shape {weights.shape}, but {matrix.uri} has {matrix.shape[0]:,} rows. Give one weight a row."
        )
    for wrong, name in ((~np.isfinite(weights), "not finite"), (weights < 0, "negative")):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{what}: entry {i:,} is {name} ({weights[i]:g}; first of {int(wrong.sum()):,}). "
                f"Give weights of 0 or above."
            )
    if not weights.sum() > 1:
        raise DataError(f"{what}: their sum is {weights.sum():g}; a row of weight 2 counts as two. Scale them up.")
    return weights


def plan_moments(matrix: Matrix, asked: Preparation, host: Host) -> FoldPlan:
    """The pass that finds means and scales."""
    reserved = 6 * 8 * matrix.shape[1] + (8 * 3 * matrix.shape[0] if asked.weights is not None else 0)
    return plan_fold("mean and variance", Moments(weights=asked.weights, nan=asked.nan), matrix, host, reserved)


def to_plan_with(matrix: Matrix, asked: Preparation) -> Matrix:
    """``matrix`` as it will be read, with vectors of the right shapes and no memory."""
    n_rows, n_columns = matrix.shape
    zero = np.zeros(1, compute_dtype(matrix.dtype))
    along_columns, along_rows = np.broadcast_to(zero, n_columns), np.broadcast_to(zero, n_rows)
    return Prepared(
        matrix,
        centre=along_columns if asked.center and not matrix.sparse else None,
        gain=along_columns if asked.scale else None,
        root=along_rows if asked.weights is not None or asked.nan == "omit" else None,
        filling=along_columns if asked.nan == "mean" else None,
    )


def standardise(matrix: Matrix, asked: Preparation, moments: ColumnMoments) -> Standardised:
    """``matrix`` with its mean, scale and weights, as ``moments`` of its rows tell them."""
    dtype = compute_dtype(matrix.dtype)
    weights = asked.weights
    if len(moments.omitted):
        weights = np.ones(matrix.shape[0]) if weights is None else weights.copy()
        weights[moments.omitted] = 0
    if not moments.weight > 1:
        raise DataError(too_little_weight(matrix, len(moments.omitted), moments.weight, 1))
    mean = moments.mean
    scale, n_constant = column_scale(matrix, asked, mean, moments.variance) if asked.scale else (None, 0)
    gain = None if scale is None else (1 / scale).astype(dtype)
    centre = mean.astype(dtype) if asked.center and not matrix.sparse else None
    rest = None
    if asked.center:
        rest = (mean if centre is None else mean - centre) * (1 if gain is None else gain.astype(np.float64))
    squares = moments.variance * (moments.weight - 1)
    if not asked.center:
        squares = squares + moments.weight * mean**2
    total = squares if scale is None else squares / scale**2
    return Standardised(
        matrix=Prepared(
            matrix,
            centre,
            gain,
            root=None if weights is None else np.sqrt(weights).astype(dtype),
            filling=mean.astype(dtype) if asked.nan == "mean" else None,
        ),
        mean=mean if asked.center else np.zeros_like(mean),
        scale=scale,
        rest=rest,
        weights=weights,
        weight=moments.weight,
        total_variance=float(total.sum() / asked.degrees(moments.weight)),
        n_omitted=len(moments.omitted),
        n_constant=n_constant,
        fill=mean if asked.nan == "mean" else None,
    )


def column_scale(matrix: Matrix, asked: Preparation, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, int]:
    """What the columns are divided by, and how many are constant and so left as they are."""
    if asked.alleles:
        wrong = np.flatnonzero((mean < -ROUNDING) | (mean > 2 + ROUNDING))
        if len(wrong):
            raise DataError(
                f"{matrix.uri}: column {wrong[0]:,} has a mean of {mean[wrong[0]]:.4g}, so it counts no alleles "
                f"(0, 1, 2; first of {len(wrong):,}). Recode it, or use scale=True (--scale unit)."
            )
        scale = np.sqrt(np.maximum(mean * (1 - mean / 2), 0))
        scale[scale <= np.sqrt(ROUNDING)] = 0  # all of one allele
    else:
        scale = np.sqrt(np.maximum(variance, 0))
    constant = scale <= rounding_of(matrix.dtype) * np.abs(mean)
    return np.where(constant, 1.0, scale), int(constant.sum())


def rounding_of(dtype: np.dtype) -> float:
    """A standard deviation at or below this part of the mean is rounding: the column is constant."""
    return {4: 1.0, 8: 16.0}[compute_dtype(dtype).itemsize] * float(np.finfo(compute_dtype(dtype)).eps)


def too_little_weight(matrix: Matrix, n_omitted: int, weight: float, ddof: float) -> str:
    """What to say where the rows that are left, or their weights, leave nothing to divide by."""
    if n_omitted:
        return (
            f"{matrix.uri}: {n_omitted:,} of {matrix.shape[0]:,} rows hold a NaN and were left out; too few are "
            f"left for ddof={ddof:g}. Pass nan='mean' (--nan mean) to fill the gaps instead."
        )
    return (
        f"{matrix.uri}: the weights of its rows sum to {weight:g}, too little for ddof={ddof:g}. "
        f"Use a smaller ddof, more rows or larger weights."
    )


def find_moments(matrix: Matrix, asked: Preparation, engine: Engine, plan: FoldPlan) -> ColumnMoments:
    """Means and variances as ``asked``, in one pass. Raises DataError for a column without a value."""
    statistic = Moments(weights=asked.weights, nan=asked.nan, alleles=asked.alleles)
    moments: ColumnMoments = engine.fold(statistic, matrix, plan)
    empty = np.flatnonzero(np.broadcast_to(moments.present, moments.mean.shape) <= 0)
    if moments.weight <= 0:
        return moments  # every row was omitted, which the models refuse
    if len(empty):
        raise DataError(f"{matrix.uri}: column {empty[0]:,} holds nothing but NaN (first of {len(empty):,}). Drop it.")
    return moments
