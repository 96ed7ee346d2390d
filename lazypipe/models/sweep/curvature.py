"""Preconditioners from the losses' own curvature at a point, for what the covariance of the rows does not tell.

Where rows are sure of their class they bend the loss no more: the Hessian is then that of the few rows between the
classes, and unlike the covariance of all of them.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit, softmax

from lazypipe.models.sweep.lbfgs import Precondition
from lazypipe.models.sweep.space import Space, stride

WHOLE_FLOPS = 2e9  # that the Hessian itself may take: some hundredths of a second
ROWS = 8  # rows a parameter of one output that it is found from
ROUNDING = 1e-13


def is_whole(n: int, n_parameters: int) -> bool:
    """Whether the preconditioner of so many rows and parameters is the Hessian itself."""
    return n_parameters**2 * (min(n, ROWS * n_parameters) + n_parameters / 3) <= WHOLE_FLOPS


def preconditioner(
    found: Space, n: int, step: int, point: np.ndarray, penalty: float, n_outputs: int
) -> Precondition | None:
    """About the inverse Hessian at ``point`` (n_directions + 1, outputs), from some of ``n`` rows in blocks
    of ``step``; None if there are too many directions.

    Few parameters: all of it. Many: one matrix for all outputs, rows weighted by the mean of their p (1 - p).
    """
    whole = is_whole(n, point.size)
    blocks = found.turned(stride(n, step, ROWS * (point.size if whole else len(point))))
    if blocks is None:
        return None
    total, n = np.zeros((point.size if whole else len(point),) * 2), 0
    for values in blocks:
        rows = np.hstack([values, np.ones((len(values), 1), values.dtype)])
        shares = _shares(rows @ point.astype(rows.dtype))
        total += _whole(rows, shares) if whole else _mean(rows, shares)
        n += len(values)
    total /= n
    if not np.isfinite(total).all():
        return None
    held = n_outputs if whole else 1  # of the matrix, the intercepts, which are last and not penalised
    diagonal = np.arange(len(total))
    total[diagonal[:-held], diagonal[:-held]] += penalty
    if whole and n_outputs > 1:  # intercepts that move together change nothing
        total[-held:, -held:] += np.trace(total[-held:, -held:]) / held**2
    factor = _factor(total, diagonal)
    return lambda vector: cho_solve(factor, vector.reshape(len(total), -1), check_finite=False).reshape(-1)


def _shares(logits: np.ndarray) -> np.ndarray:
    return expit(logits) if logits.shape[1] == 1 else softmax(logits, axis=1)


def _whole(rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The Hessian of the summed losses, parameters in the order of a flat (n_directions + 1, outputs)."""
    rows, shares = rows.astype(np.float64), shares.astype(np.float64)
    n_outputs = shares.shape[1]
    if n_outputs == 1:
        return (rows * (shares * (1 - shares))).T @ rows
    spread = (rows[:, :, None] * shares[:, None, :]).reshape(len(rows), -1)
    total = -(spread.T @ spread)
    for k in range(n_outputs):
        total[k::n_outputs, k::n_outputs] += (rows * shares[:, k : k + 1]).T @ rows
    return total


def _mean(rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
    weighted = rows * np.sqrt((shares * (1 - shares)).mean(axis=1, keepdims=True))
    return (weighted.T @ weighted).astype(np.float64)


def _factor(total: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky's, with as little more on the diagonal as rounding asks for."""
    most = max(float(total[diagonal, diagonal].max()), np.finfo(float).tiny)
    more = ROUNDING * most
    while True:
        try:
            total[diagonal, diagonal] += more
            return cho_factor(total, check_finite=False)
        except LinAlgError:
            more *= 100


def nbytes(n: int, n_parameters: int, n_outputs: int, n_strengths: int) -> int:
    """Memory of a preconditioner for each strength, and of making one."""
    size = n_parameters if is_whole(n, n_parameters) else n_parameters // n_outputs
    return (40 + 8 * n_strengths) * size**2
