"""A matrix that is not there, to plan for: a shape, a dtype, and how it would lie on disk."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.io.sources import checked_dtype, checked_shape

Layout = Literal["rows", "panels"]
URI = "<on paper>"


def matrix_on_paper(shape: tuple[int, int], dtype: str, layout: Layout = "rows", memory: int | None = None) -> Matrix:
    """As a .npy file of rows, or as the .zarr panels that ``convert`` would make of it with that ``memory``.

    Raises DataError for a shape or dtype that no matrix has, MemoryPlanError where a panel does not fit.
    """
    kind = checked_dtype(np.dtype(dtype), URI)
    matrix = RawRowsMatrix(URI, checked_shape(shape, URI), kind.str, segments=())
    if layout == "rows":
        return matrix
    from lazypipe.io.panels import PANEL_NBYTES, panel_width  # loads zarr
    from lazypipe.io.raw_chunks import RawChunks
    from lazypipe.io.zarr import ZarrMatrix

    chunks = shape[0], panel_width(matrix, None, memory or PANEL_NBYTES)
    raw = RawChunks(URI, "c/{}/{}", kind.str, matrix.shape, chunks, None)
    return ZarrMatrix(URI, matrix.shape, kind.name, "", chunks, raw)
