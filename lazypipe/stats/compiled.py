"""What compiled loops take to load: numba and LLVM, once a process."""

from __future__ import annotations

import sys

LIBRARY_NBYTES = 128 * 2**20


def loading_nbytes(kernel: str) -> int:
    """Bytes that a process will take to load the module ``kernel``; 0 where it has."""
    return 0 if kernel in sys.modules else LIBRARY_NBYTES
