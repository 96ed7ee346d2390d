"""What spikes are: for each unit, the samples at which it fired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Spikes(Mapping[Any, np.ndarray]):
    """unit id -> its spikes (n,) int64, in samples of the recording's clock, in order; two may share a sample.

    ``sampling_rate`` is the one that times in seconds or milliseconds were rounded with, None where samples
    were given.
    """

    unit_ids: np.ndarray  # (n_units,) int64 or str
    samples: np.ndarray  # (n_spikes,) int64: unit after unit, each in order
    edges: np.ndarray  # (n_units + 1,) int64: the spikes of unit i are samples[edges[i]:edges[i + 1]]
    uri: str = "<spikes>"
    sampling_rate: float | None = None

    def __getitem__(self, unit_id: Any) -> np.ndarray:
        found = np.flatnonzero(self.unit_ids == unit_id)
        if len(found) != 1:
            raise KeyError(unit_id)
        return self.at(int(found[0]))

    def at(self, index: int) -> np.ndarray:
        """The spikes of the unit at that place."""
        return self.samples[self.edges[index] : self.edges[index + 1]]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.unit_ids.tolist())

    def __len__(self) -> int:
        return len(self.unit_ids)

    @property
    def counts(self) -> np.ndarray:
        """(n_units,) spikes of each unit."""
        return np.diff(self.edges)

    def __repr__(self) -> str:
        return f"Spikes({self.uri!r}, {len(self.samples):,} spikes of {len(self):,} units)"
