"""The loops of a step over a mini-batch that are no products, compiled by numba when they are first called."""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np

from lazypipe.stats.kept import KEPT

jit = numba.njit(nogil=True, cache=KEPT)
ZERO = np.float32(0)
SLIGHT = np.float32(1e-30)  # a weight below it becomes 0: denormal numbers are slow


@jit
def _copy(source, target):
    for j in range(len(target)):
        target[j] = source[j]


@jit
def gather(rows, targets, order, to_rows, to_targets):
    """The rows and targets at ``order`` (n,), to (n, D) and (n,)."""
    for i in range(len(order)):
        _copy(rows[order[i]], to_rows[i])
        to_targets[i] = targets[order[i]]


@jit
def _descend(weights, gradient, rate, shrink):
    for j in range(len(weights)):
        weight = (weights[j] - rate * gradient[j]) * shrink
        weights[j] = ZERO if abs(weight) < SLIGHT else weight


@jit
def descend(weights, gradient, rate, shrink):
    """``(weights - rate gradient) shrink`` in place: weights (outputs, D), shrink (outputs,), all float32."""
    for k in range(len(weights)):
        _descend(weights[k], gradient[k], rate, shrink[k])
