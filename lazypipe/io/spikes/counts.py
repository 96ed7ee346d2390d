"""Spikes a sample, counted: 0 and 1, or how many; read block by block, so that only the spikes are held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.spikes.clock import PER_SECOND, Clock
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events, no_units
from lazypipe.io.spikes.unit_ids import encode
from lazypipe.stores import AnyPath

COUNTS_AT_ONCE = 1 << 20
MOST = 10_000  # in one sample: above that they are samples or a signal, and repeating them would fill memory


@dataclass(frozen=True)
class Counts:
    """(n_samples,) or (n_samples, n_units) numbers, in memory or in a file, one after the other in either order."""

    shape: tuple[int, ...]
    dtype: np.dtype
    values: np.ndarray | None  # (n_samples * n_units,) where they are in memory
    path: AnyPath | None = None
    offset: int = 0  # bytes, where they are in a file
    fortran: bool = False  # sample after sample of one unit, then the next unit

    @staticmethod
    def of(values: np.ndarray) -> Counts:
        """Of an array in memory, copied where its numbers do not lie one after the other."""
        fortran = values.flags.f_contiguous and not values.flags.c_contiguous
        return Counts(values.shape, values.dtype, values.ravel(order="K" if fortran else "C"), fortran=fortran)

    def place(self, entry: Any) -> tuple[Any, Any]:
        """Sample and unit of an entry, or of many."""
        if len(self.shape) == 1:
            return entry, 0
        n_samples, n_units = self.shape
        return (entry % n_samples, entry // n_samples) if self.fortran else (entry // n_units, entry % n_units)

    def blocks(self) -> Iterator[np.ndarray]:
        """All numbers, as they lie, 2²⁰ at a time; of a file read, not mapped: mapped pages would count as memory."""
        n = int(np.prod(self.shape))
        if self.values is not None:
            for start in range(0, n, COUNTS_AT_ONCE):
                yield self.values[start : start + COUNTS_AT_ONCE]
            return
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for start in range(0, n, COUNTS_AT_ONCE):
                raw = file.read(min(COUNTS_AT_ONCE, n - start) * self.dtype.itemsize)
                yield np.frombuffer(raw[: len(raw) - len(raw) % self.dtype.itemsize], self.dtype)


def from_counts(counts: Counts, options: Options, uri: str) -> Spikes:
    """A count of 3 gives its sample three times. Units are 0 to n_units - 1, the columns.

    Peak memory: a block, and 16 bytes a spike; of several units some 40. Raises DataError for counts that are
    negative, fractional, not finite, or too many in one sample; ConfigError for options that are of times.
    """
    if options.times in PER_SECOND:
        raise ConfigError(f"{uri}: these are counts, one a sample. Leave out times={options.times!r}.")
    options.clock(uri)
    if len(counts.shape) not in (1, 2):
        raise DataError(f"{uri}: counts have shape {counts.shape}. Pass (n_samples,) or (n_samples, n_units).")
    if counts.dtype.kind not in "biuf":
        raise DataError(f"{uri}: counts have dtype {counts.dtype}. Pass integers or truth values.")
    n_samples, n_units = (*counts.shape, 1)[:2]
    found, first = [np.zeros(0, np.int64)], 0
    for block in counts.blocks():
        found.append(_repeated(block, first, counts, uri))
        first += len(block)
    if first < n_samples * n_units:
        raise DataError(f"{uri}: ends after {first:,} of {n_samples * n_units:,} counts. Write or copy it again.")
    entries = np.concatenate(found)
    del found
    if len(counts.shape) == 1:
        return from_events(entries, None, Clock(), uri, options.units)
    if n_units == 0 and options.units is None:
        raise no_units(uri)
    samples, units = counts.place(entries)
    del entries
    return from_events(
        samples, encode(units), Clock(), uri, np.arange(n_units) if options.units is None else options.units
    )


def _repeated(block: np.ndarray, first: int, counts: Counts, uri: str) -> np.ndarray:
    """The number of each entry of ``block`` that counts spikes, as often as it says; ``first`` is that of entry 0."""
    at = np.flatnonzero(block)
    if block.dtype == np.bool_:
        return at + first
    n = block[at]
    bad = (n < 0) | (n > MOST) | (n != np.rint(n) if n.dtype.kind == "f" else False)
    if bad.any():  # NaN differs from what it is rounded to
        entry = int(bad.argmax())
        sample, unit = (int(number) for number in counts.place(at[entry] + first))
        where = f"sample {sample:,}" + (f", unit {unit}" if len(counts.shape) == 2 else "")
        if n[entry] > MOST:
            raise DataError(
                f"{uri}: {where}: {n[entry]} spikes in one sample. If these are samples, leave out counts=True."
            )
        raise DataError(f"{uri}: {where}: {n[entry]} is no count. Pass whole numbers from 0 up.")
    return np.repeat(at + first, n.astype(np.int64))
