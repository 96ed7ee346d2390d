"""NumPy's .npz: ``samples`` (or ``times``) and, for several units, ``units`` of the same length."""

from __future__ import annotations

import zipfile

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events
from lazypipe.io.spikes.unit_ids import checked_ids, encode
from lazypipe.stores import AnyPath, Place


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of a .npz; ``samples`` unless ``times=`` says that they are in seconds or milliseconds.

    Raises DataError that lists what is there where neither is, and for a damaged file or one of objects.
    """
    uri = str(path)
    with _opened(path) as arrays:
        name = _name(list(arrays.files), options, uri)
        clock = options.clock(uri)
        units = None
        if "units" in arrays:
            units = encode(checked_ids(_array(arrays, "units", uri), f"{uri}: units", DataError))
        values = _array(arrays, name, uri)
    return from_events(values, units, clock, uri, options.units)


def _opened(path: AnyPath) -> np.lib.npyio.NpzFile:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] != b"PK":
            raise zipfile.BadZipFile("it is no zip file")
        arrays: np.lib.npyio.NpzFile = np.load(path.open("rb") if isinstance(path, Place) else path, allow_pickle=False)
    except DAMAGED as error:
        raise _damaged(str(path), error) from error
    return arrays


def _name(names: list[str], options: Options, uri: str) -> str:
    """Which array holds the spikes."""
    if options.times in (None, "samples"):
        if "samples" in names:
            return "samples"
        if "times" in names and options.times is None:
            raise ConfigError(f"{uri}: its times have no unit. Pass times='s' or 'ms', and sampling_rate=.")
        wanted = "samples"
    else:
        if "times" in names:
            return "times"
        if "samples" in names:
            raise ConfigError(f"{uri}: holds samples, no times. Leave out times={options.times!r}.")
        wanted = "times"
    there = ", ".join(sorted(names)) or "nothing"
    raise DataError(f"{uri}: has no {wanted!r}, only {there}. Save it with numpy.savez(path, {wanted}=…, units=…).")


def _array(arrays: np.lib.npyio.NpzFile, name: str, uri: str) -> np.ndarray:
    try:
        array: np.ndarray = arrays[name]
    except DAMAGED as error:
        if "pickle" not in str(error):
            raise _damaged(uri, error) from error
        raise DataError(
            f"{uri}: its {name} are Python objects, which are never unpickled. Save arrays of integers, or of text."
        ) from error
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no .npy
        raise DataError(f"{uri}: its {name} is no array. Save it again with numpy.savez.")
    return array


def _damaged(uri: str, error: Exception) -> DataError:
    return DataError(f"{uri}: is a damaged .npz file ({one_line(error)}). Save or copy it again.")
