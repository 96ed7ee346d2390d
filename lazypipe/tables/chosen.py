"""Which columns of a table go into the matrix, in which order, and what each is."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, types
from pyspark.sql import functions as sql

from lazypipe.checks import nearest
from lazypipe.errors import DataError
from lazypipe.tables.features import Feature, Kind

KINDS: dict[type[types.DataType], Kind] = {
    types.BooleanType: "truth",
    types.ByteType: "integer",
    types.ShortType: "integer",
    types.IntegerType: "integer",
    types.LongType: "integer",
    types.FloatType: "float32",
    types.DoubleType: "float64",
    types.DecimalType: "float64",
    types.DateType: "day",
    types.TimestampType: "second",
    types.TimestampNTZType: "second",
    types.StringType: "text",
    types.CharType: "text",
    types.VarcharType: "text",
}
NAMES_SHOWN = 8
TYPE_SHOWN = 60  # characters


def choose(
    schema: types.StructType, columns: Sequence[str] | None, label: str | None, categories: str | None, uri: str
) -> tuple[tuple[Feature, ...], Feature | None]:
    """The columns named, or all but the label in the table's order; and the label.

    DataError for a name that the table does not have, and for columns that are no numbers, unless text is to become
    categories; dates have to be named.
    """
    known = [field.name for field in schema]
    names = list(columns) if columns is not None else [name for name in known if name != label]
    _require_known([*names, *([] if label is None else [label])], known, uri)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{uri}: column {twice!r} is named twice. Name it once.")
    if label is not None and label in names:
        raise DataError(f"{uri}: column {label!r} is the label, and named among the columns too. Leave out one.")
    found = [feature(schema[name]) for name in names]
    numbers = [one.name for one in found if one is not None and one.kind not in ("text", "day", "second")]
    instead = _instead(numbers)
    chosen = []
    for name, one in zip(names, found, strict=True):
        if one is None:
            kind = schema[name].dataType.simpleString()
            raise DataError(f"{uri}: column {name!r} is a {kind[:TYPE_SHOWN]}, no number; {instead}.")
        if one.kind == "text" and categories is None:
            raise DataError(
                f"{uri}: column {name!r} is text. Make categories of it, one-hot or codes (--categories); or {instead}."
            )
        if one.kind in ("day", "second") and columns is None:
            unit = "days" if one.kind == "day" else "seconds"
            raise DataError(
                f"{uri}: column {name!r} is a {one.type}. Name it among the columns (--columns) to have it as {unit} "
                f"since 1970; or {instead}."
            )
        chosen.append(one)
    if not chosen:
        raise DataError(f"{uri}: has no columns{' beside the label' if label else ''}. Check what wrote it.")
    return tuple(chosen), None if label is None else _label(schema[label], uri)


def feature(field: types.StructField) -> Feature | None:
    """What a column is; None for what has no numbers."""
    kind, inner = field.dataType, field.dataType
    name, shown = field.name, kind.simpleString()
    if isinstance(kind, VectorUDT):
        return Feature(name, "vector", "float64", is_list=True)
    if isinstance(kind, types.ArrayType):
        inner = kind.elementType
    found = KINDS.get(type(inner))
    if found is None or (inner is not kind and found in ("text", "day", "second")):
        return None
    return Feature(name, shown, found, is_list=inner is not kind)


def selected(one: Feature, schema: types.StructType) -> Column:
    """The column as Spark sends it: vectors as lists, decimals as float64."""
    column = sql.col("`{}`".format(one.name.replace("`", "``")))
    kind = schema[one.name].dataType
    if isinstance(kind, VectorUDT):
        from pyspark.ml.functions import vector_to_array

        return vector_to_array(column)
    if isinstance(kind, types.DecimalType):
        return column.cast("double")
    if isinstance(kind, types.ArrayType) and isinstance(kind.elementType, types.DecimalType):
        return column.cast("array<double>")
    return column.cast("string") if one.kind == "text" else column


def _label(field: types.StructField, uri: str) -> Feature:
    found = feature(field)
    if found is None or found.is_list:
        kind = field.dataType.simpleString()
        raise DataError(
            f"{uri}: the label {field.name!r} is a {kind[:TYPE_SHOWN]}. Labels are numbers, truth values or text."
        )
    return found


def _require_known(names: Sequence[str], known: Sequence[str], uri: str) -> None:
    for name in names:
        if name not in known:
            others = nearest(name, known) or f". Its columns are {_some(known)}"
            raise DataError(f"{uri}: has no column {name!r}{others}.")


def _instead(numbers: Sequence[str]) -> str:
    """What to do without the columns that are none."""
    if not numbers:
        return "convert it to numbers first (of text files, --options header=true inferSchema=true may do)"
    names = " ".join(repr(name) if " " in name else name for name in numbers[:NAMES_SHOWN])
    more = f" and {len(numbers) - NAMES_SHOWN} more" if len(numbers) > NAMES_SHOWN else ""
    return f"name the columns to take, --columns {names}{more}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
