"""From spikes as they are stored to Spikes: grouped by unit, rounded, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.spikes.clock import Clock
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.unit_ids import Encoded, checked_ids, counted, encode, places

Where: TypeAlias = Callable[[int], str]  # the place in a file of spike i, as text: "row 17"


def from_arrays(
    samples: np.ndarray,
    units: Sequence[Any] | np.ndarray | None = None,
    *,
    uri: str = "<spikes>",
    sampling_rate: float | None = None,
) -> Spikes:
    """Spikes of ``samples`` (n_spikes,), integers, and the id of the unit that fired each, ``units`` (n_spikes,).

    Units may be interleaved; the samples of each must be in order. Without ``units`` it is one unit, 0.
    Raises DataError as ``read_spikes`` does.
    """
    encoded = None if units is None else encode(checked_ids(units, uri, DataError))
    return replace(from_events(np.array(samples), encoded, Clock(), uri), sampling_rate=sampling_rate)


def from_events(
    values: np.ndarray,
    units: Encoded | None,
    clock: Clock,
    uri: str,
    wanted: np.ndarray | None = None,
    where: Where | None = None,
) -> Spikes:
    """Spikes of ``values`` (n_spikes,), as stored, and their ``units``, interleaved or not.

    Units come sorted by id, or as in ``wanted``, and then only those are looked at; None for ``units`` is
    one unit, 0. Peak memory: 20 to 36 bytes a spike on top of what is given. Raises DataError.
    """
    if values.ndim != 1:
        raise DataError(f"{uri}: its spikes have shape {values.shape}. Store one dimension, an entry a spike.")
    if units is not None and len(units.ranks) != len(values):
        raise DataError(
            f"{uri}: has {len(values):,} spikes and {len(units.ranks):,} units. Store the unit of each spike."
        )
    unit_ids, ranks = units or Encoded(np.zeros(1, np.int64), np.zeros(len(values), np.uint16))
    order: np.ndarray | None = None
    if wanted is not None:
        ranks = places(wanted, unit_ids, uri)[ranks]
        order = np.flatnonzero(ranks < len(wanted))
        unit_ids, ranks = wanted, ranks[order]
    elif len(unit_ids) == 0:
        raise no_units(uri)
    edges = edges_of(counted(ranks, len(unit_ids)))
    if not (ranks[1:] >= ranks[:-1]).all():
        by_unit = np.argsort(ranks, kind="stable")
        order = by_unit if order is None else order[by_unit]
    del ranks
    place = order

    def locate(index: int) -> str:
        unit = int(np.searchsorted(edges, index, side="right")) - 1
        told = f"spike {index - edges[unit]:,}"
        if units is not None:
            told = f"unit {unit_ids[unit].item()!r}, {told}"
        return told if where is None else f"{told} ({where(index if place is None else int(place[index]))})"

    samples = in_order(values if order is None else values[order], edges, clock, locate, uri)
    return Spikes(unit_ids, samples, edges, uri, clock.sampling_rate)


def in_order(values: np.ndarray, edges: np.ndarray, clock: Clock, locate: Where, uri: str) -> np.ndarray:
    """``values`` (n_spikes,), unit after unit, as samples; DataError where one is negative or before its predecessor.

    Equal ones are in order: two spikes may share a sample.
    """
    samples = clock.samples(values, locate, uri)
    if len(samples) and samples.min() < 0:
        at = int((samples < 0).argmax())
        if clock.sampling_rate is None:
            how = "Samples count from 0, the first of the recording: subtract its start, or leave such spikes out."
        else:
            how = f"That is before sample 0 at {clock.start_time:g} s: correct start_time=, or leave such spikes out."
        raise DataError(f"{uri}: {locate(at)}: {clock.told(values[at])} is negative. {how}")
    falls = samples[1:] < samples[:-1]
    falls[edges[(edges > 0) & (edges < len(samples))] - 1] = False
    if falls.any():
        at = int(falls.argmax()) + 1
        raise DataError(
            f"{uri}: {locate(at)}: {clock.told(values[at])} comes after {clock.told(values[at - 1])}. "
            f"Sort the spikes of each unit by time."
        )
    return samples


def edges_of(counts: np.ndarray) -> np.ndarray:
    """(n_units + 1,) int64: where the spikes of each unit begin, and the last ends."""
    edges = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=edges[1:])
    return edges


def no_units(uri: str) -> DataError:
    """What to raise for a source without spikes that names no unit either."""
    return DataError(
        f"{uri}: holds no spikes and names no units. Check what wrote it, or pass units= of those without."
    )
