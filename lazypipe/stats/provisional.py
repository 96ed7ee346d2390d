"""The provisional shift: the mean of some rows, near enough to the mean to save digits."""

from __future__ import annotations

import numpy as np

from lazypipe.blocks import Block, Span, compute_dtype
from lazypipe.io.matrix import Matrix
from lazypipe.stats.base import require_finite

SHIFT_NBYTES = 2**23
SHIFT_ROWS = 256
PLACES = 8  # a matrix may begin with rows unlike the others


def provisional_shift(matrix: Matrix, omit_nan: bool = False) -> np.ndarray:
    """About the mean of some rows (n_columns,), at most 256 or 8 MiB of them, in the compute dtype.

    They are taken from eight places of the matrix. ``omit_nan`` passes over NaN; zero where a column
    holds nothing else.
    """
    n_rows, n_columns = matrix.shape
    dtype = compute_dtype(matrix.dtype)
    n_wanted = max(1, min(SHIFT_ROWS, SHIFT_NBYTES // (n_columns * dtype.itemsize)))
    spans = [Span(0, n_rows)]
    if n_rows > n_wanted:
        n_places = min(PLACES, n_wanted)
        length = n_wanted // n_places
        spans = [
            Span(start, start + length) for start in np.linspace(0, n_rows - length, n_places).astype(int).tolist()
        ]
    some = np.empty((sum(map(len, spans)), n_columns), dtype)
    columns = Span(0, n_columns)
    n_read = 0
    with matrix.open() as reader:
        for span in spans:
            part = some[n_read : n_read + len(span)]
            reader.read(span, columns, part)
            sums = np.nansum(part, axis=0) if omit_nan else part.sum(axis=0)
            require_finite(sums, Block(part, span, columns, matrix.uri), nan_allowed=omit_nan)
            n_read += len(span)
    if not omit_nan:
        return coarse(some.mean(axis=0, dtype=np.float64), some.std(axis=0, dtype=np.float64)).astype(dtype)
    n = np.maximum((~np.isnan(some)).sum(axis=0), 1)
    mean = np.nansum(some, axis=0, dtype=np.float64) / n
    deviation = np.sqrt(np.nansum((some - mean) ** 2, axis=0, dtype=np.float64) / n)
    return coarse(mean, deviation).astype(dtype)


def typical_values(matrix: Matrix, columns: Span) -> np.ndarray:
    """A value (len(columns),) that each column takes: the middle one of some rows, from eight places; 0 without any.

    A value of the data, and not a mean: differences of numbers with few digits then have few digits too, and
    sums of them round nothing. What is not finite is passed over.
    """
    n_rows = matrix.shape[0]
    n_wanted = min(n_rows, max(PLACES, min(SHIFT_ROWS, SHIFT_NBYTES // (8 * len(columns)))))
    length = max(1, n_wanted // PLACES)
    starts = np.unique(np.linspace(0, n_rows - length, PLACES).astype(int))
    some = np.empty((len(starts), length, len(columns)))
    with matrix.open() as reader:
        for start, part in zip(starts.tolist(), some, strict=True):
            reader.read(Span(start, start + length), columns, part)
    values = some.reshape(-1, len(columns))
    values[~np.isfinite(values)] = np.nan
    values.sort(axis=0)  # NaN last
    middle = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 0) // 2
    return np.nan_to_num(values[middle, np.arange(values.shape[1])])


def coarse(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """``mean`` (n,) to about half a standard deviation, as a multiple of a power of two.

    A shift need not be the mean, only near it. One with few bits leaves few bits in what it is taken
    off: counts and pixels stay integers whose float32 products are exact, where a mean in 2⁻⁸ of 2,000
    integers cost 3e-6 of the variance.
    """
    with np.errstate(divide="ignore"):
        quantum = np.exp2(np.floor(np.log2(deviation)) - 1)
    near = (quantum > 0) & (np.abs(mean) < 2.0**22 * quantum)  # else float32 could not hold the multiple
    return np.where(near, np.rint(mean / np.where(near, quantum, 1)) * quantum, mean)
