"""What a caller says of a recording: checked on its own, then against what the files tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.recordings.rates import checked_rate, hertz, same_rate
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import sample_dtype
from lazypipe.io.sources import one_line


@dataclass(frozen=True, eq=False)
class Options:
    """What ``open_recording`` was told, each None where it was not."""

    sampling_rate: float | None = None  # Hz
    n_channels: int | None = None
    dtype: np.dtype | None = None  # with its byte order
    column: str | None = None
    offset_bytes: int = 0
    gain: np.ndarray | None = None  # (n_channels,) or ()
    offset: np.ndarray | None = None  # likewise
    unit: str | None = None

    @property
    def given(self) -> bool:
        """Whether the caller said anything."""
        return self.offset_bytes != 0 or any(
            value is not None
            for value in (
                self.sampling_rate, self.n_channels, self.dtype, self.column, self.gain, self.offset, self.unit,
            )
        )  # fmt: skip

    def refuse(self, uri: str, kind: str, *names: str) -> None:
        """DataError where an option was given that does not apply to this kind of source."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value != 0:
                raise DataError(f"{uri}: {name}={value!r} does not apply to {kind}. Leave it out.")

    def applied_to(self, recording: Recording) -> Recording:
        """The recording with what it did not tell filled in; DataError where the two disagree.

        A gain takes the place of the calibration in the file: of its gain, its offset and its unit.
        """
        uri, rate = recording.uri, self.sampling_rate
        if rate is not None and recording.sampling_rate is not None and not same_rate(rate, recording.sampling_rate):
            raise DataError(
                f"{uri}: its sampling rate is {hertz(recording.sampling_rate)}, sampling_rate={rate:.10g} was given. "
                f"Leave it out, or check which is right."
            )
        if self.n_channels not in (None, recording.n_channels, recording.matrix.shape[1]):
            raise DataError(
                f"{uri}: has {recording.n_channels:,} channels, n_channels={self.n_channels} was given. Leave it out."
            )
        if self.dtype is not None and self.dtype.newbyteorder("=") != recording.dtype:
            raise DataError(f"{uri}: holds {recording.dtype}, dtype={self.dtype.name!r} was given. Leave it out.")
        for name in ("gain", "offset"):
            values = getattr(self, name)
            if values is not None and values.shape not in ((), (recording.n_channels,)):
                raise ConfigError(
                    f"{name}: has shape {values.shape}, {uri} has {recording.n_channels:,} channels. "
                    f"Give one number, or one for each channel."
                )
        told = replace(recording, sampling_rate=recording.sampling_rate if rate is None else rate)
        if self.gain is not None:
            return replace(told, gain=self.gain, offset=self.offset, unit=self.unit or "")
        if (told.gain is not None or told.unit) and self.unit not in (None, told.unit):
            raise DataError(
                f"{uri}: its values are in {told.unit or 'no unit'}, unit={self.unit!r} was given. Give gain= with it."
            )
        if told.gain is not None and self.offset is not None:
            raise DataError(f"{uri}: has a gain of its own, only offset= was given. Give gain= with it.")
        return replace(
            told,
            offset=told.offset if self.offset is None else self.offset,
            unit=told.unit if self.unit is None else self.unit,
        )


def checked_options(
    sampling_rate: Any, n_channels: Any, dtype: Any, column: Any, offset_bytes: Any, gain: Any, offset: Any, unit: Any
) -> Options:
    """The options; ConfigError that names the first whose value no recording can have."""
    return Options(
        None if sampling_rate is None else checked_rate(sampling_rate),
        None if n_channels is None else _count("n_channels", n_channels, least=1),
        None if dtype is None else _dtype(dtype),
        _text("column", column),
        _count("offset_bytes", offset_bytes, least=0),
        _numbers("gain", gain),
        _numbers("offset", offset),
        _text("unit", unit),
    )


def _count(name: str, value: Any, least: int) -> int:
    try:
        count = index(value)
    except TypeError:
        count = least - 1
    if count < least or isinstance(value, bool):
        raise ConfigError(f"{name}: is {value!r}. Give a whole number, {least} or more.")
    return count


def _dtype(value: Any) -> np.dtype:
    try:
        dtype = np.dtype(value)
    except TypeError as error:
        raise ConfigError(f"dtype: {value!r} is none ({one_line(error)}). Give one such as 'int16'.") from error
    try:
        sample_dtype(dtype, "dtype")
    except DataError as error:
        raise ConfigError(str(error)) from error
    return dtype


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name}: is {value!r}. Give it as text.")
    return value


def _numbers(name: str, value: Any) -> np.ndarray | None:
    if value is None:
        return None
    try:
        numbers = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: is not a number ({one_line(error)}). Give one, or one a channel.") from error
    if numbers.ndim > 1 or not np.isfinite(numbers).all():
        raise ConfigError(f"{name}: is to be one finite number, or one for each channel. Check {value!r:.60}.")
    return numbers
