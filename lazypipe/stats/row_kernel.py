"""One loop over the entries of rows on their way to a model, compiled."""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np

from lazypipe.stats.kept import KEPT

SIGNATURES = [
    f"boolean(Array({kind}, 2, 'C', readonly=True), {kind}, Array({kind}, 1, 'C', readonly=True), float32[:, ::1])"
    for kind in ("float32", "float64")
]


@numba.njit(SIGNATURES, nogil=True, cache=KEPT, fastmath={"reassoc"}, error_model="numpy")
def prepare(raw, divide_by, shift, out):
    """``out = raw / divide_by - shift``, in the dtype of ``raw`` and then float32; whether all of it is finite."""
    trace = np.float32(0)
    for i in range(len(raw)):
        row, into = raw[i], out[i]
        for j in range(len(row)):
            value = np.float32(row[j] / divide_by - shift[j])
            into[j] = value
            trace += value * np.float32(0)  # NaN where the value is not finite
    return trace == 0
