"""Resident memory of this process: now, at its highest, and what the allocator keeps of it."""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import lru_cache

import psutil

from lazypipe.sizes import MIB

LIBRARY_SLACK = 112 * MIB  # modules loaded when they are first used (SciPy, Arrow, Zarr), allocator caches
BLAS_SLACK = 24 * MIB  # packing buffers of one BLAS thread
LARGE_ARRAY = 4 * MIB
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


@lru_cache(maxsize=1)
def return_large_arrays() -> None:
    """Have glibc hand arrays of 4 MiB and more back to the system once they are freed; a no-op elsewhere.

    By default it raises its threshold to 32 MiB as it sees such arrays come and go, and keeps what is freed
    among others in the heap of each thread: 230 MiB in a PCA whose states of a million columns are 8 MiB.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_ARRAY)


def resident_nbytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def base_nbytes(threads: int) -> int:
    """What the interpreter and its libraries take here, with ``threads`` BLAS calls at once."""
    return resident_nbytes() + LIBRARY_SLACK + threads * BLAS_SLACK


def has_compiler() -> bool:
    """Whether numba and LLVM are among what this process has loaded."""
    return "numba" in sys.modules


def reset_peak() -> None:
    """Restart the high-water mark of this process. Linux only: elsewhere it stays."""
    try:
        with open("/proc/self/clear_refs", "w") as clear_refs:
            clear_refs.write("5")
    except OSError:
        return


def peak_nbytes(_: object = None) -> int:
    """Highest resident memory of this process since ``reset_peak``, or since its start."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
