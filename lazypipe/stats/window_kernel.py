"""The loops that add windows of contiguous rows, compiled by numba when they are first called.

Windows of rows are contiguous runs of ``length x n_channels`` values, so all windows of a unit are added tile by
tile: 4,096 sums stay in the first cache while four windows at a time pass through it. Sums of 16-bit integers
are exact in 32 bits as long as the statistic says so, and in 64 after that; floats are added in float64, one
after another in the order of time, whatever the blocks. Slices handed to small functions and explicit casts are
what lets LLVM use vectors: eleven times as fast as indices.
"""

# No `from __future__ import annotations`: numba reads these functions as they are.
import numba
import numpy as np

TILE = 4096  # sums: 16 KiB of int32
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
def four(first, i, row, width, at):
    """Where in x the tile at ``at`` of four windows begins."""
    return (
        (first[i] - row) * width + at,
        (first[i + 1] - row) * width + at,
        (first[i + 2] - row) * width + at,
        (first[i + 3] - row) * width + at,
    )


@jit
def _add4(total, a, b, c, d):
    for j in range(len(total)):
        total[j] += np.int32(np.int32(a[j]) + np.int32(b[j]) + np.int32(c[j]) + np.int32(d[j]))


@jit
def _add1(total, a):
    for j in range(len(total)):
        total[j] += np.int32(a[j])


@jit
def _add4_squares(total, squares, a, b, c, d):
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        total[j] += np.int32(p + q + r + s)
        squares[j] += np.uint32(p * p + q * q + r * r + s * s)


@jit
def _add4_wide_squares(total, squares, a, b, c, d):
    """The same into int64: two squares are 2³¹ at most, four overflow."""
    for j in range(len(total)):
        p, q, r, s = np.int32(a[j]), np.int32(b[j]), np.int32(c[j]), np.int32(d[j])
        total[j] += np.int32(p + q + r + s)
        squares[j] += np.int64(np.uint32(p * p + q * q)) + np.int64(np.uint32(r * r + s * s))


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
        begin, end = low[u], high[u]
        if begin == end:
            continue
        for at in range(0, n, TILE):
            to = min(n, at + TILE)
            sums = total[u, at:to]
            i = begin
            if spread:
                q = squares[u, at:to]
                while i + 4 <= end:
                    a, b, c, d = four(first, i, row, width, at)
                    xa, xb, xc, xd = x[a : a + len(sums)], x[b : b + len(sums)], x[c : c + len(sums)], x[d : d + len(sums)]
                    if squares.itemsize == 4:
                        _add4_squares(sums, q, xa, xb, xc, xd)
                    else:
                        _add4_wide_squares(sums, q, xa, xb, xc, xd)
                    i += 4
                while i < end:
                    a = (first[i] - row) * width + at
                    _add1_squares(sums, q, x[a : a + len(sums)])
                    i += 1
            else:
                while i + 4 <= end:
                    a, b, c, d = four(first, i, row, width, at)
                    _add4(sums, x[a : a + len(sums)], x[b : b + len(sums)], x[c : c + len(sums)], x[d : d + len(sums)])
                    i += 4
                while i < end:
                    a = (first[i] - row) * width + at
                    _add1(sums, x[a : a + len(sums)])
                    i += 1


@jit
def _add_floats(total, a, b, c, d, shift):
    for j in range(len(total)):
        s = shift[j]
        total[j] = (((total[j] + (a[j] - s)) + (b[j] - s)) + (c[j] - s)) + (d[j] - s)


@jit
def _add_float(total, a, shift):
    for j in range(len(total)):
        total[j] += a[j] - shift[j]


@jit
def _add_floats_squares(total, squares, a, b, c, d, shift):
    for j in range(len(total)):
        s = shift[j]
        p, q, r, t = a[j] - s, b[j] - s, c[j] - s, d[j] - s
        total[j] = (((total[j] + p) + q) + r) + t
        squares[j] = (((squares[j] + p * p) + q * q) + r * r) + t * t


@jit
def _add_float_squares(total, squares, a, shift):
    for j in range(len(total)):
        p = a[j] - shift[j]
        total[j] += p
        squares[j] += p * p


@jit
def add_floats(x, width, first, row, low, high, shift, total, squares, spread):
    """The same for floats less a shift, in float64: shift (tile,) is that of as many rows as a tile holds."""
    n, tile = total.shape[1], len(shift)
    for u in range(len(low)):
        begin, end = low[u], high[u]
        if begin == end:
            continue
        for at in range(0, n, tile):
            to = min(n, at + tile)
            sums, less = total[u, at:to], shift[: to - at]
            i = begin
            if spread:
                q = squares[u, at:to]
                while i + 4 <= end:
                    a, b, c, d = four(first, i, row, width, at)
                    _add_floats_squares(
                        sums, q, x[a : a + len(sums)], x[b : b + len(sums)], x[c : c + len(sums)], x[d : d + len(sums)], less
                    )
                    i += 4
                while i < end:
                    a = (first[i] - row) * width + at
                    _add_float_squares(sums, q, x[a : a + len(sums)], less)
                    i += 1
            else:
                while i + 4 <= end:
                    a, b, c, d = four(first, i, row, width, at)
                    _add_floats(
                        sums, x[a : a + len(sums)], x[b : b + len(sums)], x[c : c + len(sums)], x[d : d + len(sums)], less
                    )
                    i += 4
                while i < end:
                    a = (first[i] - row) * width + at
                    _add_float(sums, x[a : a + len(sums)], less)
                    i += 1
