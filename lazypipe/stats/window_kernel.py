"""The loops that add windows of contiguous rows, compiled by numba when they are first called.

Windows of rows are contiguous runs of ``length x n_channels`` values, so all windows of a unit are added tile by
tile: 8,192 sums stay in the caches while eight windows at a time pass through them. Sums of 16-bit integers
are exact in 32 bits as long as the statistic says so, and in 64 after that; floats are added in float64, one
after another in the order of time, whatever the blocks. Slices handed to small functions and explicit casts are
what lets LLVM use vectors: eleven times as fast as indices.
"""

# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np

TILE = 8192  # sums: 32 KiB of int32, as much again of squares
jit = numba.njit(nogil=True, cache=True)


@jit
def owned(first, edges, length, start, stop, low, high):
    """Of each unit the windows whose last row lies in [start, stop): ``first[low[u]:high[u]]``; how many in all."""
    n = 0
    for u in range(len(edges) - 1):
        part = first[edges[u] : edges[u + 1]]
        low[u] = edges[u] + np.searchsorted(part, start - length + 1)
        high[u] = edges[u] + np.searchsorted(part, stop - length + 1)
        n += high[u] - low[u]
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
def _add8(total, a, b, c, d, e, f, g, h):
    for j in range(len(total)):
        total[j] += np.int32(a[j]) + np.int32(b[j]) + np.int32(c[j]) + np.int32(d[j]) + e[j] + f[j] + g[j] + h[j]


@jit
def _add1(total, a):
    for j in range(len(total)):
        total[j] += np.int32(a[j])


@jit
def _add8_squares(total, squares, a, b, c, d, e, f, g, h):
    """Squares modulo 2³²: their sum is known to be less."""
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        t, u, v, w = np.int32(e[j]), np.int32(f[j]), np.int32(g[j]), np.int32(h[j])
        total[j] += np.int32(p + q + r + s + t + u + v + w)
        squares[j] += np.uint32(p * p + q * q + r * r + s * s + t * t + u * u + v * v + w * w)


@jit
def _add8_wide_squares(total, squares, a, b, c, d, e, f, g, h):
    """The same into int64: two squares are 2³¹ at most, four overflow 32 bits."""
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        t, u, v, w = np.int32(e[j]), np.int32(f[j]), np.int32(g[j]), np.int32(h[j])
        total[j] += np.int32(p + q + r + s + t + u + v + w)
        squares[j] += np.int64(np.uint32(p * p + q * q)) + np.int64(np.uint32(r * r + s * s))
        squares[j] += np.int64(np.uint32(t * t + u * u)) + np.int64(np.uint32(v * v + w * w))


@jit
def _add1_squares(total, squares, a):
    for j in range(len(total)):
        p = np.int32(a[j])
        total[j] += p
        squares[j] += np.uint32(p * p)


@jit
def add_integers(x, width, first, row, low, high, total, squares, spread):
    """Add the windows ``first[low[u]:high[u]]`` of each unit, and their squares if ``spread``.

    x (rows x width,) int16, from row ``row`` on, of which windows begin at the rows ``first`` and are n values
    long; total (units, n) int32 or int64; squares (units, n) uint32 or int64.
    """
    n = total.shape[1]
    for u in range(len(low)):
        for at in range(0, n, TILE):
            m = min(n - at, TILE)
            sums = total[u, at : at + m]
            i = low[u]
            while i + 8 <= high[u]:
                a, b = _part(x, width, first[i], row, at, m), _part(x, width, first[i + 1], row, at, m)
                c, d = _part(x, width, first[i + 2], row, at, m), _part(x, width, first[i + 3], row, at, m)
                e, f = _part(x, width, first[i + 4], row, at, m), _part(x, width, first[i + 5], row, at, m)
                g, h = _part(x, width, first[i + 6], row, at, m), _part(x, width, first[i + 7], row, at, m)
                if not spread:
                    _add8(sums, a, b, c, d, e, f, g, h)
                elif squares.itemsize == 4:
                    _add8_squares(sums, squares[u, at : at + m], a, b, c, d, e, f, g, h)
                else:
                    _add8_wide_squares(sums, squares[u, at : at + m], a, b, c, d, e, f, g, h)
                i += 8
            while i < high[u]:
                a = _part(x, width, first[i], row, at, m)
                if spread:
                    _add1_squares(sums, squares[u, at : at + m], a)
                else:
                    _add1(sums, a)
                i += 1


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
def add_floats(x, width, first, row, low, high, shift, total, squares, spread):
    """The same for floats less a shift, in float64: shift (tile,) is that of as many rows as a tile holds."""
    n, tile = total.shape[1], len(shift)
    for u in range(len(low)):
        for at in range(0, n, tile):
            m = min(n - at, tile)
            sums, less = total[u, at : at + m], shift[:m]
            i = low[u]
            while i + 4 <= high[u]:
                a, b = _part(x, width, first[i], row, at, m), _part(x, width, first[i + 1], row, at, m)
                c, d = _part(x, width, first[i + 2], row, at, m), _part(x, width, first[i + 3], row, at, m)
                if spread:
                    _add4_float_squares(sums, squares[u, at : at + m], a, b, c, d, less)
                else:
                    _add4_floats(sums, a, b, c, d, less)
                i += 4
            while i < high[u]:
                a = _part(x, width, first[i], row, at, m)
                if spread:
                    _add1_float_squares(sums, squares[u, at : at + m], a, less)
                else:
                    _add1_float(sums, a, less)
                i += 1
