"""The picture of a confusion matrix, of whatever classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import NO_VALUE, WIDTH, blank, hatch
from lazypipe.figures.labels import CHARACTER, NAMED, SMALLEST, name_of, short, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTED = 15  # classes of a confusion matrix with counts


def confusion_matrix(
    counts: Any, classes: Sequence[Any], title: str = "Confusions", rows: str = "validation rows"
) -> Figure:
    """Rows of each true class by predicted one, ``counts`` (K, K): colours are shares of the true class.

    Up to 15 classes have their counts written, up to 40 their names. ``rows`` says which rows were counted. ConfigError
    where there are not as many classes as the matrix has.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    counts, n = np.asarray(counts), len(classes)
    if n == 0 or counts.shape != (n, n):
        raise ConfigError(f"confusion_matrix: counts have shape {counts.shape} for {n} classes. Give one (K, K).")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full((n, n), np.nan), where=totals > 0)
    every = math.ceil(n / NAMED)
    names = [name_of(value) for value in classes[::every]]
    wide = CHARACTER * 8 / 72 * max(map(len, names))  # inches
    room = WIDTH - 1.9 - wide
    upright = wide > room / len(names)
    figure = blank(WIDTH, room + 1.2 + (wide if upright else 0.2))
    axes = figure.add_subplot()
    colours = colormaps["Blues"].with_extremes(bad=NO_VALUE)
    # of the square root, or a few per cent of confusions would not be seen beside a diagonal near 1
    image = axes.imshow(shares, aspect="auto", cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    if n <= NAMED:
        hatch(axes, np.isnan(shares))
    if n <= COUNTED:
        written = np.array([[str(count) if count < 10_000 else short(count) for count in row] for row in counts])
        longest = max(map(len, written.flat))
        font = min(9.0, 72 * room / n / ((longest + 0.5) * CHARACTER))
        for y, x in np.argwhere(np.isfinite(shares)):
            colour = "white" if shares[y, x] > 0.4 else "black" if counts[y, x] else "#999999"
            axes.text(x, y, written[y, x], ha="center", va="center", fontsize=font, color=colour)
    font = min(9.0, max(SMALLEST, 60 * room / len(names)))
    axes.set_xticks(range(0, n, every), names, fontsize=font, rotation=90 if upright else 0)
    axes.set_yticks(range(0, n, every), names, fontsize=font)
    axes.spines[:].set_visible(False)
    some = f" (one in {every} named)" if every > 1 else ""
    axes.set_xlabel(f"predicted class{some}")
    axes.set_ylabel(f"true class{some}")
    bar = figure.colorbar(image, ax=axes, pad=0.02, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", "1%", "5%", "10%", "25%", "50%", "75%", "100%"])
    bar.set_label(f"share of the true class's {rows}")
    bar.outline.set_visible(False)
    right, of = int(np.trace(counts)), int(counts.sum())
    said = f"{right:,} of {of:,} {rows} right ({right / max(1, of):.1%})"
    figure.suptitle(titled(title, [said]), fontsize="medium")
    return figure
