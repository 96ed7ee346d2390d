"""A covariance of 70,000 columns on disk, against its arithmetic alone; and what an increment of 1% costs.

    python benchmarks/tiles.py [--columns 70000] [--rows 1000] [--memory 1GiB] [--folder /tmp]

The arithmetic alone is the same products of the same tiles, in memory, nothing read and nothing written, a
thread a core, in the same run. The increment: a covariance of 1,000,000 x 1,000 with its state, after 1% more
rows: in a new part of a folder (what is old is known by its files), and appended to a .npy (what is old is
read and compared).
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import cores, describe_machine, gemm_rate, warm, watched_memory
from threadpoolctl import threadpool_limits

import lazypipe as lp
from lazypipe.io.convert import npy_header
from lazypipe.models.tiles import tile_tasks
from lazypipe.sizes import show_bytes


def arithmetic_alone(n_rows: int, n_columns: int, tile: int) -> float:
    """Seconds for the products of every tile of the upper triangle."""
    left, right = (np.ones((n_rows, tile), np.float32) for _ in range(2))
    outs = [np.empty((tile, tile), np.float32) for _ in range(cores())]
    count = -(-n_columns // tile)
    n_tiles = sum(task.stop - task.start for task in tile_tasks(count))

    def some(worker: int) -> None:
        for _ in range(worker, n_tiles, cores()):
            np.matmul(left.T, right, out=outs[worker])

    with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        list(pool.map(some, range(cores())))  # once to warm up: pages, clocks
        begun = time.perf_counter()
        list(pool.map(some, range(cores())))
        return time.perf_counter() - begun


def tiles(folder: Path, n_rows: int, n_columns: int, memory: str) -> None:
    path = folder / "wide.npy"
    lp.generate(path, n_rows, n_columns, spectrum="1/i", rank=50, mean=1.0, noise=0.05)
    warm(path)
    with lp.open_engine("dask", memory=memory) as engine:
        plan = lp.plan_covariance(path, engine=engine, out=folder / "cov.zarr")
        alone = arithmetic_alone(n_rows, n_columns, plan.folds[0].step)
        with watched_memory() as peak:
            begun = time.perf_counter()
            result = lp.covariance(path, engine=engine, out=folder / "cov.zarr")
            seconds = time.perf_counter() - begun
    x = np.load(path, mmap_mode="r")
    some = np.r_[0:200, n_columns // 2 : n_columns // 2 + 200, n_columns - 200 : n_columns]
    part = x[:, some].astype(np.float64)
    want = np.cov(part.T)
    deviation = np.sqrt(want.diagonal())
    error = np.abs(result.covariance[some, some] - want) / np.outer(deviation, deviation)
    print(
        f"{n_columns:,} columns, {n_rows:,} rows: {seconds:.1f} s = {seconds / alone:.2f} x the arithmetic alone "
        f"({alone:.1f} s); {show_bytes(plan.output_nbytes)} written; {show_bytes(peak.anonymous)} anonymous, "
        f"{show_bytes(peak.resident)} resident, planned {show_bytes(plan.peak_nbytes)}; "
        f"error {error.max():.1e} of s_i s_j",
        flush=True,
    )


def increments(folder: Path, n_rows: int, n_columns: int, memory: str, repeats: int) -> None:
    """A full fold, the same with its state, and what 1% more rows cost in a Zarr store and in a .npy."""
    npy, stripes = folder / "tall.npy", folder / "tall.zarr"
    lp.generate(npy, n_rows, n_columns, spectrum="1/i", rank=100, mean=1.0, noise=0.05)
    n_new = n_rows // 100
    new = np.random.default_rng(0).standard_normal((n_new, n_columns), np.float32)
    x = np.load(npy, mmap_mode="r")
    store = zarr.create_array(str(stripes), shape=x.shape, chunks=(n_new, n_columns), dtype="f4", compressors=None)
    for i in range(0, n_rows, n_new):
        store[i : i + n_new] = x[i : i + n_new]
    del x

    def timed(path: Path, **options: Any) -> tuple[float, lp.CovarianceResult]:
        begun = time.perf_counter()
        result = lp.covariance(path, engine=engine, **options)
        return time.perf_counter() - begun, result

    with lp.open_engine("dask", memory=memory) as engine:
        for path in (stripes, npy):
            warm_all(path)
            full = statistics.median(timed(path)[0] for _ in range(repeats))
            saved = [timed(path, state=folder / f"{path.name}.{turn}")[0] for turn in range(repeats)]
            if path == npy:
                with open(npy, "r+b") as file:
                    file.write(npy_header((n_rows + n_new, n_columns), np.dtype("float32")))
                    file.seek(0, 2)
                    file.write(new.tobytes())
            else:
                store.resize((n_rows + n_new, n_columns))
                store[n_rows:] = new
            runs = [timed(path, state=folder / f"{path.name}.{turn}") for turn in range(repeats)]
            assert all(result.n_new_rows == n_new for _, result in runs)
            once = statistics.median(seconds for seconds, _ in runs)
            _, again = timed(path)
            error = np.abs(again.covariance - runs[0][1].covariance).max() / np.abs(again.covariance).max()
            how = "old chunks are known by their files" if path == stripes else "old rows are read and compared"
            print(
                f"{n_rows:,} x {n_columns:,} {path.suffix}: full fold {full:.2f} s, with its state saved "
                f"{statistics.median(saved):.2f} s; 1% more rows {once:.3f} s = {once / full:.1%} of a full fold "
                f"({how}); differs from a full fold by {error:.0e}",
                flush=True,
            )


def warm_all(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            warm(str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=70_000)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--tall-rows", type=int, default=1_000_000)
    parser.add_argument("--memory", default="768MiB", help="budget of arrays")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the data go for the run (15 GB)")
    options = parser.parse_args()
    print(describe_machine())
    print(f"float32 GEMM on {cores()} cores: {gemm_rate():.0f} GFLOP/s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tiles(Path(folder), options.rows, options.columns, options.memory)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        increments(Path(folder), options.tall_rows, 1_000, options.memory, options.repeats)


if __name__ == "__main__":
    main()
