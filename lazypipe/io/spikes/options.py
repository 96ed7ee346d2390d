"""What the caller said of a source: checked once, and handed to the format that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError
from lazypipe.io.spikes.clock import PER_SECOND, Clock
from lazypipe.io.spikes.unit_ids import checked_ids

NUMBER = (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Options:
    """The arguments of ``read_spikes``; ``times`` is None where nothing was said."""

    times: str | None = None
    sampling_rate: float | None = None
    start_time: float = 0.0
    units: np.ndarray | None = None  # (n_units,) int64 or str, the units to read
    counts: bool = False
    unit_column: str | None = None
    time_column: str | None = None
    groups: tuple[str, ...] | None = None

    def clock(self, uri: str, times: str = "samples") -> Clock:
        """How the values become samples; ``times`` is what the format says, for where the caller said nothing.

        Raises ConfigError for seconds or milliseconds without a rate, and for samples with a start.
        """
        stored = self.times or times
        if stored == "samples":
            if self.start_time:
                raise ConfigError(
                    f"{uri}: start_time={self.start_time:g} is of times in seconds, and these are samples. "
                    f"Leave it out, or pass times='s' or 'ms'."
                )
            return Clock()
        if self.sampling_rate is None:
            kind = "seconds" if stored == "s" else "milliseconds"
            raise ConfigError(
                f"{uri}: its times are in {kind}, to be rounded to samples. "
                f"Pass sampling_rate= of the recording, in Hz."
            )
        return Clock(stored, self.sampling_rate, self.start_time)


def checked_options(
    times: str | None,
    sampling_rate: float | None,
    start_time: float,
    units: Sequence[Any] | np.ndarray | None,
    counts: bool,
    unit_column: str | None,
    time_column: str | None,
    groups: Sequence[str] | None,
) -> Options:
    """The arguments as Options; ConfigError, in one line, for a value that none can have."""
    if times is not None and times != "samples" and times not in PER_SECOND:
        raise ConfigError(f"times={times!r}: is no unit of time here. Pass 'samples', 's' or 'ms'.")
    if sampling_rate is not None and not (_is_finite(sampling_rate) and sampling_rate > 0):
        raise ConfigError(f"sampling_rate={sampling_rate!r}: is no rate. Pass samples a second, above 0 and finite.")
    if not _is_finite(start_time):
        raise ConfigError(f"start_time={start_time!r}: is no time. Pass the seconds at sample 0 of the recording.")
    if isinstance(groups, str):
        raise ConfigError(f"groups={groups!r}: is one text. Pass a list, [{groups!r}].")
    if groups is not None and len(groups) == 0:
        raise ConfigError("groups=[]: chooses no unit. Name some labels, or leave it out for all units.")
    if groups is not None and units is not None:
        raise ConfigError("groups= and units=: both choose units. Leave one of them out.")
    return Options(
        times,
        None if sampling_rate is None else float(sampling_rate),
        float(start_time),
        None if units is None else _wanted(units),
        bool(counts),
        unit_column,
        time_column,
        None if groups is None else tuple(groups),
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, NUMBER) and not isinstance(value, bool) and bool(np.isfinite(value))


def _wanted(units: Sequence[Any] | np.ndarray) -> np.ndarray:
    if isinstance(units, (str, bytes)) or not isinstance(units, (Sequence, np.ndarray, range)):
        raise ConfigError(f"units={units!r}: is no list. Pass a list of unit ids, [{units!r}].")
    ids = checked_ids(units, "units=", ConfigError)
    if len(ids) == 0:
        raise ConfigError("units=[]: chooses no unit. Name some, or leave it out for all.")
    unique, first = np.unique(ids, return_index=True)
    if len(unique) < len(ids):
        twice = ids[np.setdiff1d(np.arange(len(ids)), first)[0]].item()
        raise ConfigError(f"units=: names unit {twice!r} twice. Name each once.")
    return ids
