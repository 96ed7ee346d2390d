"""The loops of ``thin``, compiled when this module is imported: numba, LLVM, AVX-512."""

# No `from __future__ import annotations`: numba reads these functions as they are.
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from lazypipe.stats.skinny_kernel import (
    AHEAD,
    FLOAT,
    HALF,
    LANES,
    NEAREST,
    ROWS,
    VECTOR,
    WIDTH,
    ZERO,
    Values,
    _fetch,
    _load,
    _loop,
    _multiply_add,
    _number,
    _spread,
    _store,
)

CHUNK = 32  # rows whose pages are all at hand


@intrinsic
def _rows_times(context, x, x_row, z, z_row, y, y_row, w):
    """``y[16, 16] = x[16, w] z[w, 16]``; addresses, and the bytes of their rows."""

    def generate(context, build, signature, arguments):
        x, x_row, z, z_row, y, y_row, w = arguments
        rows = [build.add(x, build.mul(x_row, _number(r))) for r in range(ROWS)]

        def body(c: Any, sums: Values) -> Values:
            part = _load(build, build.add(z, build.mul(c, z_row)), VECTOR)
            at = build.mul(c, _number(4))
            numbers = [_spread(build, _load(build, build.add(row, at), FLOAT)) for row in rows]
            return [_multiply_add(build, number, part, total) for number, total in zip(numbers, sums, strict=True)]

        for r, value in enumerate(_loop(build, w, [ZERO] * ROWS, body)):
            _store(build, value, build.add(y, build.mul(y_row, _number(r))))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate


@intrinsic
def _columns_times(context, u, u_row, x, x_row, z, z_row, n):
    """``z[8, 32] += u[n, 8]ᵀ x[n, 32]``; addresses, and the bytes of their rows."""

    def generate(context, build, signature, arguments):
        u, u_row, x, x_row, z, z_row, n = arguments

        def body(i: Any, sums: Values) -> Values:
            row, numbers = build.add(x, build.mul(i, x_row)), build.add(u, build.mul(i, u_row))
            ahead = build.add(row, build.mul(x_row, _number(AHEAD)))
            parts = []
            for k in range(2):
                parts.append(_load(build, build.add(row, _number(64 * k)), VECTOR))
                _fetch(build, build.add(ahead, _number(64 * k)), NEAREST)
            results = []
            for p in range(HALF):
                number = _spread(build, _load(build, build.add(numbers, _number(4 * p)), FLOAT))
                results += [_multiply_add(build, parts[k], number, sums[2 * p + k]) for k in range(2)]
            return results

        for i, value in enumerate(_loop(build, n, [ZERO] * (2 * HALF), body)):
            line = build.add(build.add(z, build.mul(z_row, _number(i // 2))), _number(64 * (i % 2)))
            _store(build, build.fadd(_load(build, line, VECTOR), value), line)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate


@numba.njit("void(Array(float32, 2, 'A', readonly=True), float32[:, ::1], float32[:, ::1])", nogil=True, cache=True)
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


@numba.njit("void(float32[:, ::1], Array(float32, 2, 'A', readonly=True), float32[:, ::1])", nogil=True, cache=True)
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
                _columns_times(u0 + 4 * p, u.strides[0], x0 + 4 * j, x.strides[0], z, out.strides[0], rows)
        if whole < w:
            for p in range(0, len(out), HALF):
                z = last.ctypes.data + p * last.strides[0]
                _columns_times(u0 + 4 * p, u.strides[0], x0 + 4 * (w - WIDTH), x.strides[0], z, last.strides[0], rows)
    if whole < w:
        out[:, whole:] = last[:, WIDTH - (w - whole) :]
