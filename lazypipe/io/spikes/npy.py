"""NumPy's .npy: the samples or times of one unit, or spikes counted a sample."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy_format

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.counts import Counts, from_counts
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events

DAMAGED_HEADER = (ValueError, OSError, EOFError, SyntaxError, TypeError, TokenError)  # numpy parses it as Python


def read(path: Path, options: Options) -> Spikes:
    """Spikes of a .npy, (n_spikes,); with ``counts=True``, or of truth values, (n_samples,) or (n_samples, n_units)."""
    uri = str(path)
    mapped = map_npy(path)
    if options.counts or mapped.dtype == np.bool_:
        fortran = mapped.flags.f_contiguous and not mapped.flags.c_contiguous
        counts = Counts(mapped.shape, mapped.dtype, None, path, mapped.offset, fortran)
        del mapped
        return from_counts(counts, options, uri)
    if mapped.ndim != 1:
        raise DataError(
            f"{uri}: has shape {mapped.shape}, where one unit's samples have one dimension. "
            f"Pass counts=True if these are spikes a sample, or flatten it."
        )
    return from_events(_read(mapped), None, options.clock(uri), uri, options.units)


def load_npy(path: Path) -> np.ndarray:
    """The array in a .npy, in memory. Raises DataError as ``map_npy``."""
    return _read(map_npy(path))


def _read(mapped: np.memmap) -> np.ndarray:
    """Read, not copied from the map, whose pages would count as memory too."""
    assert mapped.filename is not None
    values = np.fromfile(mapped.filename, mapped.dtype, mapped.size, offset=mapped.offset)
    return values.reshape(mapped.shape, order="C" if mapped.flags.c_contiguous else "F")


def map_npy(path: Path) -> np.memmap:
    """The array in a .npy, mapped; DataError for a damaged file, and for objects: nobody's file is unpickled."""
    try:
        return npy_format.open_memmap(path, mode="r")
    except DAMAGED_HEADER as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{path}: holds Python objects, which are never unpickled. Save an array of integers."
            ) from error
        raise DataError(f"{path}: is not a readable .npy file ({one_line(error)}). Write it again.") from error
