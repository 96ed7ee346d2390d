"""Pictures of what a network sees and makes: filters of its first layer, reconstructions, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.figures.canvas import DIVERGING, NO_VALUE, WIDTH, blank
from lazypipe.figures.images import Shape, bar, filled, rows_of, square, thinned
from lazypipe.figures.labels import NAMED, name_of, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILTERS = 100
SAMPLES = 100
PAIRS = 30  # images of a group
COLUMNS = 10
WIDEST = 1000  # columns of filters that are no images


def filters(weights: Any, shape: Shape | None = None, common_scale: bool = False) -> Figure:
    """Weights (H, D) of each hidden unit as an image, the 100 of largest norm, in that order.

    Colours reach to the largest absolute weight of the unit, or, with ``common_scale``, of all that are drawn; white
    is 0. ``shape`` (height, width) of an image; without it a square where D is one, else a line of a heat map a unit.
    Reads the weights twice, and copies those that are drawn. ConfigError for a shape that D entries do not fill.
    """
    from matplotlib import colormaps

    weights = rows_of("filters", weights)
    n_units, n_inputs = weights.shape
    shape = square(n_inputs) if shape is None else filled("filters", shape, n_inputs)
    norms = np.sqrt(np.einsum("ij,ij->i", weights, weights, dtype=np.float64))
    shown = np.argsort(-np.nan_to_num(norms, nan=-1.0), kind="stable")[:FILTERS]
    drawn = np.asarray(weights[shown], np.float64)
    reach = np.max(np.abs(drawn), axis=1, initial=0.0, where=np.isfinite(drawn))
    if common_scale:
        told, limit = "weight", float(reach.max()) or 1.0
    else:
        told, limit = "weight, as a share\nof the unit's largest", 1.0
        drawn /= np.where(reach > 0, reach, 1.0)[:, None]
    options = {"cmap": colormaps[DIVERGING].with_extremes(bad=NO_VALUE), "vmin": -limit, "vmax": limit}
    some = f"the {len(shown)} of {n_units:,} hidden units of largest norm, largest first"
    some = some if len(shown) < n_units else f"{n_units:,} hidden units, largest norm first"
    if shape is None:
        figure, axes, image = _lines(drawn, n_inputs, shown, options)
    else:
        figure, axes, image = _mosaic(drawn.reshape(-1, 1, *shape), _n_columns(len(shown)), options)
    bar(figure, axes, image, told)
    figure.suptitle(titled("Weights from the inputs", [some]), fontsize="medium")
    return figure


def image_rows(groups: Mapping[str, Any], shape: Shape | None = None, title: str = "Reconstructions") -> Figure:
    """Images of several groups below each other: originals, their reconstructions, those of another method.

    ``groups`` maps a name to images (n, D), the same n everywhere; the first 30 are drawn. Greys are those of the first
    group, from its lowest to its highest value; what goes beyond is black or white. ConfigError for groups of
    different sizes, and for a ``shape`` (height, width) that D entries do not fill.
    """
    arrays = {name: rows_of("image_rows", images) for name, images in groups.items()}
    if not arrays or len({images.shape for images in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {images.shape}" for name, images in arrays.items())
        raise ConfigError(f"image_rows: groups are {shapes or 'none'}. Give images (n, D) of one shape.")
    n, n_entries = next(iter(arrays.values())).shape
    shape = filled("image_rows", shape, n_entries)
    shown = min(n, PAIRS)
    images = np.stack([np.asarray(of_group[:shown], np.float64) for of_group in arrays.values()], axis=1)
    options = _greys(images[:, 0])
    names = [name_of(name) for name in arrays]
    figure, axes, image = _mosaic(images.reshape(shown, len(names), *shape), min(COLUMNS, shown), options, names)
    bar(figure, axes, image, "value")
    some = f"{shown} of {n:,}" if shown < n else ""
    figure.suptitle(titled(title, [some]), fontsize="medium")
    return figure


def samples(images: Any, shape: Shape | None = None, title: str = "Samples") -> Figure:
    """Images (n, D) in a grid, the first 100; greys go from the lowest to the highest value of them all."""
    images = rows_of("samples", images)
    n, n_entries = images.shape
    shape = filled("samples", shape, n_entries)
    drawn = np.asarray(images[:SAMPLES], np.float64)
    figure, axes, image = _mosaic(drawn.reshape(-1, 1, *shape), _n_columns(len(drawn)), _greys(drawn))
    bar(figure, axes, image, "value")
    some = f"{len(drawn)} of {n:,}" if len(drawn) < n else ""
    figure.suptitle(titled(title, [some]), fontsize="medium")
    return figure


def _n_columns(n: int) -> int:
    """Of a grid that is no higher than wide, such that the last row is as full as can be."""
    least = min(math.ceil(math.sqrt(n)), COLUMNS)
    return min(range(least, COLUMNS + 1), key=lambda columns: (-n % columns, columns))


def _greys(values: np.ndarray) -> dict[str, Any]:
    from matplotlib import colormaps

    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    return {"cmap": colormaps["gray"].with_extremes(bad=NO_VALUE), "vmin": low, "vmax": high if high > low else low + 1}


def _mosaic(
    images: np.ndarray, n_columns: int, options: dict[str, Any], names: list[str] | None = None
) -> tuple[Figure, Any, Any]:
    """Images (n, groups, height, width) as one picture: bands of ``n_columns``, each band a line a group.

    One picture, and not an axes each: a hundred axes take seconds to lay out.
    """
    images = thinned(images)
    n, n_groups, height, width = images.shape
    n_bands = -(-n // n_columns)
    gap = max(1, round(0.07 * max(height, width)))
    between = gap if n_groups == 1 else 3 * gap  # of bands
    deep = n_groups * (height + gap) - gap + between
    canvas = np.full((n_bands * deep - between, n_columns * (width + gap) - gap), np.nan)
    outside = np.ones(canvas.shape, bool)  # white, as what is missing within an image is not
    for i, group in np.ndindex(n, n_groups):
        band, column = divmod(i, n_columns)
        top, left = band * deep + group * (height + gap), column * (width + gap)
        place = slice(top, top + height), slice(left, left + width)
        canvas[place], outside[place] = images[i, group], False
    wide = min(WIDTH - 1.2 - (1.1 if names else 0.0), 0.62 * n_columns * max(1.0, width / height) + 0.5)
    tall = wide * canvas.shape[0] / canvas.shape[1]
    if tall > 8.5:
        wide, tall = wide * 8.5 / tall, 8.5
    figure = blank(max(4.0, wide + 1.2 + (1.2 if names else 0.0)), max(2.4, tall + 0.7))
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    image = axes.imshow(canvas, interpolation="nearest", **options)
    axes.imshow(np.where(outside[..., None], 1.0, np.zeros(4)), interpolation="nearest")
    axes.set_xticks([])
    if names:
        middles = [b * deep + g * (height + gap) + (height - 1) / 2 for b in range(n_bands) for g in range(n_groups)]
        axes.set_yticks(middles, names * n_bands, fontsize="small")
        axes.tick_params(length=0)
    else:
        axes.set_yticks([])
    return figure, axes, image


def _lines(drawn: np.ndarray, n_inputs: int, shown: np.ndarray, options: dict[str, Any]) -> tuple[Figure, Any, Any]:
    """A heat map, a line a unit; of very many inputs the largest of each run of neighbours is drawn."""
    each = -(-n_inputs // WIDEST)
    if each > 1:
        starts = np.arange(0, n_inputs, each)
        high, low = np.maximum.reduceat(drawn, starts, axis=1), np.minimum.reduceat(drawn, starts, axis=1)
        drawn = np.where(high >= -low, high, low)
    figure = blank(WIDTH, min(8.0, max(2.4, 1.2 + 0.17 * len(drawn))))
    axes: Any = figure.add_subplot()
    extent = (-0.5, n_inputs - 0.5, len(drawn) - 0.5, -0.5)
    image = axes.imshow(drawn, aspect="auto", extent=extent, interpolation="nearest", **options)
    every = math.ceil(len(shown) / NAMED)
    axes.set_yticks(range(0, len(shown), every), [str(unit) for unit in shown[::every]], fontsize="x-small")
    axes.set_ylabel("hidden unit" + (f" (one in {every} named)" if every > 1 else ""))
    axes.set_xlabel("input" + (f" (largest weight of each {each:,} neighbours)" if each > 1 else ""))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[:].set_visible(False)
    return figure, axes, image
