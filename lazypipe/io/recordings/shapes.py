"""Arrays of samples as matrices: which dtypes and shapes a recording may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def is_samples(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether an array could be a recording."""
    try:
        flat_shape(shape, "")
        sample_dtype(dtype, "")
    except DataError:
        return False
    return True


def choose(found: Mapping[str, bool], column: str | None, uri: str, what: tuple[str, str]) -> str:
    """The array asked for, or the only one that could be a recording; ``found`` says of each if it could.

    An array may be asked for by the end of its path, where that is the end of one alone. ``what`` names one
    and several of them.
    """
    one, several = what
    fit = [name for name in found if found[name]]
    if column is not None:
        wanted = column.strip("/")
        matches = [wanted] if wanted in found else [name for name in found if f"/{name}".endswith(f"/{wanted}")]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise DataError(
                f"{uri}: has {len(matches)} {several} {column!r}: {_some(matches)}. Choose one with column=."
            )
        raise DataError(f"{uri}: has no {one} {column!r}. It holds {_some(fit or list(found))}.")
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise DataError(f"{uri}: holds {len(fit)} {several}: {_some(fit)}. Choose one with column=.")
    raise DataError(
        f"{uri}: has no {one} of numbers in 1 to 3 dimensions (it holds {_some(list(found))}). "
        f"Pass a file that holds a recording."
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:12])
    return (shown or "none") if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
