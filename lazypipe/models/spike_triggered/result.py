"""A spike-triggered average, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.io.recordings.recording import Recording
from lazypipe.plan import Plan
from lazypipe.stats.units import best_channel


class OnLags:
    """What results about a window have in common."""

    lags: np.ndarray
    recording: Recording

    @property
    def times(self) -> np.ndarray:
        """(n_lags,) seconds from the spike. ConfigError where the recording has no sampling rate."""
        rate = self.recording.sampling_rate
        if rate is None:
            raise ConfigError(f"{self.recording.uri}: its sampling rate is not known. Open it with sampling_rate=.")
        return self.lags / rate


@dataclass(frozen=True, eq=False)
class SpikeTriggeredAverage(OnLags):
    """What ``spike_triggered_average`` found; arrays are (n_units, n_lags, n_channels).

    ``mean`` and ``std`` are NumPy's, or, where they were written to a store, Zarr's: index them, unit by unit.
    """

    unit_ids: np.ndarray  # (n_units,)
    lags: np.ndarray  # (n_lags,) samples from the spike, which is at 0
    mean: np.ndarray
    std: np.ndarray | None  # dividing by n_used - ddof; NaN where that is not above 0
    n_used: np.ndarray  # (n_units,) spikes; (n_units, n_lags) with edges="nan"
    n_dropped: dict[str, np.ndarray]  # by reason: "edge", "gap", "nan", "beyond_end"; each (n_units,)
    recording: Recording
    plan: Plan
    n_new_samples: int  # read now; the others came from the state

    @property
    def sem(self) -> np.ndarray | None:
        """Standard error of the mean: ``std / sqrt(n_used)``; computed anew each time."""
        if self.std is None:
            return None
        n = self.n_used[:, None, None] if self.n_used.ndim == 1 else self.n_used[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.std[...] / np.sqrt(n).astype(self.std.dtype)

    @property
    def best_channel(self) -> np.ndarray:
        """(n_units,) the channel whose mean moves most between its lags; -1 where nothing of it is finite."""
        found = (best_channel(self.mean[i]) for i in range(len(self.unit_ids)))
        return np.array([-1 if channel is None else channel for channel in found], np.int64)

    def in_shape(self, values: np.ndarray) -> np.ndarray:
        """An array (..., n_channels) in the shape of a sample: (..., height, width) of a movie."""
        shape = self.recording.sample_shape or (self.recording.n_channels,)
        return values.reshape(*values.shape[:-1], *shape)

    def __repr__(self) -> str:
        used = self.n_used if self.n_used.ndim == 1 else self.n_used.max(axis=1)
        dropped = ", ".join(f"{int(n.sum()):,} {why}" for why, n in self.n_dropped.items() if n.any())
        shape = " x ".join(f"{n:,}" for n in self.mean.shape)
        return f"SpikeTriggeredAverage({shape} (units x lags x channels), {int(used.sum()):,} spikes used" + (
            f", dropped: {dropped})" if dropped else ")"
        )
