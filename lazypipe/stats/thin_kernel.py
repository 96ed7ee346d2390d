"""The loops of ``thin``, compiled when this module is imported: numba, LLVM, AVX-512."""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from lazypipe.stats.kept import KEPT
from lazypipe.stats.skinny import HALF, LANES, WIDTH
from lazypipe.stats.vectors import (
    FLOAT,
    ROWS,
    VECTOR,
    ZERO,
    Values,
    add_columns_times,
    constant,
    load,
    loop,
    multiply_add,
    spread,
    store,
)

CHUNK = 32  # rows whose pages are all at hand


@intrinsic
def _rows_times(context, x, x_row, z, z_row, y, y_row, w):
    """``y[16, 16] = x[16, w] z[w, 16]``; addresses, and the bytes of their rows."""

    def generate(context, build, signature, arguments):
        x, x_row, z, z_row, y, y_row, w = arguments
        rows = [build.add(x, build.mul(x_row, constant(r))) for r in range(ROWS)]

        def body(c: Any, sums: Values) -> Values:
            part = load(build, build.add(z, build.mul(c, z_row)), VECTOR)
            at = build.mul(c, constant(4))
            numbers = [spread(build, load(build, build.add(row, at), FLOAT)) for row in rows]
            return [multiply_add(build, number, part, total) for number, total in zip(numbers, sums, strict=True)]

        for r, value in enumerate(loop(build, w, [ZERO] * ROWS, body)):
            store(build, value, build.add(y, build.mul(y_row, constant(r))))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate


@numba.njit("void(Array(float32, 2, 'A', readonly=True), float32[:, ::1], float32[:, ::1])", nogil=True, cache=KEPT)
def rows_times(x, planes, out):
    """``out = x planes``: x (n, w), planes (w, p), out (n, p); n 16 or more, p a multiple of 16."""
    n, w = x.shape
    x_row, z_row = x.strides[0], planes.strides[0]
    i = 0
    while i < n:
        i = min(i, n - ROWS)  # the last rows may be computed twice, to the same bits
        for p in range(0, planes.shape[1], LANES):
            _rows_times(
                x.ctypes.data + i * x_row, x_row, planes.ctypes.data + 4 * p, z_row,
                out.ctypes.data + i * z_row + 4 * p, z_row, w,
            )  # fmt: skip
        i += ROWS


@numba.njit("void(float32[:, ::1], Array(float32, 2, 'A', readonly=True), float32[:, ::1])", nogil=True, cache=KEPT)
def columns_times(u, x, out):
    """``out = u[:, :p]ᵀ x``: u (n, 16 k), x (n, w), out (p, w); p a multiple of 8, w 32 or more."""
    n, w = x.shape
    whole = w // WIDTH * WIDTH
    last = np.zeros((len(out), WIDTH), np.float32)  # of the last 32 columns, where no step ends with them
    out[:] = 0
    for i in range(0, n, CHUNK):  # rows that lie on few pages
        rows = min(CHUNK, n - i)
        x0, u0 = x.ctypes.data + i * x.strides[0], u.ctypes.data + i * u.strides[0]
        for j in range(0, whole, WIDTH):
            for p in range(0, len(out), HALF):
                z = out.ctypes.data + p * out.strides[0] + 4 * j
                add_columns_times(u0 + 4 * p, u.strides[0], x0 + 4 * j, x.strides[0], z, out.strides[0], rows)
        if whole < w:
            for p in range(0, len(out), HALF):
                z = last.ctypes.data + p * last.strides[0]
                add_columns_times(
                    u0 + 4 * p, u.strides[0], x0 + 4 * (w - WIDTH), x.strides[0], z, last.strides[0], rows
                )
    if whole < w:
        out[:, whole:] = last[:, WIDTH - (w - whole) :]
