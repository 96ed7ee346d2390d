"""What every benchmark prints: the machine, the BLAS kernel, the GEMM rate, and peak memory."""

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# A kernel forced by the environment would slow every product: let OpenBLAS choose, before NumPy loads it.
os.environ.pop("OPENBLAS_CORETYPE", None)

import numpy as np
import psutil
from threadpoolctl import threadpool_info, threadpool_limits


def cores() -> int:
    return len(os.sched_getaffinity(0))


def today() -> str:
    """The date on which a benchmark runs, for its report."""
    return datetime.now(UTC).date().isoformat()


def describe_machine() -> str:
    loaded = [info for info in threadpool_info() if info["user_api"] == "blas"]
    blas = min(loaded, key=lambda info: "numpy" not in info["filepath"])  # SciPy brings one of its own
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"machine: {cores()} cores, {memory:.0f} GiB; NumPy {np.__version__}, "
        f"{blas['internal_api']} {blas['version']}, kernel {blas['architecture']}"
    )


def versions(names: Iterable[str]) -> str:
    """Of Python, of those packages that are there, and of Java."""
    found = [f"Python {platform.python_version()}"]
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    with contextlib.suppress(OSError, IndexError):
        java = subprocess.run(["java", "-version"], check=False, capture_output=True, text=True).stderr
        found.append("Java " + java.split('"')[1])
    return ", ".join(found)


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


def earlier(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What is saved of the same options, machine and data."""
    if not path.exists():
        return {}
    saved = json.loads(path.read_text())
    if saved["identity"] == identity:
        return saved
    kept = path.with_suffix(".earlier.json")
    path.replace(kept)
    print(f"{path} is of other options or another machine; kept as {kept}")
    return {}


@dataclass
class Memory:
    """Highest memory while watched, in bytes."""

    anonymous: int = 0  # what the process allocated
    resident: int = 0  # the same and the mapped pages of files


@contextlib.contextmanager
def watched_memory(every: float = 0.01, tree: bool = False) -> Iterator[Memory]:
    """Of this process; of all that it started too, as Spark's JVM and workers, with ``tree``."""
    peak = Memory()
    over = threading.Event()
    this = psutil.Process()

    def watch() -> None:
        pids, looked = [this.pid], 0.0
        while not over.wait(every):
            if tree and time.monotonic() - looked > 0.5:  # to look for children costs more than to watch them
                pids, looked = [this.pid, *(child.pid for child in this.children(recursive=True))], time.monotonic()
            now = Memory()
            for pid in pids:
                with contextlib.suppress(OSError, KeyError), open(f"/proc/{pid}/status") as status:
                    fields = dict(line.split(":", 1) for line in status)
                    now.resident += int(fields["VmRSS"].split()[0]) * 1024
                    now.anonymous += int(fields["RssAnon"].split()[0]) * 1024
            peak.anonymous = max(peak.anonymous, now.anonymous)
            peak.resident = max(peak.resident, now.resident)

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


def covariance64(x: np.ndarray) -> np.ndarray:
    """The covariance (D, D) of the rows of ``x``, by two passes in float64."""
    mean = np.zeros(x.shape[1])
    for i in range(0, len(x), 20_000):
        mean += x[i : i + 20_000].sum(axis=0, dtype=np.float64) / len(x)
    total = np.zeros((x.shape[1],) * 2)
    for i in range(0, len(x), 20_000):
        block = x[i : i + 20_000] - mean
        total += block.T @ block
    return total / (len(x) - 1)


def largest_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest |C - C64| / (s_i s_j)."""
    deviations = np.sqrt(np.diag(wanted))
    return float((np.abs(found - wanted) / np.outer(deviations, deviations)).max())
