"""The loops that add windows of contiguous rows, compiled by numba when they are first called.

A window of rows is a contiguous run of ``length x width`` values, so all windows of a unit are added tile by tile:
8,192 sums stay in the caches while eight windows at a time pass through them. Sums of 16-bit integers are exact in
32 bits as long as the statistic says so, and in 64 after that; floats are added in float64, one after another in the
order of time, whatever the blocks. Slices handed to small functions let LLVM use vectors, eleven times as fast as
indices; and integers are added and multiplied as 32 bits in LLVM's own terms, for numba makes them 64.
"""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from lazypipe.stats.kept import KEPT

TILE = 8192  # sums: 32 KiB of int32, as much again of squares
jit = numba.njit(nogil=True, cache=KEPT)


@intrinsic
def _plus(context, a, b):
    return types.int32(types.int32, types.int32), lambda context, build, signature, values: build.add(*values)


@intrinsic
def _times(context, a, b):
    return types.int32(types.int32, types.int32), lambda context, build, signature, values: build.mul(*values)


@jit
def _sum(a, b, c, d):
    return _plus(_plus(a, b), _plus(c, d))


@jit
def _squares(a, b):
    return _plus(_times(a, a), _times(b, b))


@jit
def to_panels(rows, panels):
    """The columns of ``rows`` (n, columns) to ``panels`` (n_panels, n, panel), and zeros after the last one."""
    n, n_columns = rows.shape
    n_panels, _, panel = panels.shape
    for r in range(n):
        for p in range(n_columns // panel):
            for c in range(panel):
                panels[p, r, c] = rows[r, p * panel + c]
        for c in range(n_columns, n_panels * panel):
            panels[n_panels - 1, r, c - (n_panels - 1) * panel] = 0
        for c in range(n_columns // panel * panel, n_columns):
            panels[n_panels - 1, r, c - (n_panels - 1) * panel] = rows[r, c]


@jit
def ending(first, low, high, length, start, stop, begin, end):
    """Of the windows ``first[low[u]:high[u]]`` those that end in the rows [start, stop), as begin and end; how many."""
    n = 0
    for u in range(len(low)):
        part = first[low[u] : high[u]]
        begin[u] = low[u] + np.searchsorted(part, start - length + 1)
        end[u] = low[u] + np.searchsorted(part, stop - length + 1)
        n += end[u] - begin[u]
    return n


@jit
def largest(x):
    """The largest |x| of int16 values, as int64."""
    low, high = np.int16(0), np.int16(0)
    for i in range(len(x)):
        low, high = min(low, x[i]), max(high, x[i])
    return max(-np.int64(low), np.int64(high))


@jit
def _part(x, width, first, row, at, n):
    """Values [at, at + n) of the window that begins at the row ``first``."""
    begin = (first - row) * width + at
    return x[begin : begin + n]


@jit
def _add4(total, a, b, c, d):
    for j in range(len(total)):
        total[j] += _sum(np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j]))


@jit
def _add8(total, a, b, c, d, e, f, g, h):
    for j in range(len(total)):
        first = _sum(np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j]))
        second = _sum(np.int32(e[j]), np.int32(f[j]), np.int32(g[j]), np.int32(h[j]))
        total[j] += _plus(first, second)


@jit
def _add4_squares(total, squares, a, b, c, d):
    """Squares modulo 2³²: their sum is known to be less."""
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        total[j] += _sum(p, q, r, s)
        squares[j] += np.uint32(_plus(_squares(p, q), _squares(r, s)))


@jit
def _add8_squares(total, squares, a, b, c, d, e, f, g, h):
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        t, u, v, w = np.int32(e[j]), np.int32(f[j]), np.int32(g[j]), np.int32(h[j])
        total[j] += _plus(_sum(p, q, r, s), _sum(t, u, v, w))
        squares[j] += np.uint32(_sum(_squares(p, q), _squares(r, s), _squares(t, u), _squares(v, w)))


@jit
def _add4_wide_squares(total, squares, a, b, c, d):
    """The same into int64: two squares are 2³¹ at most, four overflow 32 bits."""
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        total[j] += _sum(p, q, r, s)
        squares[j] += np.int64(np.uint32(_squares(p, q))) + np.int64(np.uint32(_squares(r, s)))


@jit
def add_integers(x, width, first, row, low, high, total, squares, spread, place, n):
    """Add the windows ``first[low[u]:high[u]]`` of each unit, and their squares if ``spread``.

    x (rows x width,) int16, from row ``row`` on, of which windows begin at the rows ``first`` and are n values
    long; they go to ``total[:, place : place + n]`` (units, ...) int32 or int64, and to squares, uint32 or int64.
    What is missing to four or eight windows is filled up with zeros: a pass over the sums costs more.
    """
    zeros = np.zeros(TILE, x.dtype)
    wide = spread and squares.itemsize == 8
    for u in range(len(low)):
        for at in range(0, n, TILE):
            m = min(n - at, TILE)
            sums = total[u, place + at : place + at + m]
            q = squares[u, place + at : place + at + m] if spread else squares[u, :0]
            none = zeros[:m]
            i, end = low[u], high[u]
            while i < end:
                a = _part(x, width, first[i], row, at, m)
                b = _part(x, width, first[i + 1], row, at, m) if i + 1 < end else none
                c = _part(x, width, first[i + 2], row, at, m) if i + 2 < end else none
                d = _part(x, width, first[i + 3], row, at, m) if i + 3 < end else none
                if i + 4 >= end or wide:
                    if not spread:
                        _add4(sums, a, b, c, d)
                    elif wide:
                        _add4_wide_squares(sums, q, a, b, c, d)
                    else:
                        _add4_squares(sums, q, a, b, c, d)
                    i += 4
                    continue
                e = _part(x, width, first[i + 4], row, at, m)
                f = _part(x, width, first[i + 5], row, at, m) if i + 5 < end else none
                g = _part(x, width, first[i + 6], row, at, m) if i + 6 < end else none
                h = _part(x, width, first[i + 7], row, at, m) if i + 7 < end else none
                if spread:
                    _add8_squares(sums, q, a, b, c, d, e, f, g, h)
                else:
                    _add8(sums, a, b, c, d, e, f, g, h)
                i += 8


@jit
def _add4_floats(total, a, b, c, d, shift):
    for j in range(len(total)):
        s = shift[j]
        total[j] = (((total[j] + (a[j] - s)) + (b[j] - s)) + (c[j] - s)) + (d[j] - s)


@jit
def _add1_float(total, a, shift):
    for j in range(len(total)):
        total[j] += a[j] - shift[j]


@jit
def _add4_float_squares(total, squares, a, b, c, d, shift):
    for j in range(len(total)):
        s = shift[j]
        p, q, r, t = a[j] - s, b[j] - s, c[j] - s, d[j] - s
        total[j] = (((total[j] + p) + q) + r) + t
        squares[j] = (((squares[j] + p * p) + q * q) + r * r) + t * t


@jit
def _add1_float_squares(total, squares, a, shift):
    for j in range(len(total)):
        p = a[j] - shift[j]
        total[j] += p
        squares[j] += p * p


@jit
def add_floats(x, width, first, row, low, high, total, squares, spread, place, n, shift):
    """The same for floats less a shift, in float64: shift (tile,) is that of as many rows as a tile holds."""
    tile = len(shift)
    for u in range(len(low)):
        for at in range(0, n, tile):
            m = min(n - at, tile)
            sums, less = total[u, place + at : place + at + m], shift[:m]
            i = low[u]
            while i + 4 <= high[u]:
                a, b = _part(x, width, first[i], row, at, m), _part(x, width, first[i + 1], row, at, m)
                c, d = _part(x, width, first[i + 2], row, at, m), _part(x, width, first[i + 3], row, at, m)
                if spread:
                    _add4_float_squares(sums, squares[u, place + at : place + at + m], a, b, c, d, less)
                else:
                    _add4_floats(sums, a, b, c, d, less)
                i += 4
            while i < high[u]:
                a = _part(x, width, first[i], row, at, m)
                if spread:
                    _add1_float_squares(sums, squares[u, place + at : place + at + m], a, less)
                else:
                    _add1_float(sums, a, less)
                i += 1
