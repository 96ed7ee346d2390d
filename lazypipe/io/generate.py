"""A matrix of any size with known principal components, written to .npy by tiles.

X = 1 mean' + sqrt(n - 1) U diag(sqrt(lambda)) V' + noise Z, where U (n, r) holds cosines (DCT-II, without
the constant) with permuted rows: orthonormal columns of mean zero; and V (D, r) cosines with a random sign
a row: orthonormal too, and computed for any range of columns alone. Without noise the sample covariance
(ddof=1) thus has exactly the eigenvalues lambda and the eigenvectors V, to rounding.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from lazypipe.atomic import replacing
from lazypipe.errors import DataError
from lazypipe.io.convert import HEADER_NBYTES, npy_header, write_whole
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.stores import AnyPath, path_of

TILE_ROWS, TILE_COLUMNS = 256, 16384  # what one seed draws; part of the definition of the data
TASK_TILES = 16  # tiles of one column of tiles that a task writes, sharing their V
PERMUTATION, COLUMNS, NOISE = 0, 1, 2  # what a seed is for


@dataclass(frozen=True)
class _Recipe:
    n_rows: int
    n_columns: int
    variances: np.ndarray  # (rank,), descending
    mean: float
    noise: float
    dtype: np.dtype
    seed: int

    @property
    def computed(self) -> np.dtype:
        return np.dtype(np.float64 if self.dtype == np.float64 else np.float32)

    def random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, *key])))

    def scores(self, permuted: np.ndarray) -> np.ndarray:
        """Rows of sqrt(n - 1) U diag(sqrt(lambda)): (rows, rank) for the ``permuted`` row numbers."""
        order = np.arange(1, len(self.variances) + 1)
        cosines = np.cos(np.pi / self.n_rows * np.outer(permuted + 0.5, order))
        return cosines * np.sqrt(2 / self.n_rows * (self.n_rows - 1) * self.variances)

    def columns(self, tile: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(first column, V' (rank, columns) and mean (columns,) in float64) of a column of tiles."""
        start = tile * TILE_COLUMNS
        n = min(TILE_COLUMNS, self.n_columns - start)
        random = self.random(COLUMNS, tile)
        signs = np.where(random.random(TILE_COLUMNS) < 0.5, -1.0, 1.0)[:n]
        mean = self.mean * random.standard_normal(TILE_COLUMNS)[:n]
        order = np.arange(len(self.variances))
        basis = np.cos(np.pi / self.n_columns * np.outer(order, np.arange(start, start + n) + 0.5))
        basis *= np.sqrt(np.where(order == 0, 1.0, 2.0) / self.n_columns).reshape(-1, 1)
        return start, basis * signs, mean


def generate(
    target: str | AnyPath,
    n_rows: int,
    n_columns: int,
    *,
    spectrum: str | Sequence[float] = "1/i",
    rank: int | None = None,
    mean: float = 0.0,
    noise: float = 0.0,
    dtype: str | np.dtype = "float32",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    n_threads: int | None = None,
) -> AnyPath:
    """Write a matrix (n_rows, n_columns) of known spectrum to ``target`` (.npy), and the truth beside it.

    ``spectrum`` is "1/i" or the variances of the ``rank`` components (default: as many as the list, or
    50 at most); ``mean`` the scale of the random column means; ``noise`` the standard deviation of white
    noise per entry. The same arguments give the same bytes with any number of threads.

    Beside it: ``<stem>.components.npy`` (rank, n_columns) float32, ``<stem>.mean.npy`` (n_columns,) and
    ``<stem>.truth.npz`` with explained_variance (rank,), noise and seed. Memory: under 100 MB a thread.
    Raises DataError for impossible arguments, existing targets without ``overwrite``, and a full disk.
    """
    path = path_of(target)
    recipe = _recipe(path, n_rows, n_columns, spectrum, rank, mean, noise, dtype, seed)
    rank = len(recipe.variances)
    sizes = (n_rows * n_columns * recipe.dtype.itemsize, rank * n_columns * 4, n_columns * 8)
    beside = [path.with_name(f"{path.stem}.{name}") for name in ("components.npy", "mean.npy", "truth.npz")]
    progress = progress or Progress()
    began = time.perf_counter()
    title = f"generate {path.name}"
    with ExitStack() as stack:
        # Entered first, moved into place last: where the matrix stands, its truth does too.
        main = stack.enter_context(replacing(path, overwrite, sum(sizes) + 4 * HEADER_NBYTES))
        components, means, truth = (stack.enter_context(replacing(p, overwrite)) for p in beside)
        with open(truth, "wb") as file:
            np.savez(file, explained_variance=recipe.variances, noise=recipe.noise, seed=recipe.seed)
        shapes = ((n_rows, n_columns), (rank, n_columns), (n_columns,))
        dtypes: tuple[np.dtype, ...] = (recipe.dtype, np.dtype("float32"), np.dtype("float64"))
        files = [
            stack.enter_context(_NpyFile(p, shape, kind))
            for p, shape, kind in zip((main, components, means), shapes, dtypes, strict=True)
        ]
        _write_tiles(recipe, files, title, progress, n_threads or min(4, os.cpu_count() or 1))
    progress.emit(StageDone(title, time.perf_counter() - began))
    return path


class _NpyFile:
    """A ``.npy`` file whose rectangles are written in any order, from any thread."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        head = npy_header(shape, dtype)
        self._offset, self._n_columns, self._dtype = len(head), shape[-1], dtype
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._file.write(head)

    def __enter__(self) -> _NpyFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, row: int, column: int, values: np.ndarray) -> None:
        for i, line in enumerate(np.atleast_2d(values)):
            at = ((row + i) * self._n_columns + column) * self._dtype.itemsize
            write_whole(self._file.fileno(), line, self._offset + at)


def _write_tiles(recipe: _Recipe, files: list[_NpyFile], title: str, progress: Progress, n_threads: int) -> None:
    main, components, means = files
    permutation = recipe.random(PERMUTATION).permutation(recipe.n_rows)
    n_tile_rows = -(-recipe.n_rows // TILE_ROWS)
    tasks = [
        (first, tile)
        for tile in range(-(-recipe.n_columns // TILE_COLUMNS))
        for first in range(0, n_tile_rows, TASK_TILES)
    ]
    stop = threading.Event()

    def write(task: tuple[int, int]) -> None:
        first, tile = task
        start, basis, mean = recipe.columns(tile)
        if first == 0:
            components.write(0, start, basis.astype(np.float32))
            means.write(0, start, mean)
        basis, mean = basis.astype(recipe.computed), mean.astype(recipe.computed)
        for tile_row in range(first, min(first + TASK_TILES, n_tile_rows)):
            if stop.is_set():
                return
            row = tile_row * TILE_ROWS
            scores = recipe.scores(permutation[row : row + TILE_ROWS]).astype(recipe.computed)
            values = scores @ basis
            if recipe.noise:
                values += _noise(recipe, tile_row, tile)
            values += mean
            main.write(row, start, values.astype(recipe.dtype, copy=False))

    progress.emit(StageStarted(title, len(tasks), 0))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        try:
            for n_done, _ in enumerate(pool.map(write, tasks), 1):
                progress.emit(TaskDone(n_done, len(tasks)))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _noise(recipe: _Recipe, tile_row: int, tile: int) -> np.ndarray:
    """White noise (rows, columns) of a tile, less where the edge of the matrix cuts it."""
    n = min(TILE_COLUMNS, recipe.n_columns - tile * TILE_COLUMNS)
    m = min(TILE_ROWS, recipe.n_rows - tile_row * TILE_ROWS)
    values = recipe.random(NOISE, tile_row, tile).standard_normal((m, n), dtype=np.float32)
    values *= np.float32(recipe.noise)
    return values


def _recipe(
    path: AnyPath, n_rows: int, n_columns: int, spectrum: str | Sequence[float], rank: int | None,
    mean: float, noise: float, dtype: str | np.dtype, seed: int,
) -> _Recipe:  # fmt: skip
    def refuse(what: str) -> DataError:
        return DataError(f"{path}: {what}")

    if path.suffix != ".npy":
        raise refuse(f"cannot generate {path.suffix or 'a file without suffix'}. Use a .npy target and convert it.")
    if n_rows < 2 or n_columns < 1:
        raise refuse(f"shape ({n_rows}, {n_columns}) is too small. Use 2 rows and 1 column at least.")
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise refuse(f"unknown dtype {dtype!r}. Use float16, float32 or float64.") from error
    if kind.name not in ("float16", "float32", "float64"):
        raise refuse(f"dtype {kind.name} cannot hold a spectrum. Use float16, float32 or float64.")
    largest = min(n_rows - 1, n_columns)
    if isinstance(spectrum, str):
        if spectrum != "1/i":
            raise refuse(f"unknown spectrum {spectrum!r}. Use '1/i' or a list of variances.")
        count = min(50, largest) if rank is None else rank
        variances = 1 / np.arange(1.0, max(count, 0) + 1)
    else:
        variances = np.sort(np.asarray(list(spectrum), float))[::-1].copy()
        count = len(variances) if rank is None else rank
        if count != len(variances):
            raise refuse(f"rank is {rank}, the spectrum has {len(variances)} entries. Make them equal.")
        if not (np.isfinite(variances).all() and (variances >= 0).all()):
            raise refuse("the spectrum has negative or infinite entries. Use variances, 0 or above.")
    if not 1 <= count <= largest:
        raise refuse(f"rank {count} is not between 1 and min(n_rows - 1, n_columns) = {largest}. Change it.")
    if not (np.isfinite(noise) and noise >= 0 and np.isfinite(mean)):
        raise refuse(f"noise {noise} and mean {mean} must be finite, noise 0 or above. Change them.")
    if seed < 0:
        raise refuse(f"seed {seed} is negative. Use 0 or above.")
    return _Recipe(n_rows, n_columns, variances, float(mean), float(noise), kind.newbyteorder("="), seed)
