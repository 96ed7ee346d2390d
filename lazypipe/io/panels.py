"""Panels: a Zarr array whose chunks hold every row, so that each column stripe is contiguous on disk.

Iterated passes over column stripes read a panel in one piece, where a file of rows is read in pieces of 4 to
32 KiB, and so depends on how well the disk or the network file system reads ahead. Uncompressed, in
little-endian order, with no shards: any Zarr reader opens it. Measured in benchmarks/panels.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr

from lazypipe.atomic import sync
from lazypipe.blocks import Span, apart
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io.convert import write_whole
from lazypipe.io.matrix import Matrix
from lazypipe.io.zarr import WHOLE, open_source
from lazypipe.sizes import MIB

PANEL_NBYTES = 32 * MIB  # a block: of 8 MiB, mapping them took a fifth of a pass
LEAST_COLUMNS = 16  # 64 bytes of float32: a line of the cache


def panel_width(matrix: Matrix, asked: int | None, memory: int) -> int:
    """Columns a panel: as ``asked``, else about 32 MiB of them (less where ``memory`` is), 16 at least.

    Raises DataError for a width that is no width; MemoryPlanError where a panel does not fit ``memory``.
    """
    n_rows, n_columns = matrix.shape
    if asked is not None and asked < 1:
        raise DataError(f"{matrix.uri}: panel_columns={asked} is no width. Give 1 or more, or leave it out.")
    column_nbytes = n_rows * matrix.dtype.itemsize
    width = min(asked or max(LEAST_COLUMNS, apart(min(PANEL_NBYTES, memory) // column_nbytes)), n_columns)
    if width * column_nbytes > memory:
        remedy = "Raise memory, or write .npy, which suits tall matrices" if asked is None else "Lower panel_columns"
        raise MemoryPlanError(
            f"{matrix.uri}: a panel of {width:,} columns x {n_rows:,} rows takes {width * column_nbytes:,} bytes, "
            f"memory is {memory:,}. {remedy}."
        )
    return width


def write_panels(path: Path, matrix: Matrix, blocks: Iterator[np.ndarray], width: int) -> None:
    """Write row blocks (rows, n_columns), in order, to a Zarr array at ``path`` in panels of ``width``.

    Holds one block's share of a panel. Each file is given its whole length first, so that its bytes lie
    together though they come block by block, and is open only while it is written: there may be thousands.
    """
    n_rows, n_columns = matrix.shape
    zarr.create_array(
        path, shape=matrix.shape, chunks=(n_rows, width), dtype=matrix.dtype, zarr_format=3, compressors=None,
        filters=None, fill_value=0, attributes={WHOLE: True},
    )  # fmt: skip
    layout = open_source(path, None).raw
    assert layout is not None
    panels = [(layout.path(0, j), Span(start, start + width)) for j, start in enumerate(range(0, n_columns, width))]
    os.makedirs(os.path.dirname(layout.path(0, 0)))
    for file, _ in panels:
        with open(file, "xb") as created:
            _allocate(created.fileno(), layout.chunk_nbytes)
    pieces = np.zeros((0, width), layout.stored)
    first = 0
    for block in blocks:
        if len(pieces) < len(block):
            pieces = np.zeros((len(block), width), layout.stored)
        for file, columns in panels:
            piece, values = pieces[: len(block)], block[:, columns.slice]
            piece[:, : values.shape[1]] = values
            piece[:, values.shape[1] :] = 0  # the last panel is padded
            with open(file, "r+b", buffering=0) as opened:
                write_whole(opened.fileno(), piece, first * width * piece.itemsize)
        first += len(block)
    for file, _ in panels:
        sync(file)
    for folder in (os.path.dirname(panels[0][0]), path):
        sync(folder)


def _allocate(descriptor: int, n_bytes: int) -> None:
    """Reserve the bytes of a file, in one extent where the file system can; elsewhere only set its length."""
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except (AttributeError, OSError) as error:  # AttributeError: macOS
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, n_bytes)
