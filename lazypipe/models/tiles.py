"""A covariance wider than memory: its upper triangle in tiles on disk, each from two column stripes.

A task reads the stripe of its tile row once and those of a few tile columns, and writes a chunk each, while
the next product is under way. A stripe holds every row where memory allows, and is then centred exactly
before the product; else its rows come in blocks about a provisional mean, summed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazypipe.atomic import room_at
from lazypipe.blocks import Block, Run, Span, compute_dtype
from lazypipe.building import SHARED, building, place_of, require_free_or_own
from lazypipe.engines import Engine
from lazypipe.errors import DataError, MemoryPlanError, PlanError
from lazypipe.io import tile_store
from lazypipe.io.matrix import Matrix, Reader
from lazypipe.models.preparation import (
    Preparation,
    Standardised,
    find_moments,
    plan_moments,
    standardise,
    to_plan_with,
    too_little_weight,
)
from lazypipe.models.tiled import TiledCovariance
from lazypipe.operations import Operations, products
from lazypipe.plan import FoldPlan, Host, Plan
from lazypipe.sizes import MIB, show_bytes
from lazypipe.stats.base import accumulate, mirror, require_finite
from lazypipe.stats.centring import Centring
from lazypipe.stats.products import head_shift
from lazypipe.stores import AnyPath
from lazypipe.work import Work

TILES_REMEDY = "or give more memory."
LARGEST_TILE = 5120  # columns: 100 MB of float32, 0.5 s of a core
SMALLEST_TILE = 32
TILES_A_TASK = 4  # that share the stripe of their row
SLAB_ROWS = 1024
ROWS_NBYTES = 64 * MIB  # of a stripe in memory


class TileTask(NamedTuple):
    """Tiles ``[start, stop)`` of tile row ``row``."""

    row: int
    start: int
    stop: int


def plan_tiles(matrix: Matrix, asked: Preparation, host: Host, out: AnyPath) -> Plan:
    """The tiles, tasks and bytes of a covariance on disk. Raises MemoryPlanError, PlanError."""
    n_rows, n = matrix.shape
    if not matrix.reads_columns:
        raise PlanError(
            f"{matrix.uri}: tiles read column stripes, which this file does not offer. Convert it to .npy or "
            f".zarr panels first."
        )
    itemsize = compute_dtype(matrix.dtype).itemsize
    tile = _tile_columns(matrix, host)
    count = -(-n // tile)
    tasks = tile_tasks(count)
    task = _task_nbytes(matrix, tile, host)
    reserved = 16 * n + 24 * n_rows
    if task + reserved > host.memory:
        raise MemoryPlanError(
            f"{matrix.uri}: tiles of {tile} columns need {show_bytes(task)} a task; the budget is "
            f"{show_bytes(host.memory)}."
        )
    n_tiles = count * (count + 1) // 2
    # Of stripes that are held whole, that of the row is read once a task; of others both, once a tile.
    whole = _block_rows(matrix, tile, host) == n_rows
    stripes = sum(1 + t.stop - t.start for t in tasks) if whole else 2 * n_tiles
    output = n_tiles * tile**2 * itemsize + 8 * n
    entries = float(n_tiles) * tile**2
    summed = 0 if n_rows <= SLAB_ROWS else -(-n_rows // SLAB_ROWS)  # products of slabs, in float64
    width = matrix.panel_columns
    read = stripes * tile * n_rows * matrix.dtype.itemsize
    fold = FoldPlan(
        "tiles",
        "columns",
        tile,
        tuple(Run(i, t.start * tile, min(t.stop * tile, n), tile) for i, t in enumerate(tasks)),
        mapped_nbytes=0,
        state_nbytes=0,
        live_states=1,
        task_nbytes=task,
        reserved=reserved,
        concurrency=max(1, min(host.threads, len(tasks), (host.memory - reserved) // task)),
        bytes_read=read,
        shared=host.shared,
        work=Work(
            products(2.0 * n_rows * entries, itemsize).plus(Operations(memory=8.0 * summed * entries)),
            read_nbytes=read,
            pieces=stripes * (n_rows if width is None else -(-tile // width)),
            sent_nbytes=8 * n_rows,
            returned_nbytes=0,
            written_nbytes=output,
        ),
    )
    before = () if asked.plain else (plan_moments(to_plan_with(matrix, asked), asked, host),)
    notes = (f"{n_tiles:,} tiles of {tile:,} x {tile:,} {compute_dtype(matrix.dtype)} in {room_at(out)}",)
    passes = -(-fold.bytes_read // matrix.nbytes) + len(before)
    return Plan(
        "covariance", matrix.uri, matrix.shape, str(matrix.dtype), host, (fold, *before), passes,
        output_nbytes=output, nbytes=matrix.nbytes, notes=notes,
    )  # fmt: skip


def tile_tasks(count: int) -> tuple[TileTask, ...]:
    """The upper triangle of ``count`` x ``count`` tiles, a few tiles of one row a task."""
    return tuple(
        TileTask(i, j, min(j + TILES_A_TASK, count)) for i in range(count) for j in range(i, count, TILES_A_TASK)
    )


def write_tiles(
    matrix: Matrix, ddof: int, asked: Preparation, engine: Engine, plan: Plan, out: AnyPath, overwrite: bool
) -> TiledCovariance:
    """Compute what is missing of the store at ``out``, and move it into place when it is whole.

    Raises DataError where ``out`` exists and not ``overwrite``, where the disk has no room, where the
    store was begun from other data or options, or another run is writing it.
    """
    out = place_of(out)
    kind, attributes_of = "covariance tiles", tile_store.attributes_of
    require_free_or_own(out, overwrite, attributes_of, kind)  # before the pass that finds the moments
    fold, *before = plan.folds
    dtype = compute_dtype(matrix.dtype)
    identity = {
        "source": matrix.uri,
        "fingerprint": matrix.fingerprint(),
        "ddof": ddof,
        "tile": fold.step,
        "dtype": str(dtype),
        **asked.describe(),
    }
    found: Standardised | None = None
    if before:
        found = standardise(matrix, asked, find_moments(matrix, asked, engine, before[0]))
    weight = found.weight if found else float(matrix.shape[0])
    n_rows = matrix.shape[0] - (found.n_omitted if found else 0)
    if not weight > ddof:
        raise DataError(too_little_weight(matrix, matrix.shape[0] - n_rows, weight, ddof))
    n = matrix.shape[1]

    def create(partial: Path) -> None:
        attributes = {**identity, "n_rows": n_rows, "weight": weight, "triangle": "upper"}
        tile_store.create(partial, n, fold.step, dtype, attributes)

    with building(out, overwrite, identity, kind, attributes_of, create, plan.output_nbytes) as partial:
        work = Tiles(
            found.matrix if found else matrix,
            partial,
            fold.step,
            Centring.of(matrix.shape[0], found.weights if found else None),
            asked.center,
            weight - (1 if asked.scale else ddof),  # the scale divides by weight - 1: a correlation
            None if found is None or not asked.center else found.mean,
            _block_rows(matrix, fold.step, engine.host),
        )
        tasks = [task for task in tile_tasks(-(-n // fold.step)) if not work.is_done(task)]
        for _ in engine.map(work, tasks, fold):
            pass
        if not all(map(work.is_done, tasks)):
            raise DataError(f"{partial}: tiles that workers wrote are not there. {SHARED}")
    return TiledCovariance(out)


@dataclass(frozen=True)
class Tiles:
    """A task: the tiles of a TileTask that are not on disk yet."""

    matrix: Matrix
    path: Path
    tile: int
    centring: Centring
    centred: bool
    degrees: float
    known_mean: np.ndarray | None  # (n_columns,), where a pass over the rows found it
    block_rows: int

    def is_done(self, task: TileTask) -> bool:
        """Whether all that the task writes is there."""
        mean = tile_store.is_whole(tile_store.mean_path(self.path, task.row), 8 * self.tile)
        return (mean or not _on_diagonal(task)) and not self._missing(task)

    def _missing(self, task: TileTask) -> list[int]:
        nbytes = self.tile**2 * compute_dtype(self.matrix.dtype).itemsize
        return [
            j
            for j in range(task.start, task.stop)
            if not tile_store.is_whole(tile_store.tile_path(self.path, task.row, j), nbytes)
        ]

    def __call__(self, task: TileTask) -> None:
        missing = self._missing(task)
        with self.matrix.open() as reader, ThreadPoolExecutor(1) as writer:
            if self.block_rows >= self.matrix.shape[0]:
                products = self._from_whole_stripes(reader, task, missing)
            else:
                products = self._from_row_blocks(reader, task, missing)
            writing: Future[None] | None = None
            for j, product in products:
                if writing is not None:
                    writing.result()
                writing = writer.submit(tile_store.write_chunk, tile_store.tile_path(self.path, task.row, j), product)
            if writing is not None:
                writing.result()

    def _from_whole_stripes(self, reader: Reader, task: TileTask, missing: list[int]) -> Iterator[Any]:
        rows = Span(0, self.matrix.shape[0])
        left = self._read(reader, task.row, rows)
        mean = self._mean(left) if _on_diagonal(task) else None
        self._centre(reader, left, task.row, rows)
        if mean is not None:
            self._write_mean(task.row, mean)
        scaled = left / left.dtype.type(self.degrees)
        buffers = [tile_store.aligned((self.tile, self.tile), left.dtype) for _ in range(2)]
        for turn, j in enumerate(missing):
            right = left
            if j != task.row:
                right = self._read(reader, j, rows)
                self._centre(reader, right, j, rows)
            out = buffers[turn % 2]  # the other one is being written
            if right.shape[1] < self.tile or left.shape[1] < self.tile or len(right) > SLAB_ROWS:
                out[:] = 0
                out[: left.shape[1], : right.shape[1]] = _product(scaled, right)
            else:
                np.matmul(scaled.T, right, out=out)
            if j == task.row:
                mirror(out)
            yield j, out

    def _read(self, reader: Reader, i: int, rows: Span) -> np.ndarray:
        """A tile's columns (n_rows, tile)."""
        columns = self._columns(i)
        values = np.empty((len(rows), len(columns)), compute_dtype(self.matrix.dtype))
        reader.read(rows, columns, values)
        return values

    def _mean(self, values: np.ndarray) -> np.ndarray:
        return self.centring.along(values) / self.centring.norm

    def _centre(self, reader: Reader, values: np.ndarray, i: int, rows: Span) -> None:
        """Take the means off what ``_read`` gave, exactly and in its memory, where wanted; refuse NaN and infinity."""
        if self.centred and self.centring.even:
            np.subtract(values, head_shift(values), out=values)
            np.subtract(values, self._mean(values).astype(values.dtype), out=values)
        elif self.centred:
            _less_outer(values, self.centring.null * self.centring.norm, self._mean(values))
        self._require_finite(reader, values, rows, self._columns(i))

    def _require_finite(self, reader: Reader, values: np.ndarray, rows: Span, columns: Span) -> None:
        """As ``stats.base.require_finite``, of values that a mean was taken off: it spreads what is not finite."""
        sums = np.ones(len(values), values.dtype) @ values
        if not np.isfinite(sums).all():
            reader.read(rows, columns, values)
            require_finite(sums, Block(values, rows, columns, self.matrix.uri))

    def _from_row_blocks(self, reader: Reader, task: TileTask, missing: list[int]) -> Iterator[Any]:
        """For more rows than a stripe may hold: each tile sums its row blocks in float64."""
        dtype = compute_dtype(self.matrix.dtype)
        n_rows = self.matrix.shape[0]
        buffers = [tile_store.aligned((self.tile, self.tile), dtype) for _ in range(2)]
        left_columns = self._columns(task.row)
        keeps_mean = _on_diagonal(task)
        for turn, j in enumerate(missing or [task.row]):
            right_columns = self._columns(j)
            total = np.zeros((len(left_columns), len(right_columns)))
            along = [np.zeros(len(left_columns)), np.zeros(len(right_columns))]
            mean = np.zeros(len(left_columns))
            shifts = [np.zeros(0)] * 2
            for start in range(0, n_rows, self.block_rows):
                rows = Span(start, min(start + self.block_rows, n_rows))
                pair = []
                for side, columns in enumerate((left_columns, right_columns)):
                    values = np.empty((len(rows), len(columns)), dtype)
                    reader.read(rows, columns, values)
                    if side == 0 and keeps_mean:
                        mean += self.centring.along(values, start) / self.centring.norm
                    if self.centred and self.centring.even:
                        if start == 0:
                            shifts[side] = head_shift(values)
                        np.subtract(values, shifts[side], out=values)
                    along[side] += self.centring.along(values, start)
                    self._require_finite(reader, values, rows, columns)
                    pair.append(values)
                total += _product(*pair)
            if self.centred:
                for i, row in enumerate(total):
                    row -= along[0][i] * along[1]
            if keeps_mean:
                self._write_mean(task.row, mean)
                keeps_mean = False
            if j not in missing:
                return
            out = buffers[turn % 2]
            out[:] = 0
            out[: total.shape[0], : total.shape[1]] = total / self.degrees
            if j == task.row:
                mirror(out)
            yield j, out

    def _write_mean(self, i: int, mean: np.ndarray) -> None:
        """Of the original columns, from the mean (n,) of what was read."""
        columns = self._columns(i).slice
        if self.known_mean is not None:
            mean = self.known_mean[columns]
        padded = np.zeros(self.tile)
        padded[: len(mean)] = mean
        tile_store.write_chunk(tile_store.mean_path(self.path, i), padded)

    def _columns(self, i: int) -> Span:
        return Span(i * self.tile, min((i + 1) * self.tile, self.matrix.shape[1]))


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``leftᵀ right``; of many rows by slabs, summed in float64: 60,000 rows at once lost 1e-5."""
    product = left[:SLAB_ROWS].T @ right[:SLAB_ROWS]
    for start in range(SLAB_ROWS, len(left), SLAB_ROWS):
        rows = slice(start, start + SLAB_ROWS)
        product = accumulate(product, left[rows].T @ right[rows])
    return product


def _less_outer(values: np.ndarray, along: np.ndarray, mean: np.ndarray) -> None:
    """Take ``along meanᵀ`` off ``values`` (n_rows, n) in its own memory, a few rows at a time: whole it is two more."""
    for start in range(0, len(values), SLAB_ROWS):
        rows = slice(start, start + SLAB_ROWS)
        values[rows] -= np.outer(along[rows], mean).astype(values.dtype)


def _on_diagonal(task: TileTask) -> bool:
    """Whether this is the one task of its row that also writes the means."""
    return task.start == task.row


def _tile_columns(matrix: Matrix, host: Host) -> int:
    """As wide as two tasks fit the budget; an eighth of the columns at most, so that there are tasks."""
    n = matrix.shape[1]
    tile = min(LARGEST_TILE, max(SMALLEST_TILE, -(-n // 8 // SMALLEST_TILE) * SMALLEST_TILE))
    while tile > SMALLEST_TILE and 2 * _task_nbytes(matrix, tile, host) > host.memory - 16 * n:
        tile -= max(SMALLEST_TILE, tile // 16 // SMALLEST_TILE * SMALLEST_TILE)
    return max(tile, SMALLEST_TILE)


def _block_rows(matrix: Matrix, tile: int, host: Host) -> int:
    """Rows of a stripe in memory at once: all of them where a stripe takes little."""
    row_nbytes = tile * compute_dtype(matrix.dtype).itemsize
    if matrix.shape[0] * row_nbytes <= max(ROWS_NBYTES, host.memory // 12):
        return matrix.shape[0]
    return max(1, ROWS_NBYTES // 2 // row_nbytes)


def _task_nbytes(matrix: Matrix, tile: int, host: Host) -> int:
    itemsize = compute_dtype(matrix.dtype).itemsize
    rows = _block_rows(matrix, tile, host)
    stripe = rows * tile * itemsize
    whole = rows == matrix.shape[0]
    # Two tiles in the making and writing, and a temporary at the edge; stripes of the row, scaled, and of the column.
    tiles = tile**2 * (3 * itemsize if matrix.shape[0] <= SLAB_ROWS else 4 * itemsize + 16)
    return tiles + (4 if whole else 2) * stripe + matrix.reader_nbytes(rows, tile)
