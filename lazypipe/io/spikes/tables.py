"""Tables with a row a spike: which columns hold its unit and its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.clock import PER_SECOND
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events
from lazypipe.io.spikes.unit_ids import Column, checked_ids, encode

UNIT_NAMES = ("unit", "units", "unit_id", "unit_ids", "cluster", "clusters", "cluster_id")
SAMPLE_NAMES = ("sample", "samples", "spike_sample", "spike_samples")
TIME_NAMES = ("time", "times", "spike_time", "spike_times")
SPELT = {
    "samples": ("sample", "samples"),
    "s": ("s", "sec", "second", "seconds"),
    "ms": ("ms", "msec", "millisecond", "milliseconds"),
}


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read; ``unit`` is None where its only column is that of one unit's spikes."""

    unit: str | None
    time: str
    times: str  # how they are stored: "samples", "s" or "ms"

    @property
    def names(self) -> list[str]:
        return [self.time] if self.unit is None else [self.unit, self.time]


def choose_columns(schema: pa.Schema, options: Options, uri: str) -> Columns:
    """By ``unit_column`` and ``time_column``, else by their usual names.

    Raises DataError that lists the columns there, or names the one of a type that cannot be; ConfigError where
    nothing tells the unit of times.
    """
    names = list(schema.names)
    unit = _named(options.unit_column, names, UNIT_NAMES, "unit_column", uri)
    if unit is None and len(names) != 1:
        raise DataError(f"{uri}: has no column {_either(UNIT_NAMES)}, only {_some(names)}. Name it with unit_column=.")
    if unit is not None:
        _require_unit_type(schema.field(unit), uri)
    sample_names, time_names = SAMPLE_NAMES, TIME_NAMES
    if options.times in PER_SECOND:
        sample_names, time_names = time_names, sample_names
    time = _named(options.time_column, names, sample_names, "time_column", uri)
    time = time or _named(None, names, time_names, "time_column", uri)
    if time is None:
        known = _either(SAMPLE_NAMES + TIME_NAMES)
        raise DataError(f"{uri}: has no column {known}, only {_some(names)}. Name it with time_column=.")
    if time == unit:
        raise ConfigError(f"{uri}: column {time!r} cannot hold both units and times. Name another one of them.")
    field = schema.field(time)
    if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
        raise DataError(f"{uri}: column {time!r} has type {field.type}. Store samples as integers, times as floats.")
    return Columns(unit, time, _stored_as(field, options, uri))


def _named(given: str | None, names: list[str], usual: tuple[str, ...], option: str, uri: str) -> str | None:
    if given is not None and given not in names:
        raise DataError(f"{uri}: has no column {given!r}. Its columns are {_some(names)}.")
    found = [name for name in names if (name in usual if given is None else name == given)]
    if len(found) > 1:
        raise DataError(f"{uri}: has columns {_some(found)}, and only one can be. Choose one with {option}=.")
    return found[0] if found else None


def _stored_as(field: pa.Field, options: Options, uri: str) -> str:
    """How the times are stored: as the caller says, else the column's metadata, else its name."""
    if options.times is not None:
        if options.times in PER_SECOND and options.time_column is None and field.name in SAMPLE_NAMES:
            raise ConfigError(
                f"{uri}: column {field.name!r} holds samples by its name. Leave out times={options.times!r}, "
                f"or say time_column={field.name!r} as well."
            )
        return options.times
    metadata = field.metadata or {}
    said = (metadata.get(b"unit") or metadata.get(b"units") or b"").decode(errors="replace").lower()
    for stored, spellings in SPELT.items():
        if said in spellings:
            return stored
    if (said and field.name not in SAMPLE_NAMES) or field.name in TIME_NAMES:
        what = f"unit {said!r}, which is not known" if said else "no unit"
        raise ConfigError(f"{uri}: column {field.name!r} has {what}. Pass times='samples', 's' or 'ms'.")
    return "samples"


def _require_unit_type(field: pa.Field, uri: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_floating(kind):
        raise DataError(
            f"{uri}: column {field.name!r} has units given as floats. Unit ids are integers or text: cast them."
        )
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise DataError(f"{uri}: column {field.name!r} has type {field.type}. Unit ids are integers or text.")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def from_batches(batches: Iterable[pa.RecordBatch], columns: Columns, options: Options, uri: str) -> Spikes:
    """Spikes of a table that comes in parts, with those columns; row numbers in errors count through all parts."""
    clock = options.clock(uri, columns.times)
    parts = list(batches)
    time, units = _column(parts, columns.time, uri), None
    if columns.unit is not None:
        column = _column(parts, columns.unit, uri)
        del parts  # what is read goes as soon as it can: Arrow's, numpy's and the sorted are three times the size
        units = encode(_ids(column, f"{uri}: column {columns.unit!r}"))
        del column
    values = time.to_numpy()
    del time
    return from_events(values, units, clock, uri, options.units, lambda row: f"row {row:,}")


def _column(parts: list[pa.RecordBatch], name: str, uri: str) -> Column:
    if not parts:
        return pa.chunked_array([], pa.int64())
    column = pa.chunked_array([part.column(name) for part in parts])
    try:
        column.validate(full=True)  # offsets and codes of text, which Arrow would follow out of its memory
    except pa.ArrowException as error:
        raise DataError(f"{uri}: column {name!r} is damaged ({one_line(error)}). Write or copy it again.") from error
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{uri}: column {name!r} is empty (null) in row {row:,}. Leave such rows out.")
    return column


def _ids(column: Column, what: str) -> np.ndarray | Column:
    """Integers as numpy's; text as Arrow's, whose dictionary is cheaper than an object a spike."""
    if pa.types.is_dictionary(column.type):  # decoded: its dictionary may name units without spikes, or one twice
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        return column.cast(pa.large_string())
    return checked_ids(column.to_numpy(), what, DataError)


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:-1]) + f" or {names[-1]!r}"


def _some(names: list[str]) -> str:
    """At most eight of the names."""
    return (", ".join(repr(name) for name in names[:8]) + (", …" if len(names) > 8 else "")) or "none"
