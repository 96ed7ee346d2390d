"""What pictures write: names, numbers and titles that can be read, and ticks that find room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SMALLEST = 6.5  # points: some 10 pixels where a picture is 800 wide
CHARACTER = 0.62  # width of a character, in sizes of its font
LONGEST = 18  # characters of a name
NAMED = 40  # rows or columns of a picture that have their names written, at most


def name_of(value: Any, longest: int = LONGEST) -> str:
    """A class or a model as a label: one line, not too long, and not taken for mathematics."""
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def short(size: Any) -> str:
    """A size as a tick says it: 200, 1k, 1.5M."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size >= 0.9995 * unit:
            return f"{size / unit:.3g}{letter}"
    return str(size)


def titled(what: str, notes: Sequence[str]) -> str:
    """A title, and below it what has to be known to read the picture."""
    said = "; ".join(note for note in notes if note)
    return f"{what}\n{said}" if said else what


def size_axis(axes: Any, sizes: np.ndarray, room: float) -> None:
    """A logarithmic axis with ticks at the sizes, as many as find room in so many inches."""
    from matplotlib.ticker import NullLocator

    margin = (sizes[-1] / sizes[0]) ** 0.06 if len(sizes) > 1 else 2
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / margin, sizes[-1] * margin)
    ticks = apart(np.log(sizes), sizes, room)
    axes.set_xticks(sizes[ticks], [short(size) for size in sizes[ticks]])
    axes.xaxis.set_minor_locator(NullLocator())


def apart(places: np.ndarray, sizes: np.ndarray, room: float) -> list[int]:
    """Which labels find room side by side in so many inches: the last, the first, and what fits between."""
    at = room * (places - places[0]) / max(places[-1] - places[0], 1e-9)
    widths = np.array([(len(short(size)) + 1.2) * CHARACTER * 8.3 / 72 for size in sizes])
    kept = [len(sizes) - 1]
    for i in range(len(sizes) - 1):
        if all(abs(at[i] - at[k]) >= (widths[i] + widths[k]) / 2 for k in kept):
            kept.append(i)
    return sorted(kept)
