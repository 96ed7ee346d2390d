"""Operations by what they cost: what statistics and models count, and a model of time weighs."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Operations:
    """Numbers of operations, each kind at a rate of its own (see ``lazypipe.scaling.machine``)."""

    float32: float = 0.0  # floating-point operations of products in float32
    float64: float = 0.0  # and in float64
    thin: float = 0.0  # of float32 with few vectors; in float64 they count twice
    decomposition: float = 0.0  # of eigenvalues and factors, in float64
    additions: float = 0.0  # of the values of windows to their sums
    memory: float = 0.0  # bytes of float64 that are added to others

    def plus(self, other: Operations) -> Operations:
        return Operations(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def times(self, n: float) -> Operations:
        return Operations(*(n * one for one in astuple(self)))


NOTHING = Operations()


def products(n: float, itemsize: int) -> Operations:
    """``n`` floating-point operations of products of numbers of so many bytes."""
    return Operations(float32=n) if itemsize == 4 else Operations(float64=n)


def thin_products(n: float, itemsize: int) -> Operations:
    """The same of products with few vectors, which read more than they multiply."""
    return Operations(thin=n if itemsize == 4 else 2 * n)
