"""Arrays of samples as matrices: which dtypes and shapes a recording may have."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.sources import checked_dtype


def sample_dtype(dtype: np.dtype, uri: str) -> np.dtype:
    """``dtype`` in native byte order; DataError if samples cannot have it. Cameras and arrays write uint16."""
    return dtype.newbyteorder("=") if dtype.name == "uint16" else checked_dtype(dtype, uri)


def flat_shape(shape: Sequence[int], uri: str) -> tuple[int, int]:
    """(n_samples, n_channels) of (n,), (n, channels) or (n, height, width); DataError for all others."""
    if len(shape) not in (1, 2, 3):
        raise DataError(
            f"{uri}: has {len(shape)} dimensions {tuple(shape)}. A recording is (n_samples,), "
            f"(n_samples, n_channels) or (n_samples, height, width): reshape it."
        )
    if 0 in shape:
        raise DataError(f"{uri}: is empty: no samples, shape {tuple(shape)}. Check what wrote it.")
    return int(shape[0]), int(prod(shape[1:]))


def frame_shape(shape: Sequence[int]) -> tuple[int, ...] | None:
    """(height, width) of a movie, None for channels."""
    return tuple(int(n) for n in shape[1:]) if len(shape) == 3 else None
