"""What jobs over a recording and its spikes have in common: how both are named, opened, and cut into windows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

import lazypipe as lp
from jobs._config import Config
from jobs._values import ids, numbers, one_or_more_numbers, pair, path_or_pairs, words
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.recordings import Recording
from lazypipe.io.spikes import Spikes, is_in_seconds
from lazypipe.stores import AnyPath, as_given

IN_TIME = ("s", "ms")


Uri = Annotated[str, Field(min_length=1)]
Number = int | float
Numbers = Annotated[float | tuple[float, ...] | None, BeforeValidator(one_or_more_numbers)]


class NamesConfig(Config):
    """A recording, and its spikes."""

    source: Uri | tuple[Uri, ...] = Field(
        description="recording to read, samples x channels: raw binary (.bin, .dat, .raw), SpikeGLX, .npy, Arrow IPC, "
        "HDF5, NWB or Zarr; several files are stretches of one recording, and no window crosses from one to the next"
    )
    spikes: str = Field(
        min_length=1,
        description="spikes to read: .npz with arrays samples and units, .npy or text (one unit), Arrow IPC or Parquet "
        "(a row a spike), a Kilosort or phy folder, NWB",
    )


class CuttingConfig(Config):
    """The window around each spike."""

    window: Annotated[tuple[Number, Number], BeforeValidator(pair)] = Field(
        description="start and stop of the window, counted from the spike; the stop is not in it, so -149 1 ends with "
        "the spike's own sample; written -149 1 or -149,1"
    )
    window_unit: Literal["samples", "s", "ms"] = Field("samples", description="unit of start and stop")
    edges: Literal["drop", "nan"] = Field(
        "drop",
        description="windows that reach beyond the recording, or into a gap: leave them out (drop), or average the "
        "part that was recorded (nan: lags that no window has are NaN)",
    )
    weights: Literal["count", "binary"] = Field(
        "count", description="several spikes of a unit in one sample: all of them count, or as one (binary)"
    )
    nan: Literal["raise", "omit", "propagate"] = Field(
        "raise",
        description="a NaN or infinity in a window: an error (raise), a reason to leave the window out (omit), or NaN "
        "at its lag and channel (propagate)",
    )
    exclude: Annotated[str | tuple[tuple[int, int], ...] | None, BeforeValidator(path_or_pairs)] = Field(
        None,
        description="stretches that no window may touch, such as artefacts, as start,stop in samples, stop not in it: "
        "100,200 5000,6000, or a .npy or .csv file of two columns",
    )

    @field_validator("window")
    @classmethod
    def _holds_samples(cls, value: tuple[Number, Number]) -> tuple[Number, Number]:
        start, stop = value
        if start >= stop:
            told = f"{start:g} {stop:g}"
            raise ValueError(f"{told} holds no sample; its start must be before its stop, which is not in it")
        return value


class WindowsConfig(CuttingConfig, NamesConfig):
    """A recording, its spikes, and the window around each."""


class ReadingConfig(Config):
    """What a recording and spikes do not tell of themselves."""

    sampling_rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="samples a second (Hz), where the recording's files do not tell it"
    )
    n_channels: int | None = Field(None, ge=1, description="how many channels raw binary has")
    dtype: str | None = Field(None, description="type of the values of raw binary, such as int16")
    column: str | None = Field(
        None, description="dataset, series, array or column of the source to read, where it has several"
    )
    starts: Annotated[tuple[int, ...] | None, BeforeValidator(numbers)] = Field(
        None,
        description="sample at which each of several sources begins, such as 0 950000; without it each follows the "
        "one before",
    )
    offset_bytes: int = Field(0, ge=0, description="bytes of header that raw binary begins with")
    gain: Numbers = Field(
        None,
        description="what stored values are multiplied by, such as 2.34 (µV a count): one number, or one a channel",
    )
    offset: Numbers = Field(None, description="what is added after that: one number, or one a channel")
    unit: str | None = Field(None, description="name of the unit that values then have, such as µV")
    times: Literal["samples", "s", "ms"] | None = Field(
        None, description="what the spikes file gives times in; without it what the format says, else samples"
    )
    start_time: float | None = Field(
        None,
        allow_inf_nan=False,
        description="when sample 0 was, in seconds on the clock of spike times in s or ms; without it what the "
        "recording says, else 0",
    )
    units: Annotated[tuple[int | str, ...] | None, BeforeValidator(ids)] = Field(
        None, description="ids of the units (neurons) to take, in that order, such as 3 5 8; without it all"
    )
    counts: bool = Field(
        False, description="the spikes file (.npy, text) holds how many spikes each sample has, not when they were"
    )
    unit_column: str | None = Field(None, description="column of a table of spikes that holds the unit's id")
    time_column: str | None = Field(None, description="column of a table of spikes that holds samples or times")
    groups: Annotated[tuple[str, ...] | None, BeforeValidator(words)] = Field(
        None, description="labels of the units to take from a Kilosort or phy folder, such as good"
    )


class RecordingConfig(ReadingConfig, WindowsConfig):
    """A recording and its spikes, whole."""


@dataclass(frozen=True)
class Inputs:
    """A recording and its spikes, open; as the data of a run, it is the recording."""

    recording: Recording
    spikes: Spikes
    exclude: tuple[tuple[int, int], ...]

    @property
    def uri(self) -> str:
        return self.recording.uri

    @property
    def shape(self) -> tuple[int, ...]:
        return self.recording.shape

    @property
    def dtype(self) -> np.dtype:
        return self.recording.dtype

    def fingerprint(self) -> str:
        return self.recording.matrix.fingerprint()


def open_inputs(config: RecordingConfig) -> Inputs:
    """Open what the config names; of the recording only metadata are read, of the spikes all."""
    recording = lp.open_recording(
        config.source if isinstance(config.source, str) else list(config.source),
        sampling_rate=config.sampling_rate,
        n_channels=config.n_channels,
        dtype=config.dtype,
        column=config.column,
        starts=config.starts,
        offset_bytes=config.offset_bytes,
        gain=config.gain,
        offset=config.offset,
        unit=config.unit,
    )
    start_time = config.start_time
    if start_time is None:  # of samples there is none
        in_time = config.times in IN_TIME or (config.times is None and is_in_seconds(config.spikes))
        start_time = recording.start_time if in_time else 0.0
    read = partial(
        lp.read_spikes,
        config.spikes,
        times=config.times,
        sampling_rate=recording.sampling_rate,
        start_time=start_time,
        counts=config.counts,
        unit_column=config.unit_column,
        time_column=config.time_column,
        groups=config.groups,
    )
    spikes = read(units=config.units)
    if config.units and not len(spikes.samples):
        _require_units(config.units, read(units=None))
    _require_spikes_within(spikes, recording)
    return Inputs(recording, spikes, excluded(config.exclude))


def _require_units(asked: tuple[int | str, ...], spikes: Spikes) -> None:
    """ConfigError where there are spikes, and none is of a unit that was asked for."""
    there = spikes.unit_ids.tolist()
    if there and not set(there) & set(asked):
        shown = ", ".join(map(str, there[:8])) + (", ..." if len(there) > 8 else "")
        raise lp.ConfigError(
            f"units: none of {', '.join(map(str, asked))} is in {spikes.uri}, which has {shown}. Give some of those."
        )


def _require_spikes_within(spikes: Spikes, recording: Recording) -> None:
    """DataError where every spike lies beyond the end, so that nothing could come out."""
    n = len(spikes.samples)
    if n and spikes.samples.min() >= recording.stop:
        raise lp.DataError(
            f"{spikes.uri}: all of its {n:,} spikes lie beyond the end of {recording.uri} (sample {recording.stop:,}). "
            f"Check that the two belong together, and their sampling rates."
        )


def excluded(intervals: str | tuple[tuple[int, int], ...] | None) -> tuple[tuple[int, int], ...]:
    """Intervals (start, stop) in samples, read from a .npy or .csv file where a path is given."""
    if intervals is None or isinstance(intervals, tuple):
        return intervals or ()
    path = as_given(intervals)
    if path.suffix not in (".npy", ".csv"):
        raise lp.ConfigError(f"exclude: {intervals!r} is neither start,stop in samples nor a .npy or .csv file.")
    try:
        rows = _npy_rows(path) if path.suffix == ".npy" else _csv_rows(path)
        return tuple((_sample(start), _sample(stop)) for start, stop in rows)
    except OSError as error:
        raise lp.DataError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from error
    except (*DAMAGED, OverflowError, csv.Error) as error:
        raise lp.DataError(
            f"{path}: holds no rows of start, stop in whole samples. Write two integers a row."
        ) from error


def _npy_rows(path: AnyPath) -> list[list[Any]]:
    with path.open("rb") as file:
        return list(np.lib.format.read_array(file, allow_pickle=False).tolist())  # np.load takes an .npz, too


def _csv_rows(path: AnyPath) -> list[list[Any]]:
    """Rows that hold something; a first one that holds no number is the head."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    if rows and not any(_is_number(cell) for cell in rows[0]):
        rows = rows[1:]
    if not rows:
        raise ValueError("no rows")
    return [[float(cell) for cell in row] for row in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return any(character.isdigit() for character in cell)  # "1 000" is a number written wrongly, and no head
    return True


def _sample(value: Any) -> int:
    if int(value) != value:
        raise ValueError
    return int(value)
