"""What pictures of images share: rows as images, large ones thinned, and the bar of their colours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 160  # pixels of an image beyond which means of neighbours are drawn
Shape = tuple[int, int]


def rows_of(what: str, values: Any) -> np.ndarray:
    """An array of two axes, neither of them empty; ConfigError for any other, by the name of the picture."""
    rows = np.asarray(values)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ConfigError(f"{what}: needs an array of two axes, a row each; this one has shape {rows.shape}.")
    return rows


def square(n: int) -> Shape | None:
    """The square that so many entries fill, if there is one."""
    side = math.isqrt(n)
    return (side, side) if side * side == n and side > 1 else None


def filled(what: str, shape: Any, n: int) -> Shape:
    """``shape`` (height, width), else the square, that ``n`` entries fill; ConfigError where they do not."""
    shape = square(n) or (0, 0) if shape is None else shape
    if len(shape) != 2 or shape[0] * shape[1] != n:
        raise ConfigError(f"{what}: {n:,} entries are no image of that shape. Give (height, width) of product {n:,}.")
    return int(shape[0]), int(shape[1])


def thinned(images: np.ndarray) -> np.ndarray:
    """Large images (..., height, width) as means of squares of pixels, so that none has more than 160 a side."""
    each = -(-max(images.shape[-2:]) // SIDE)
    if each == 1:
        return images
    for axis in (-2, -1):
        starts = np.arange(0, images.shape[axis], each)
        lengths = np.diff(np.r_[starts, images.shape[axis]])
        lengths = lengths[:, None] if axis == -2 else lengths
        images = np.add.reduceat(images, starts, axis=axis) / lengths
    return images


def bar(figure: Figure, axes: Any, image: Any, told: str) -> None:
    """The colours of an image, beside one axes or many, and what they stand for."""
    drawn = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, aspect=25)
    drawn.set_label(told, fontsize="small")
    drawn.ax.tick_params(labelsize="small")
    drawn.outline.set_visible(False)
