"""Spikes that are in memory already: an array of one unit, a dict of many, or some units of open Spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.clock import PER_SECOND
from lazypipe.io.spikes.counts import Counts, from_counts
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import edges_of, from_events, in_order, no_units
from lazypipe.io.spikes.unit_ids import checked_ids, places

URI = "<spikes>"


def from_array(source: Any, options: Options) -> Spikes:
    """Spikes of one unit, (n_spikes,) samples or times; or counts, (n_samples,) or (n_samples, n_units)."""
    values = _as_array(source, URI)
    if options.counts or values.dtype == np.bool_:
        return from_counts(Counts.of(values), options, URI)
    return from_events(np.array(values), None, options.clock(URI), URI, options.units)


def from_mapping(trains: Mapping[Any, Any], options: Options) -> Spikes:
    """{unit id: (n_spikes,) samples or times}, or {unit id: (n_samples,) counts}; units in the dict's order."""
    unit_ids = checked_ids(list(trains), URI, DataError)
    if options.units is not None:
        places(options.units, unit_ids, URI)
        unit_ids = options.units
    elif len(unit_ids) == 0:
        raise no_units(URI)
    given = {_plain(key): train for key, train in trains.items()}
    none = np.zeros(0, np.int64)
    samples = [_train(unit_id, given.get(unit_id, none), options) for unit_id in unit_ids.tolist()]
    edges = edges_of(np.array([len(train) for train in samples]))
    rate = options.sampling_rate if options.times in PER_SECOND else None
    return Spikes(unit_ids, np.concatenate(samples), edges, URI, rate)


def _plain(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def _as_array(values: Any, uri: str) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{uri}: is a masked array. Pass what is not masked, array.compressed().")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{uri}: is no array ({one_line(error)}). Pass one dimension, an entry a spike.") from error


def _train(unit_id: Any, train: Any, options: Options) -> np.ndarray:
    """The samples (n_spikes,) of one unit."""
    uri = f"{URI}: unit {unit_id!r}"
    values = _as_array(train, uri)
    if values.ndim != 1:
        raise DataError(f"{uri}: has shape {values.shape}. Pass one dimension, an entry a spike.")
    if options.counts or values.dtype == np.bool_:
        return from_counts(Counts.of(values), replace(options, units=None), uri).samples
    edges = np.array([0, len(values)])
    return in_order(values, edges, options.clock(URI), lambda index: f"unit {unit_id!r}, spike {index:,}", URI)


def of_units(spikes: Spikes, wanted: np.ndarray) -> Spikes:
    """Those units, in that order; one that has no spikes, or is not there, with an empty train."""
    place = places(wanted, spikes.unit_ids, spikes.uri)
    trains = [np.zeros(0, np.int64)] * len(wanted)
    for index in np.flatnonzero(place < len(wanted)).tolist():
        trains[place[index]] = spikes.at(index)
    edges = edges_of(np.array([len(train) for train in trains]))
    return Spikes(wanted, np.concatenate(trains), edges, spikes.uri, spikes.sampling_rate)
