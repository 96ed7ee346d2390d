"""Covariance of 1,000,000 x 1,000 float32 from .npy, against the machine's GEMM rate and against peers.

    python benchmarks/covariance.py [--rows 1000000] [--memory 512MiB] [--folder /tmp]

Prints the rate of useful arithmetic, N D (D + 1), as a part of the float32 GEMM rate of this run; peak
memory; the largest error against float64, in units of s_i s_j, also with means of 10^4 deviations; the
time through Spark as a multiple of that through Dask; and what peers take for the same numbers.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from common import cores, covariance64, describe_machine, gemm_rate, largest_error, warm, watched_memory

import lazypipe as lp
from lazypipe.sizes import show_bytes


def through(kind: str, path: Path, memory: str, repeats: int) -> tuple[float, lp.CovarianceResult]:
    """Median seconds, the session's start aside."""
    with lp.open_engine(kind, memory=memory) as engine:
        seconds = []
        for _ in range(repeats):
            begun = time.perf_counter()
            result = lp.covariance(path, engine=engine)
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), result


def dask_array(path: Path) -> np.ndarray:
    x = da.from_array(np.load(path, mmap_mode="r"), chunks=(20_000, -1))
    with dask.config.set(scheduler="threads", num_workers=cores()):
        return da.cov(x, rowvar=False).compute()


def numpy_in_blocks(path: Path) -> np.ndarray:
    """What a careful person writes: two passes, float32 products of 20,000 rows, threaded BLAS."""
    x = np.load(path, mmap_mode="r")
    mean = np.mean([x[i : i + 20_000].mean(axis=0, dtype=np.float64) for i in range(0, len(x), 20_000)], axis=0)
    total = np.zeros((x.shape[1],) * 2)
    for i in range(0, len(x), 20_000):
        block = x[i : i + 20_000] - mean.astype(np.float32)
        total += block.T @ block
    return total / (len(x) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=1_000)
    parser.add_argument("--memory", default="512MiB", help="budget of arrays")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the data go for the run (4 GB)")
    parser.add_argument("--no-spark", action="store_true", help="leave Spark out")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    options = parser.parse_args()
    n, d = options.rows, options.columns

    print(describe_machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "tall.npy"
        noise = 0.05
        lp.generate(path, n, d, spectrum="1/i", rank=min(100, d), mean=1.0, noise=noise)
        warm(path)
        with watched_memory() as peak:  # before anything else of this process has filled BLAS's buffers
            dask_seconds, result = through("dask", path, options.memory, options.repeats)
        gemm = gemm_rate()
        print(f"float32 GEMM on {cores()} cores: {gemm:.0f} GFLOP/s")
        wanted = covariance64(np.load(path, mmap_mode="r"))

        def report(name: str, seconds: float, peak, error: float) -> None:
            rate = n * d * (d + 1) / seconds / 1e9
            print(
                f"{name:<28} {seconds:7.2f} s  {rate:6.1f} GFLOP/s = {rate / gemm:4.0%} of GEMM  "
                f"{show_bytes(peak.anonymous):>8} anonymous  error {error:.1e}",
                flush=True,
            )

        report("lazypipe on Dask, in process", dask_seconds, peak, largest_error(result.covariance, wanted))
        print(f"{'':<28} planned {show_bytes(result.plan.peak_nbytes)}, resident {show_bytes(peak.resident)}")
        if not options.no_spark:
            with watched_memory() as peak:
                seconds, other = through("spark", path, options.memory, options.repeats)
            same = "the same bits" if np.array_equal(other.covariance, result.covariance) else "OTHER BITS"
            print(f"{'lazypipe on Spark, local':<28} {seconds:7.2f} s = {seconds / dask_seconds:.2f} x Dask, {same}")
        if not options.no_peers:
            for name, peer in (("NumPy in blocks, by hand", numpy_in_blocks), ("dask.array.cov", dask_array)):
                with watched_memory() as peak:
                    begun = time.perf_counter()
                    covariance = peer(path)
                    seconds = time.perf_counter() - begun
                report(name, seconds, peak, largest_error(covariance, wanted))
        path.unlink()

        offset = Path(folder) / "offset.npy"
        x = np.lib.format.open_memmap(offset, "w+", np.float32, (n // 10, d))
        rng = np.random.default_rng(0)
        for i in range(0, len(x), 10_000):
            x[i : i + 10_000] = rng.standard_normal(x[i : i + 10_000].shape, np.float32) + np.float32(1e4)
        del x
        _, result = through("dask", offset, options.memory, 1)
        error = largest_error(result.covariance, covariance64(np.load(offset, mmap_mode="r")))
        print(f"means of 10^4 deviations, {n // 10:,} rows: error {error:.1e}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
