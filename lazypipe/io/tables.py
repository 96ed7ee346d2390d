"""Tables as matrices (Arrow, Parquet): which columns are the features, and how a batch fills a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError

Array: TypeAlias = pa.Array


@dataclass(frozen=True)
class Layout:
    """The features: one list column, or several numeric ones. ``width`` is None until a list was read."""

    names: tuple[str, ...]
    stored: str  # dtype, as text: cheap to pickle
    is_list: bool
    is_fixed_list: bool
    width: int | None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored)

    @property
    def n_columns(self) -> int:
        return self.width or 0

    def with_width(self, width: int) -> Layout:
        return replace(self, width=width)


def choose_layout(schema: pa.Schema, column: str | None, uri: str) -> Layout:
    """The features of a table with ``schema``: ``column``, or its only list column, or all its columns.

    Raises DataError that names the candidates, or the column and type that cannot be a feature.
    """
    names = list(schema.names)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{uri}: has two columns {twice!r}. Give each column its own name.")
    lists = [field.name for field in schema if list_item(field.type) is not None]
    if column is not None:
        if column not in names:
            raise DataError(f"{uri}: has no column {column!r}. Its columns are {_some(names)}.")
        return _layout(schema, [column], uri)
    if not names:
        raise DataError(f"{uri}: is empty: no columns. Check what wrote it.")
    if len(lists) > 1:
        raise DataError(f"{uri}: has {len(lists)} list columns, {_some(lists)}. Choose one with column=.")
    return _layout(schema, lists or names, uri)


def _layout(schema: pa.Schema, names: list[str], uri: str) -> Layout:
    fields = [schema.field(name) for name in names]
    item = list_item(fields[0].type) if len(fields) == 1 else None
    if item is not None:
        value_type, width = item
        dtype = feature_dtype(value_type, fields[0], uri)
        return Layout((names[0],), dtype.name, True, width is not None, width)
    dtypes = [feature_dtype(field.type, field, uri) for field in fields]
    dtype = np.result_type(*set(dtypes))
    return Layout(tuple(names), dtype.name, False, False, len(names))


def list_item(kind: pa.DataType) -> tuple[pa.DataType, int | None] | None:
    """(type of the entries, entries a row if it is fixed) of a list type, else None."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return (kind.value_type, kind.shape[0]) if len(kind.shape) == 1 else None
    if pa.types.is_fixed_size_list(kind):
        return kind.value_type, kind.list_size
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return kind.value_type, None
    return None


def feature_dtype(kind: pa.DataType, field: pa.Field, uri: str) -> np.dtype:
    """The dtype of numbers of type ``kind``; DataError that names ``field`` where a matrix cannot have it."""
    if pa.types.is_boolean(kind):
        return np.dtype(np.bool_)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        if dtype.name in SUPPORTED_DTYPES:
            return dtype
        raise DataError(
            f"{uri}: column {field.name!r} has type {field.type}. Convert it to one of {', '.join(SUPPORTED_DTYPES)}."
        )
    raise DataError(
        f"{uri}: column {field.name!r} has type {field.type}, which is no number. "
        f"Leave it out, convert it, or name the column of features with column=."
    )


def fill(batch: pa.RecordBatch | pa.Table, layout: Layout, columns: Span, out: np.ndarray, uri: str, row: int) -> None:
    """Fill ``out`` (rows of the batch, len(columns)) with its features; ``row`` is its first row.

    ``batch`` holds at least the columns of ``layout`` that ``columns`` selects.
    Raises DataError at the first null or the first list of another length.
    """
    if layout.is_list:
        at = 0
        for chunk in chunks_of(batch.column(layout.names[0])):
            values = list_values(chunk, uri, layout.names[0], row + at, layout.width)
            array = _to_numpy(values).reshape(len(chunk), layout.n_columns)
            np.copyto(out[at : at + len(chunk)], array[:, columns.slice], casting="unsafe")
            at += len(chunk)
        return
    for j, name in enumerate(layout.names[columns.slice]):
        at = 0
        for chunk in chunks_of(batch.column(name)):
            if chunk.null_count:
                raise _null(uri, row + at + first_null(chunk), f"column {name!r}")
            np.copyto(out[at : at + len(chunk), j], _to_numpy(chunk), casting="unsafe")
            at += len(chunk)


def list_values(column: Array, uri: str, name: str, row: int, width: int | None) -> Array:
    """The entries of a list column's rows, back to back; each must have ``width`` (or equal) entries.

    Raises DataError that names the row (counted from ``row``) of the first null or ragged list.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count:
        raise _null(uri, row + first_null(column), f"column {name!r}")
    if pa.types.is_fixed_size_list(column.type):
        width = column.type.list_size
        values = column.values.slice(column.offset * width, len(column) * width)
    elif len(column) == 0:
        return column.values.slice(0, 0)
    else:
        offsets = column.offsets.to_numpy()
        lengths = np.diff(offsets)
        width = int(lengths[0]) if width is None else width
        ragged = np.flatnonzero(lengths != width)
        if len(ragged):
            raise DataError(
                f"{uri}: row {row + int(ragged[0]):,} of column {name!r} has {int(lengths[ragged[0]]):,} "
                f"entries where others have {width:,}. Pad or cut the lists to one length."
            )
        values = column.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    if values.null_count:
        bad_row, bad_column = divmod(first_null(values), max(1, width))
        raise _null(uri, row + bad_row, f"column {bad_column:,} of {name!r}")
    return values


def chunks_of(column: Array | pa.ChunkedArray) -> list[Array]:
    """The arrays that a column consists of."""
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _to_numpy(values: Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False)


def first_null(values: Array) -> int:
    """Where the first null is, of values that have one."""
    return int(pc.index(pc.is_null(values), pa.scalar(True)).as_py())


def _null(uri: str, row: int, where: str) -> DataError:
    return DataError(f"{uri}: missing value (null) at row {row:,}, {where}. Fill it or leave the row out.")


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
