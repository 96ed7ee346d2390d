"""Losses and their gradients in the logits, compiled: softmax over several classes, the logistic loss of two.

The logits of all models lie side by side, ``outputs`` columns a model. The exponentials are NumPy's, which are
vectors; what comes before and after them is one loop each over rows that are still in the caches.
"""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np

from lazypipe.stats.kept import KEPT

OPTIONS = {"nogil": True, "cache": KEPT, "error_model": "numpy"}


@numba.njit(inline="always", **OPTIONS)
def _shift(row, bias, first, outputs):
    """Add the bias to the logits of one model, and take the largest off."""
    most = np.float32(-np.inf)
    for k in range(first, first + outputs):
        row[k] += bias[k]
        most = max(most, row[k])
    for k in range(first, first + outputs):
        row[k] -= most


@numba.njit("void(float32[:, :], float32[::1], int32[::1], int64, float32[:, ::1])", **OPTIONS)
def _centre(logits, bias, targets, outputs, own):
    """Add the bias, take the largest logit of each model off, keep that of the row's own class."""
    for i in range(len(logits)):
        row = logits[i]
        for m in range(own.shape[1]):
            first = m * outputs
            _shift(row, bias, first, outputs)
            own[i, m] = row[first + targets[i]]


@numba.njit("void(float32[:, :], int32[::1], int64, float32[:, ::1], float64[::1], float64[::1])", **OPTIONS)
def _to_residuals(exponentials, targets, outputs, own, losses, sums):
    """Probabilities less the one of the row's class; losses and column sums are added to."""
    for i in range(len(exponentials)):
        row = exponentials[i]
        for m in range(len(losses)):
            first = m * outputs
            mine = first + targets[i]
            total = 0.0
            for k in range(first, first + outputs):
                total += np.float64(row[k])
            others = total - np.float64(row[mine])  # float64, so that a sure row keeps the little that it is unsure
            losses[m] += np.log1p(others) if own[i, m] == 0 else np.log(total) - np.float64(own[i, m])
            scale = np.float32(1 / total)
            for k in range(first, first + outputs):
                row[k] *= scale
            row[mine] = np.float32(-others / total)
            for k in range(first, first + outputs):
                sums[k] += row[k]


@numba.njit("void(float32[:, :], float32[::1], float32[:, ::1])", **OPTIONS)
def _spread(logits, bias, kept):
    """Logits of the second of two classes to -|z|, which no exponential overflows; z is kept."""
    for i in range(len(logits)):
        for m in range(len(bias)):
            z = logits[i, m] + bias[m]
            kept[i, m] = z
            logits[i, m] = -abs(z)


@numba.njit("void(float32[:, :], int32[::1], float32[:, ::1], float64[::1], float64[::1])", **OPTIONS)
def _to_two_residuals(exponentials, targets, kept, losses, sums):
    for i in range(len(exponentials)):
        for m in range(len(losses)):
            small, z = exponentials[i, m], kept[i, m]
            share = np.float32(1) / (np.float32(1) + small)  # of the likelier class; small * share of the other
            wrong = small * share if (z >= 0) == (targets[i] == 1) else share
            losses[m] += np.log1p(np.float64(small)) + np.float64(max(-z if targets[i] else z, np.float32(0)))
            exponentials[i, m] = -wrong if targets[i] else wrong
            sums[m] += exponentials[i, m]


def residuals(
    logits: np.ndarray, bias: np.ndarray, targets: np.ndarray, outputs: int, losses: np.ndarray, sums: np.ndarray
) -> None:
    """Turn logits (n, models × outputs or more) float32, without their bias, into d loss / d logits, in place.

    ``targets`` (n,) int32; with one output of two classes 0 and 1, the logit is of class 1. Adds the losses of
    all rows to ``losses`` (models,) and the columns' residuals to ``sums`` (models × outputs,), float64.
    """
    kept = np.empty((len(logits), len(losses)), np.float32)
    if outputs == 1:
        _spread(logits, bias, kept)
        np.exp(logits, out=logits)
        _to_two_residuals(logits, targets, kept, losses, sums)
        return
    _centre(logits, bias, targets, outputs, kept)
    np.exp(logits, out=logits)
    _to_residuals(logits, targets, outputs, kept, losses, sums)


@numba.njit("void(float32[:, ::1], float32[::1], int64)", **OPTIONS)
def _below(logits, bias, outputs):
    """Add the bias and take the largest logit of each model off; with one output, minus its size."""
    for i in range(len(logits)):
        row = logits[i]
        for m in range(len(bias) // outputs):
            if outputs == 1:
                row[m] = -abs(row[m] + bias[m])
            else:
                _shift(row, bias, m * outputs, outputs)


@numba.njit("void(float32[:, ::1], float32[:, ::1], float32[::1], int64, float64[::1])", **OPTIONS)
def _bend(exponentials, along, offsets, outputs, sums):
    """``along``, rows times directions, times the Hessian of the loss in the logits; columns are added to ``sums``."""
    for i in range(len(exponentials)):
        row, into = exponentials[i], along[i]
        for m in range(len(offsets) // outputs):
            first = m * outputs
            if outputs == 1:
                share = np.float32(1) / (np.float32(1) + row[m])
                into[m] = (into[m] + offsets[m]) * row[m] * share * share
                sums[m] += into[m]
                continue
            total, mean = np.float32(0), np.float32(0)
            for k in range(first, first + outputs):
                into[k] += offsets[k]
                total += row[k]
                mean += row[k] * into[k]
            scale = np.float32(1) / total
            mean *= scale
            for k in range(first, first + outputs):
                into[k] = row[k] * scale * (into[k] - mean)
                sums[k] += into[k]


def bend(
    logits: np.ndarray, bias: np.ndarray, along: np.ndarray, offsets: np.ndarray, outputs: int, sums: np.ndarray
) -> None:
    """Turn ``along``, rows times directions less ``offsets``, into the loss's Hessian in the logits times it.

    Both (n, models × outputs or more) float32 without ``bias`` and ``offsets`` (models × outputs,); the logits are
    overwritten. Adds its columns to ``sums``.
    """
    _below(logits, bias, outputs)
    np.exp(logits, out=logits)
    _bend(logits, along, offsets, outputs, sums)


@numba.njit("void(float32[:, ::1], float32[::1], int64, int32[:, ::1])", **OPTIONS)
def decide(logits, bias, outputs, classes):
    """The likeliest class (n, models) of each row by each model; with one output, 1 where its logit is above 0."""
    for i in range(len(logits)):
        for m in range(classes.shape[1]):
            first = m * outputs
            if outputs == 1:
                classes[i, m] = logits[i, m] + bias[m] > 0
                continue
            best, most = 0, logits[i, first] + bias[first]
            for k in range(1, outputs):
                value = logits[i, first + k] + bias[first + k]
                if value > most:
                    best, most = k, value
            classes[i, m] = best
