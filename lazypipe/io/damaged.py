"""What NumPy raises at a .npy or .npz file that is empty, torn, or something else."""

from __future__ import annotations

import zipfile
import zlib
from tokenize import TokenError

DAMAGED = (
    ValueError, OSError, EOFError, SyntaxError, TypeError, TokenError,  # of a header, which is parsed as Python
    zipfile.BadZipFile, zlib.error, KeyError, RuntimeError,  # of a .npz; NotImplementedError is a RuntimeError
)  # fmt: skip
