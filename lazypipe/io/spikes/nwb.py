"""The units table of NWB files: ragged spike times, in seconds."""

from __future__ import annotations

import h5py
import numpy as np

from lazypipe.errors import ConfigError, DataError, LazypipeError
from lazypipe.io.hdf5_file import hdf5_file
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import edges_of, in_order, no_units
from lazypipe.io.spikes.unit_ids import checked_ids, places
from lazypipe.stores import AnyPath

NEEDED = ("spike_times", "spike_times_index", "id")


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of ``/units``, in the order of the table; with ``units``, only theirs are read.

    Raises ConfigError without a rate to round with, DataError that lists what is there where there is no units
    table, or it has no spikes.
    """
    uri = str(path)
    if options.times not in (None, "s"):
        raise ConfigError(f"{uri}: NWB stores times in seconds. Leave out times={options.times!r}.")
    try:
        with hdf5_file(path) as file:
            return _of_units(file, options, uri)
    except LazypipeError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of h5py at damaged files
        raise DataError(f"{uri}: is not a readable NWB file ({one_line(error)}). Write or copy it again.") from error


def _of_units(file: h5py.File, options: Options, uri: str) -> Spikes:
    units = file.get("units")
    if not isinstance(units, h5py.Group):
        there = ", ".join(sorted(file)) or "nothing"
        raise DataError(
            f"{uri}: has no units table, only {there}. Run a spike sorter on it first, or pass another file."
        )
    missing = [name for name in NEEDED if not isinstance(units.get(name), h5py.Dataset)]
    if missing:
        raise DataError(f"{uri}: its units table has no {missing[0]}, only {', '.join(sorted(units))}. Write it again.")
    clock = options.clock(uri, "s")
    stored, ends = units["spike_times"], np.asarray(units["spike_times_index"])
    ids = checked_ids(np.asarray(units["id"]), f"{uri}: /units/id", DataError)
    starts = _starts(ends, stored, ids, uri)
    if options.units is None:
        if len(ids) == 0:
            raise no_units(uri)
        unit_ids, chosen = ids, np.arange(len(ids))
    else:
        unit_ids, chosen = options.units, np.full(len(options.units), -1)
        place = places(options.units, ids, uri)
        chosen[place[place < len(unit_ids)]] = np.flatnonzero(place < len(unit_ids))
    counts = np.where(chosen < 0, 0, np.diff(starts)[chosen]) if len(ids) else np.zeros(len(unit_ids), np.int64)
    edges = edges_of(counts)
    if options.units is None:
        times = stored[:]
    else:
        times = np.empty(int(edges[-1]), stored.dtype)
        for index in np.flatnonzero(counts):
            times[edges[index] : edges[index + 1]] = stored[starts[chosen[index]] : starts[chosen[index] + 1]]

    def locate(index: int) -> str:
        unit = int(np.searchsorted(edges, index, side="right")) - 1
        return f"unit {unit_ids[unit].item()!r}, spike {index - edges[unit]:,}"

    return Spikes(unit_ids, in_order(times, edges, clock, locate, uri), edges, uri, clock.sampling_rate)


def _starts(ends: np.ndarray, stored: h5py.Dataset, ids: np.ndarray, uri: str) -> np.ndarray:
    """(n_units + 1,) int64: where the times of each unit begin; DataError if the table's parts do not fit together."""
    n_spikes = stored.shape[0] if stored.ndim == 1 else -1
    fits = n_spikes >= 0 and ends.ndim == 1 and ends.dtype.kind in "iu" and len(ends) == len(ids)
    starts = np.zeros(len(ids) + 1, np.int64)
    if fits:
        starts[1:] = ends
        fits = bool((np.diff(starts) >= 0).all()) and int(starts[-1]) == n_spikes
    if not fits:
        raise DataError(
            f"{uri}: its units table has {len(ids):,} ids, {ends.size:,} ends and spike_times of shape {stored.shape}, "
            f"which do not fit together. Write it again."
        )
    if len(np.unique(ids)) < len(ids):
        raise DataError(f"{uri}: its units table has an id twice. Give each unit its own.")
    return starts
