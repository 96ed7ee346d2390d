"""The loops of ``skinny``, compiled when this module is imported and first called: numba, LLVM, AVX-512."""

# No `from __future__ import annotations`: numba reads these functions as they are.
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES, WIDTH, FLUSH_COLUMNS, CHUNK_ROWS = 16, 32, 256, 512  # as in skinny
HALF = 8  # vectors of u at once in the first product: 8 x 2 sums in registers
ROWS = 16  # rows at once in the second product: 16 sums in registers
AHEAD = 16  # rows that are fetched ahead
NEAREST, NEAR = 3, 2  # caches to fetch into

FLOAT, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
BYTES = ir.IntType(8).as_pointer()
ZERO = ir.Constant(VECTOR, [0.0] * LANES)
Values = list[Any]


def _number(n: int) -> Any:
    return ir.Constant(I64, n)


def _load(build: Any, address: Any, kind: Any) -> Any:
    value = build.load(build.inttoptr(address, kind.as_pointer()))
    value.align = 4
    return value


def _store(build: Any, value: Any, address: Any) -> None:
    build.store(value, build.inttoptr(address, value.type.as_pointer())).align = 4


def _declared(build: Any, name: str, kind: Any) -> Any:
    return build.module.globals.get(name) or ir.Function(build.module, kind, name)


def _spread(build: Any, number: Any) -> Any:
    """A float in all lanes."""
    first = build.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(I32, 0))
    return build.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def _multiply_add(build: Any, a: Any, b: Any, c: Any) -> Any:
    return build.call(_declared(build, "llvm.fma.v16f32", ir.FunctionType(VECTOR, [VECTOR] * 3)), [a, b, c])


def _fetch(build: Any, address: Any, level: int) -> None:
    kind = ir.FunctionType(ir.VoidType(), [BYTES, I32, I32, I32])
    flags = [ir.Constant(I32, flag) for flag in (0, level, 1)]  # to read, level, data
    build.call(_declared(build, "llvm.prefetch.p0", kind), [build.inttoptr(address, BYTES), *flags])


def _loop(build: Any, n: Any, sums: Values, body: Callable[[Any, Values], Values]) -> Values:
    """``for i in range(n): sums = body(i, sums)`` with the sums in registers; n > 0."""
    before = build.block
    inside, after = build.append_basic_block("loop"), build.append_basic_block("end")
    build.branch(inside)
    build.position_at_end(inside)
    i = build.phi(I64)
    i.add_incoming(_number(0), before)
    held = []
    for value in sums:
        phi = build.phi(value.type)
        phi.add_incoming(value, before)
        held.append(phi)
    results = body(i, held)
    following = build.add(i, _number(1))
    i.add_incoming(following, build.block)
    for phi, value in zip(held, results, strict=True):
        phi.add_incoming(value, build.block)
    build.cbranch(build.icmp_signed("<", following, n), inside, after)
    build.position_at_end(after)
    return results


@intrinsic
def _adjoint(context, x, x_row, u, z, n):
    """``z[8, 32] += u[n, 8]ᵀ x[n, 32]``; addresses, the bytes of a row of x; rows of u are 16 floats."""

    def generate(context, build, signature, arguments):
        x, x_row, u, z, n = arguments
        places = [build.add(z, _number(4 * (WIDTH * p + LANES * k))) for p in range(HALF) for k in range(2)]

        def body(i: Any, sums: Values) -> Values:
            row = build.add(x, build.mul(i, x_row))
            numbers = build.add(u, build.mul(i, _number(4 * LANES)))
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

        sums = _loop(build, n, [ZERO] * (2 * HALF), body)
        for place, value in zip(places, sums, strict=True):
            _store(build, build.fadd(_load(build, place, VECTOR), value), place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@intrinsic
def _product(context, x, x_row, z, y, w):
    """``y[16, 16] += x[16, w] z[w, 16]``; addresses, and the bytes of a row of x."""

    def generate(context, build, signature, arguments):
        x, x_row, z, y, w = arguments
        places = [build.add(y, _number(4 * LANES * r)) for r in range(ROWS)]
        rows = [build.add(x, build.mul(x_row, _number(r))) for r in range(ROWS)]

        def body(c: Any, sums: Values) -> Values:
            # A line of the next step's columns: 2 lines of 16 rows in 32 turns.
            row = build.mul(x_row, build.lshr(c, _number(1)))
            line = build.mul(build.and_(c, _number(1)), _number(64))
            _fetch(build, build.add(build.add(x, row), build.add(line, _number(4 * WIDTH))), NEAR)
            part = _load(build, build.add(z, build.mul(c, _number(4 * LANES))), VECTOR)
            at = build.mul(c, _number(4))
            numbers = [_spread(build, _load(build, build.add(row, at), FLOAT)) for row in rows]
            return [_multiply_add(build, number, part, total) for number, total in zip(numbers, sums, strict=True)]

        sums = _loop(build, w, [_load(build, place, VECTOR) for place in places], body)
        for place, value in zip(places, sums, strict=True):
            _store(build, value, place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@numba.njit(
    "void(Array(float32, 2, 'A', readonly=True), float32[:, :, ::1], float64[:, :, ::1])", nogil=True, cache=True
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
                    _adjoint(at + start * row, row, here, across.ctypes.data + 4 * WIDTH * half, rows)
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
