"""NWB files: series of samples x channels with their clock and calibration, read by h5py alone.

The layout is NWB 2's: a group with the attribute ``neurodata_type``, in it ``data`` with the attributes
``conversion``, ``offset`` and ``unit``, and ``starting_time`` with the attribute ``rate``, or ``timestamps``.
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.recordings.h5_dataset import matrix_of
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.rates import told_rate
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import choose, frame_shape, is_samples
from lazypipe.io.recordings.timestamps import read_clock
from lazypipe.stores import AnyPath

PLACES = ("acquisition", "stimulus/presentation", "processing")
NOT_SAMPLES = ("SpikeEventSeries", "IntervalSeries", "AnnotationSeries", "IndexSeries")  # events, not a clock
NO_UNIT = ("", "unknown", "n.a.", "n/a", "na", "not available")
MICROVOLTS = 1e6


def is_nwb(file: h5py.File) -> bool:
    """Whether NWB wrote the file."""
    return "nwb_version" in file.attrs


def open_series(path: AnyPath, file: h5py.File, options: Options) -> Recording:
    """The series ``column``, by name or path, or the only one; volts become µV.

    Of timestamps all are read, 8 MiB at a time: a gap between two begins a new stretch. Raises DataError where
    the series is not there, there are several and none was asked for, or its clock is not regular.
    """
    found = _series(file)
    fit = {name: _is_samples(group) for name, group in found.items()}
    group = found[choose(fit, options.column, str(path), ("series", "series"))]
    where = f"{path}: {group.name}"
    if "external_file" in group or not isinstance(group.get("data"), h5py.Dataset):
        raise DataError(f"{where} has no data of its own: external files are not read. Open these.")
    data = group["data"]
    matrix = matrix_of(path, data)
    _require_time_first(group, data.shape, where)
    rate, start_time, stretches = _clock(group, data.shape[0], options.sampling_rate, where)
    gain, offset, unit = _calibration(group, matrix.shape[1], where)
    return Recording(
        matrix, rate, stretches, sample_shape=frame_shape(data.shape),
        gain=gain, offset=offset, unit=unit, start_time=start_time,
    )  # fmt: skip


def _series(file: h5py.File) -> dict[str, h5py.Group]:
    """Every series below PLACES, by its path."""
    found: dict[str, h5py.Group] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Group):
            kind = _text(node.attrs.get("neurodata_type", ""))
            if kind.endswith("Series") and kind not in NOT_SAMPLES:
                found[node.name.strip("/")] = node

    for place in PLACES:
        if isinstance(file.get(place), h5py.Group):
            file[place].visititems(visit)
    return found


def _is_samples(group: h5py.Group) -> bool:
    data = group.get("data")
    return isinstance(data, h5py.Dataset) and is_samples(data.shape or (), data.dtype)


def _require_time_first(group: h5py.Group, shape: tuple[int, ...], where: str) -> None:
    """DataError where timestamps or electrodes say that time is another axis, or that some is missing."""
    told = {"timestamps": (0, "timestamps"), "electrodes": (1, "electrodes")}
    for name, (axis, what) in told.items():
        counted = group.get(name)
        if not isinstance(counted, h5py.Dataset) or counted.ndim != 1 or len(shape) <= axis:
            continue
        n, expected = counted.shape[0], shape[axis]
        if n == expected or n == 0:
            continue
        if len(shape) == 2 and n == shape[1 - axis]:
            raise DataError(f"{where} is stored as channels x time: {shape}, {n:,} {what}. Write its transpose.")
        raise DataError(f"{where} has data of shape {shape}, but {n:,} {what}. Check what wrote it.")


def _clock(
    group: h5py.Group, n_samples: int, given: float | None, where: str
) -> tuple[float | None, float, tuple[Span, ...]]:
    """(rate in Hz, seconds at sample 0, stretches); rate None where the series tells no time at all."""
    start = group.get("starting_time")
    if isinstance(start, h5py.Dataset):
        seconds = _number(start[()], f"{where}: its starting_time")
        return told_rate(start.attrs.get("rate"), where), seconds, ()
    stamps = group.get("timestamps")
    if isinstance(stamps, h5py.Dataset) and stamps.size:
        clock = read_clock(stamps, given, where)
        whole = clock.stretches == (Span(0, n_samples),)
        return clock.rate, clock.start_time, () if whole else clock.stretches
    return None, 0.0, ()


def _calibration(group: h5py.Group, n_channels: int, where: str) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """(gain, offset, unit): values in ``unit`` are stored * gain + offset."""
    attributes = group["data"].attrs
    gain = np.array(_number(attributes.get("conversion", 1.0), f"{where}: its conversion"))
    offset = np.array(_number(attributes.get("offset", 0.0), f"{where}: its offset"))
    unit = _text(attributes.get("unit", "")).strip()
    each = group.get("channel_conversion")
    if isinstance(each, h5py.Dataset) and each.size:
        factors = np.asarray(each[()], np.float64).reshape(-1)
        if len(factors) != n_channels or not np.isfinite(factors).all():
            raise DataError(
                f"{where} has {n_channels:,} channels, but a channel_conversion of {len(factors):,} numbers, or one "
                f"that is not finite. Check what wrote it."
            )
        gain = gain * factors
    if unit.lower() in ("v", "volt", "volts"):
        gain, offset, unit = np.asarray(gain * MICROVOLTS), np.asarray(offset * MICROVOLTS), "µV"
    elif unit.lower() in NO_UNIT:
        unit = ""
    return None if np.all(gain == 1) else gain, offset if offset else None, unit


def _number(value: Any, what: str) -> float:
    try:
        number = float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{what} is {np.asarray(value).tolist()!r:.60}, not a number. Check what wrote the file.")
    return number


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
