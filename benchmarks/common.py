"""What every benchmark prints: the machine, the BLAS kernel, the GEMM rate, and peak memory."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# A kernel forced by the environment would slow every product: let OpenBLAS choose, before NumPy loads it.
os.environ.pop("OPENBLAS_CORETYPE", None)

import numpy as np
import psutil
from threadpoolctl import threadpool_info, threadpool_limits


def cores() -> int:
    return len(os.sched_getaffinity(0))


def describe_machine() -> str:
    blas = next(info for info in threadpool_info() if info["user_api"] == "blas")
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"machine: {cores()} cores, {memory:.0f} GiB; NumPy {np.__version__}, "
        f"{blas['internal_api']} {blas['version']}, kernel {blas['architecture']}"
    )


def gemm_rate(dtype: str = "float32", n: int = 3000, repeats: int = 3) -> float:
    """GFLOP/s of square products on all cores, one process thread a core and one BLAS thread each."""
    pairs = [(np.ones((n, n), dtype), np.empty((n, n), dtype)) for _ in range(cores())]
    rates = []
    with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            list(pool.map(lambda pair: np.matmul(pair[0], pair[0], out=pair[1]), pairs))
            rates.append(cores() * 2 * n**3 / (time.perf_counter() - begun) / 1e9)
    return statistics.median(rates[1:])


@dataclass
class Memory:
    """Highest memory of this process while watched, in bytes."""

    anonymous: int = 0  # what the process allocated
    resident: int = 0  # the same and the mapped pages of files


@contextlib.contextmanager
def watched_memory(every: float = 0.01) -> Iterator[Memory]:
    peak = Memory()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            with open("/proc/self/status") as status:
                fields = dict(line.split(":", 1) for line in status)
            for name, key in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
                setattr(peak, name, max(getattr(peak, name), int(fields[key].split()[0]) * 1024))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def warm(path: str) -> None:
    """Read a file once, so that it is in the page cache as far as that holds it."""
    buffer = bytearray(2**24)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def subspace_angle(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest principal angle, in radians, between the row spaces of ``found`` and ``wanted``."""
    found = np.linalg.qr(found.T.astype(np.float64))[0]
    rest = found - wanted.T @ (wanted @ found)
    return float(np.arcsin(min(1.0, np.linalg.norm(rest, 2))))
