"""Vectors of 16 floats in LLVM's own terms: what ``skinny_kernel`` and ``thin_kernel`` are built of."""

# mypy: allow-untyped-defs
# No `from __future__ import annotations`: numba reads these functions as they are.
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lazypipe.stats.skinny import HALF, LANES

ROWS = 16  # rows at once, against 16 planes: 16 sums in registers
AHEAD = 16  # rows that are fetched ahead
NEAREST, NEAR = 3, 2  # caches to fetch into

FLOAT, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
BYTES = ir.IntType(8).as_pointer()
ZERO = ir.Constant(VECTOR, [0.0] * LANES)
Values = list[Any]


def constant(n: int) -> Any:
    return ir.Constant(I64, n)


def load(build: Any, address: Any, kind: Any) -> Any:
    value = build.load(build.inttoptr(address, kind.as_pointer()))
    value.align = 4
    return value


def store(build: Any, value: Any, address: Any) -> None:
    build.store(value, build.inttoptr(address, value.type.as_pointer())).align = 4


def declared(build: Any, name: str, kind: Any) -> Any:
    return build.module.globals.get(name) or ir.Function(build.module, kind, name)


def spread(build: Any, number: Any) -> Any:
    """A float in all lanes."""
    first = build.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(I32, 0))
    return build.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def multiply_add(build: Any, a: Any, b: Any, c: Any) -> Any:
    return build.call(declared(build, "llvm.fma.v16f32", ir.FunctionType(VECTOR, [VECTOR] * 3)), [a, b, c])


def fetch(build: Any, address: Any, level: int) -> None:
    kind = ir.FunctionType(ir.VoidType(), [BYTES, I32, I32, I32])
    flags = [ir.Constant(I32, flag) for flag in (0, level, 1)]  # to read, level, data
    build.call(declared(build, "llvm.prefetch.p0", kind), [build.inttoptr(address, BYTES), *flags])


def loop(build: Any, n: Any, sums: Values, body: Callable[[Any, Values], Values]) -> Values:
    """``for i in range(n): sums = body(i, sums)`` with the sums in registers; n > 0."""
    before = build.block
    inside, after = build.append_basic_block("loop"), build.append_basic_block("end")
    build.branch(inside)
    build.position_at_end(inside)
    i = build.phi(I64)
    i.add_incoming(constant(0), before)
    held = []
    for value in sums:
        phi = build.phi(value.type)
        phi.add_incoming(value, before)
        held.append(phi)
    results = body(i, held)
    following = build.add(i, constant(1))
    i.add_incoming(following, build.block)
    for phi, value in zip(held, results, strict=True):
        phi.add_incoming(value, build.block)
    build.cbranch(build.icmp_signed("<", following, n), inside, after)
    build.position_at_end(after)
    return results


@intrinsic
def add_columns_times(context, u, u_row, x, x_row, z, z_row, n):
    """``z[8, 32] += u[n, 8]ᵀ x[n, 32]``; addresses, and the bytes of their rows."""

    def generate(context, build, signature, arguments):
        u, u_row, x, x_row, z, z_row, n = arguments

        def body(i: Any, sums: Values) -> Values:
            row, numbers = build.add(x, build.mul(i, x_row)), build.add(u, build.mul(i, u_row))
            ahead = build.add(row, build.mul(x_row, constant(AHEAD)))
            parts = []
            for k in range(2):
                parts.append(load(build, build.add(row, constant(64 * k)), VECTOR))
                fetch(build, build.add(ahead, constant(64 * k)), NEAREST)
            results = []
            for p in range(HALF):
                number = spread(build, load(build, build.add(numbers, constant(4 * p)), FLOAT))
                results += [multiply_add(build, parts[k], number, sums[2 * p + k]) for k in range(2)]
            return results

        for i, value in enumerate(loop(build, n, [ZERO] * (2 * HALF), body)):
            line = build.add(build.add(z, build.mul(z_row, constant(i // 2))), constant(64 * (i % 2)))
            store(build, build.fadd(load(build, line, VECTOR), value), line)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate
