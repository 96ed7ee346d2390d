"""A function of rows, such as what a network says of them, applied to a source by blocks: to an array or to disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

from lazypipe.atomic import replacing, require_replaceable
from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.io.row_store import SUFFIXES, RowStore, is_source, is_store
from lazypipe.nets.device import arithmetic, device_of
from lazypipe.nets.options import Options
from lazypipe.nets.stream import Stream
from lazypipe.sizes import MIB
from lazypipe.stores import AnyPath, path_of

BLOCK_NBYTES = 8 * MIB  # of rows, and of all that is alive at once of what comes of them
MEMORY = 256 * MIB  # of buffers
NPY = ".npy"

Function = Callable[[Tensor], Tensor]  # rows (n, D) to (n, k), on the device


def applied(
    make: Callable[[torch.device], Function],
    matrix: Matrix,
    n_outputs: int,
    alive: int,
    options: Options,
    out: str | Path | None = None,
    overwrite: bool = False,
    memory: int = MEMORY,
) -> np.ndarray | AnyPath:
    """What a function says of all rows (n_rows, n_outputs): an array in float32, or the path that it was written to.

    ``make`` gives the function on a device, which holds at most ``alive`` float32 numbers of each of its rows at once,
    row and outputs included. ``out`` ends in .npy (float32), .zarr or .parquet (float64), and is put in place whole.
    One pass; memory: 8 MiB of what is alive, or one row's where that is more; buffers of ``memory`` bytes at most; and
    the array, or of a .zarr or .parquet a chunk of an eighth of ``memory``, thrice. DataError for an ``out`` of another
    suffix, and for one that exists where it is not to be overwritten.
    """
    # What was trained on a cluster's GPU is applied where there is none, too.
    device = device_of("cpu" if options.device == "cpu" else "auto")
    if out is None:
        found = np.empty((matrix.shape[0], n_outputs), np.float32)
        for rows, values in _blocks(make, matrix, alive, options, device, memory):
            found[rows.slice] = values
        return found
    path = path_of(out)
    if path.suffix not in (NPY, *SUFFIXES):
        raise DataError(f"{path}: cannot write {path.suffix or 'no suffix'!r}. Use {', '.join((NPY, *SUFFIXES))}.")
    if overwrite and is_source(path, matrix):
        raise DataError(f"{path}: is the source itself. Write elsewhere.")
    blocks = _blocks(make, matrix, alive, options, device, memory)
    n_bytes = math.prod((matrix.shape[0], n_outputs, 4 if path.suffix == NPY else 8))
    if path.suffix != NPY:
        require_replaceable(path, overwrite, is_store, "store of scores")
    with replacing(path, overwrite, n_bytes) as partial:
        shape = matrix.shape[0], n_outputs
        if path.suffix == NPY:
            _to_npy(blocks, partial, shape)
        else:
            _to_store(blocks, partial, shape, path.suffix, memory // 8)
    return path


def matched(X: Any, n_columns: int, what: str = "model") -> Matrix:
    """A source of so many columns; DataError for another."""
    matrix = open_matrix(X)
    if matrix.shape[1] != n_columns:
        raise DataError(
            f"{matrix.uri}: {matrix.shape[1]:,} columns, but the {what} has {n_columns:,} inputs. Give rows of the "
            f"columns that it was trained on."
        )
    return matrix


def memory_of(model: object) -> int:
    """For the buffers of a fitted model: half the budget that it was trained under, at most."""
    plan = getattr(model, "plan_", None)
    return MEMORY if plan is None else min(MEMORY, plan.host.memory // 2)


def _blocks(
    make: Callable[[torch.device], Function],
    matrix: Matrix,
    alive: int,
    options: Options,
    device: torch.device,
    memory: int,
) -> Iterator[tuple[Span, np.ndarray]]:
    n = max(1, BLOCK_NBYTES // (4 * alive))
    stream = Stream(
        matrix, None, divide_by=options.divide_by, batch_rows=n, memory=memory, seed=0, device=device, shuffle=False
    )
    with arithmetic(options.matmul_precision, options.threads), closing(stream):
        function = make(device)
        for batch in stream.epoch(0):
            start = batch.index * stream.batch_rows
            yield Span(start, start + len(batch.rows)), function(batch.rows).cpu().numpy()


def _to_npy(blocks: Iterator[tuple[Span, np.ndarray]], partial: Path, shape: tuple[int, int]) -> None:
    with open(partial, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(file, header)
        for _, values in blocks:
            file.write(np.ascontiguousarray(values, "<f4").data)


def _to_store(
    blocks: Iterator[tuple[Span, np.ndarray]], partial: Path, shape: tuple[int, int], suffix: str, chunk_nbytes: int
) -> None:
    chunk = max(1, min(shape[0], chunk_nbytes // (8 * shape[1])))
    store = RowStore(str(partial), suffix, *shape, chunk)
    store.create()
    waiting = np.empty((chunk, shape[1]))
    for rows, values in blocks:
        start = rows.start
        while start < rows.stop:  # a block may end one chunk and begin the next
            first = start // chunk * chunk
            stop = min(first + chunk, rows.stop)
            waiting[start - first : stop - first] = values[start - rows.start : stop - rows.start]
            if stop == first + chunk or stop == shape[0]:
                store.write(Span(first, stop), waiting[: stop - first])
            start = stop
