"""The loops of ``skinny``, compiled when this module is imported and first called: numba, LLVM, AVX-512."""

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
    NEAR,
    ROWS,
    VECTOR,
    Values,
    add_columns_times,
    constant,
    fetch,
    load,
    loop,
    multiply_add,
    spread,
    store,
)

FLUSH_COLUMNS = 256  # whose sums stay in float32
CHUNK_ROWS = 512  # likewise, of the first product


@intrinsic
def _product(context, x, x_row, z, y, w):
    """``y[16, 16] += x[16, w] z[w, 16]``; addresses, and the bytes of a row of x."""

    def generate(context, build, signature, arguments):
        x, x_row, z, y, w = arguments
        places = [build.add(y, constant(4 * LANES * r)) for r in range(ROWS)]
        rows = [build.add(x, build.mul(x_row, constant(r))) for r in range(ROWS)]

        def body(c: Any, sums: Values) -> Values:
            # A line of the next step's columns: 2 lines of 16 rows in 32 turns.
            row = build.mul(x_row, build.lshr(c, constant(1)))
            line = build.mul(build.and_(c, constant(1)), constant(64))
            fetch(build, build.add(build.add(x, row), build.add(line, constant(4 * WIDTH))), NEAR)
            part = load(build, build.add(z, build.mul(c, constant(4 * LANES))), VECTOR)
            at = build.mul(c, constant(4))
            numbers = [spread(build, load(build, build.add(row, at), FLOAT)) for row in rows]
            return [multiply_add(build, number, part, total) for number, total in zip(numbers, sums, strict=True)]

        sums = loop(build, w, [load(build, place, VECTOR) for place in places], body)
        for place, value in zip(places, sums, strict=True):
            store(build, value, place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@numba.njit(
    "void(Array(float32, 2, 'A', readonly=True), float32[:, :, ::1], float64[:, :, ::1])", nogil=True, cache=KEPT
)
def add_gram_product(x, u, out):
    """``out[s] += x (xᵀ u[s])`` for x (n, w), w a multiple of 32, u and out (slabs, n, 16)."""
    n, w = x.shape
    row = x.strides[0]
    x0 = x.ctypes.data
    across = np.empty((LANES, WIDTH), np.float32)  # uᵀ x of a step
    down = np.empty((WIDTH, LANES), np.float32)  # the same, transposed
    sums = np.zeros(u.shape, np.float32)
    for j in range(0, w, WIDTH):
        at = x0 + 4 * j
        for s in range(u.shape[0]):
            u0, y0 = u[s].ctypes.data, sums[s].ctypes.data
            across[:] = 0
            for start in range(0, n, CHUNK_ROWS):
                rows = min(CHUNK_ROWS, n - start)
                for half in range(0, LANES, HALF):
                    here = u0 + 4 * (start * LANES + half)
                    there = across.ctypes.data + 4 * WIDTH * half
                    add_columns_times(here, 4 * LANES, at + start * row, row, there, 4 * WIDTH, rows)
            for c in range(WIDTH):
                for p in range(LANES):
                    down[c, p] = across[p, c]
            whole = n // ROWS * ROWS
            for i in range(0, whole, ROWS):
                _product(at + i * row, row, down.ctypes.data, y0 + 4 * i * LANES, WIDTH)
            for i in range(whole, n):
                for c in range(WIDTH):
                    for p in range(LANES):
                        sums[s, i, p] += x[i, j + c] * down[c, p]
        if (j + WIDTH) % FLUSH_COLUMNS == 0 or j + WIDTH >= w:
            out += sums
            sums[:] = 0
