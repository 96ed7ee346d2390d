"""Spike times on disk or in memory: ``read_spikes`` finds the format. A new format is one file and one line in read."""

from lazypipe.io.spikes.read import is_in_seconds, read_spikes
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_arrays

__all__ = ["Spikes", "from_arrays", "is_in_seconds", "read_spikes"]
