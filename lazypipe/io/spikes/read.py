"""``read_spikes``: which format a source is, and what the caller may say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.formats import Format, format_of, suffixes_of, unknown
from lazypipe.io.sources import require_there
from lazypipe.io.spikes.clock import PER_SECOND
from lazypipe.io.spikes.memory import from_array, from_mapping, of_units
from lazypipe.io.spikes.options import Options, checked_options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.stores import AnyPath, Place, path_of


@dataclass(frozen=True)
class SpikeFormat(Format):
    """``module`` has ``read(path, options) -> Spikes``."""

    takes: tuple[str, ...] = ()  # options that mean something here, of those that not all formats take


COLUMNS = ("unit_column", "time_column")
TEXT = SpikeFormat("text", (".txt", ".csv"), takes=("counts",))
FORMATS = (
    SpikeFormat("npz", (".npz",), magic=b"PK\x03\x04"),
    SpikeFormat("npy", (".npy",), magic=b"\x93NUMPY", takes=("counts",)),
    SpikeFormat("arrow", (".arrow", ".feather", ".ipc"), magic=b"ARROW1", takes=COLUMNS),
    SpikeFormat("parquet", (".parquet", ".pq"), magic=b"PAR1", inside=("*.parquet", "*.pq"), takes=COLUMNS),
    SpikeFormat("nwb", (".nwb",), magic=b"\x89HDF\r\n\x1a\n", needs=("neuro", "h5py")),
    SpikeFormat("phy", (), inside=("spike_times.npy",), takes=("groups",)),
    TEXT,
)
IN_MEMORY = ("counts",)


def read_spikes(
    source: str | AnyPath | np.ndarray | Mapping[Any, Any] | Spikes,
    *,
    times: str | None = None,
    sampling_rate: float | None = None,
    start_time: float = 0.0,
    units: Sequence[Any] | np.ndarray | None = None,
    counts: bool = False,
    unit_column: str | None = None,
    time_column: str | None = None,
    groups: Sequence[str] | None = None,
) -> Spikes:
    """Read spikes as unit id -> samples (n,) int64, in order.

    ``source`` is a path or an address (``file://``, ``s3://``), an array (n_spikes,) of one unit, a dict
    {unit id: array}, or open Spikes. Files of one unit, which gets id 0: .npy, and text (.txt, .csv, no suffix) with a
    number a line and ``#`` comments. Of many units, interleaved or not: .npz with ``samples`` (or ``times``) and
    ``units``; an Arrow or Parquet table with a row a spike; a Kilosort or phy folder; the units of an NWB file.

    ``times`` is how times are stored: "samples", "s" or "ms"; None for what the format says (NWB: seconds), and
    samples where it says nothing. Seconds and milliseconds need ``sampling_rate`` (Hz), and are rounded once, to the
    nearest sample; ``start_time`` (seconds) is when sample 0 was, on the clock of the spikes.

    ``units`` chooses units, in that order; one without spikes has an empty train. Without it units come sorted,
    but those of a dict or an NWB file as they are there. ``counts=True`` reads an array (.npy, text, or in memory)
    as spikes a sample, (n_samples,) or (n_samples, n_units): 3 gives the sample three times; truth values are
    always read so. ``unit_column`` and ``time_column`` name columns of a table. ``groups=("good",)`` chooses the
    units of a phy folder by their label in cluster_group.tsv, or else cluster_KSLabel.tsv.

    Memory: a few times 8 bytes a spike. Raises DataError for what cannot be read as spikes (spikes of a unit out of
    order, negative, not finite), ConfigError for arguments that are missing or mean nothing here; in one line.
    """
    options = checked_options(times, sampling_rate, start_time, units, counts, unit_column, time_column, groups)
    if isinstance(source, Spikes):
        _require_taken(options, (), source.uri)
        if options.times in PER_SECOND:
            raise ConfigError(f"{source.uri}: is read already, in samples. Leave out times={options.times!r}.")
        options.clock(source.uri)
        return source if options.units is None else of_units(source, options.units)
    if isinstance(source, Mapping):
        _require_taken(options, IN_MEMORY, "<spikes>")
        return from_mapping(source, options)
    if isinstance(source, (np.ndarray, list, tuple)):
        _require_taken(options, IN_MEMORY, "<spikes>")
        return from_array(source, options)
    if not isinstance(source, (str, Path, Place)):
        raise DataError(
            f"{type(source).__name__}: cannot be read as spikes. "
            f"Pass a path, a dict {{unit id: samples}}, or an array of one unit's samples."
        )
    path = path_of(source)
    require_there(path)
    format = _format_of(path)
    _require_taken(options, format.takes, str(path))
    spikes: Spikes = format.load("lazypipe.io.spikes").read(path, options)
    return spikes


def _require_taken(options: Options, takes: tuple[str, ...], uri: str) -> None:
    """ConfigError for an option that this source would not heed."""
    for name in ("counts", "unit_column", "time_column", "groups"):
        value = getattr(options, name)
        if value and name not in takes:
            raise ConfigError(f"{uri}: {name}={value!r} means nothing here. Leave it out.")


def _format_of(path: AnyPath) -> SpikeFormat:
    found, known = format_of(path, FORMATS), suffixes_of(FORMATS)
    if found is not None:
        return found
    if path.is_dir():
        raise DataError(
            f"{path}: is a directory without spikes. Pass a Kilosort or phy folder with spike_times.npy, "
            f"a directory of .parquet parts, or one file ({known})."
        )
    if not path.suffix:
        return TEXT
    raise DataError(f"{path}: {unknown(path)}. Known formats: {known}.")


def is_in_seconds(source: str | AnyPath) -> bool:
    """Whether the format of a file says that its times are in seconds: NWB, whatever its name."""
    path = path_of(source)
    return path.exists() and _format_of(path).module == "nwb"
