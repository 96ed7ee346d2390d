"""Durations as people say them."""

from __future__ import annotations

# Unit, its seconds, and the least number of it that is told in it.
UNITS = (("years", 31_557_600.0, 1.5), ("d", 86_400.0, 1.5), ("h", 3_600.0, 1.5), ("min", 60.0, 2.0))


def show_seconds(seconds: float) -> str:
    """``90.0`` as ``90 s``, ``5400.0`` as ``1.5 h``."""
    for unit, size, least in UNITS:
        if seconds >= least * size:
            number = seconds / size
            return f"{number:,.0f} {unit}" if number >= 99.5 else f"{number:.2g} {unit}"
    if seconds >= 0.0995:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 5e-4 else "0"
