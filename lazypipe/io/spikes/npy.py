"""NumPy's .npy: the samples or times of one unit, or spikes counted a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from lazypipe.errors import DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.npy import header
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.counts import Counts, from_counts
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events
from lazypipe.stores import AnyPath, Place


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of a .npy, (n_spikes,); with ``counts=True``, or of truth values, (n_samples,) or (n_samples, n_units)."""
    uri = str(path)
    if isinstance(path, Place):
        return _read_remote(path, options, uri)
    mapped = map_npy(path)
    if options.counts or mapped.dtype == np.bool_:
        fortran = mapped.flags.f_contiguous and not mapped.flags.c_contiguous
        counts = Counts(mapped.shape, mapped.dtype, None, path, mapped.offset, fortran)
        del mapped
        return from_counts(counts, options, uri)
    if mapped.ndim != 1:
        raise _not_flat(uri, mapped.shape)
    return from_events(_read(mapped), None, options.clock(uri), uri, options.units)


def _read_remote(path: Place, options: Options, uri: str) -> Spikes:
    """The same of an object of a store."""
    shape, fortran, dtype, offset, _ = header(path)
    if options.counts or dtype == np.bool_:
        return from_counts(Counts(shape, dtype, None, path, offset, fortran and len(shape) > 1), options, uri)
    if len(shape) != 1:
        raise _not_flat(uri, shape)
    return from_events(load_npy(path), None, options.clock(uri), uri, options.units)


def _not_flat(uri: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{uri}: has shape {shape}, where one unit's samples have one dimension. "
        f"Pass counts=True if these are spikes a sample, or flatten it."
    )


def load_npy(path: AnyPath) -> np.ndarray:
    """The array in a .npy, in memory. Raises DataError as ``map_npy``."""
    if not isinstance(path, Place):
        return _read(map_npy(path))
    try:
        with path.open("rb") as file:
            return np.asarray(npy_format.read_array(file, allow_pickle=False))
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def _read(mapped: np.memmap) -> np.ndarray:
    """Read, not copied from the map, whose pages would count as memory too."""
    assert mapped.filename is not None
    values = np.fromfile(mapped.filename, mapped.dtype, mapped.size, offset=mapped.offset)
    return values.reshape(mapped.shape, order="C" if mapped.flags.c_contiguous else "F")


def map_npy(path: Path) -> np.memmap:
    """The array in a .npy, mapped; DataError for a damaged file, and for objects: nobody's file is unpickled."""
    try:
        return npy_format.open_memmap(path, mode="r")
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: AnyPath, error: Exception) -> DataError:
    if "bject arrays" in str(error) or "Python objects" in str(error):
        return DataError(f"{path}: holds Python objects, which are never unpickled. Save an array of integers.")
    return DataError(f"{path}: is not a readable .npy file ({one_line(error)}). Write it again.")
