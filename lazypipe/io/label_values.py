"""What labels are made of: kinds that are told apart and not mixed, and the checks on shape and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line


def from_memory(source: Any, uri: str) -> np.ndarray:
    """An array, a list, or a column of pandas or pyarrow as an array, not checked yet."""
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        return _of_items(source, uri)
    if type(source).__module__.startswith("pyarrow.") and hasattr(source, "null_count"):
        return of_arrow(source, uri)
    convert = getattr(source, "to_numpy", None) or getattr(source, "__array__", None)
    if convert is None:
        raise DataError(
            f"{uri}: a {type(source).__name__} cannot be read as labels. Pass an array with an entry a row, or a path."
        )
    try:
        return np.asarray(convert())
    except Exception as error:  # another library's: a tensor on a GPU, for instance
        raise DataError(f"{uri}: is no array ({one_line(error)}). Pass one with an entry a row.") from error


def of_arrow(column: Any, uri: str) -> np.ndarray:
    """A pyarrow Array or ChunkedArray."""
    import pyarrow as pa

    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    try:
        column.validate(full=True)  # offsets of text, which Arrow would follow out of its memory
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count:
            raise missing(uri, int(np.flatnonzero(column.is_null().to_numpy())[0]))
        return np.asarray(column.to_numpy())
    except pa.ArrowException as error:
        raise DataError(f"{uri}: is damaged ({one_line(error)}). Write or copy it again.") from error


def _of_items(items: Sequence[Any], uri: str) -> np.ndarray:
    """Single objects, whose types tell text from numbers: NumPy would make text of both."""
    kinds = {kind: _kind(kind) for kind in set(map(type, items))}
    found = set(kinds.values())
    if found <= {"text"}:
        try:
            return np.array([item.decode() if isinstance(item, bytes) else item for item in items], np.str_)
        except UnicodeDecodeError as error:
            raise DataError(f"{uri}: is not UTF-8 text ({one_line(error)}). Decode it first.") from error
    if found == {"a number"}:
        return of_numbers(items, uri)
    if found == {"a truth value"}:
        return np.array(items, np.bool_)
    raise _at_fault(items, kinds, uri)


def _kind(kind: type) -> str:
    if issubclass(kind, (str, bytes)):
        return "text"
    if issubclass(kind, (bool, np.bool_)):
        return "a truth value"
    if issubclass(kind, Real):
        return "a number"
    return "missing" if kind.__name__ in ("NoneType", "NAType", "NaTType") else kind.__name__


def of_numbers(items: Sequence[Any], uri: str) -> np.ndarray:
    """int64 where all are whole, else float64."""
    whole = all(issubclass(kind, Integral) for kind in set(map(type, items)))
    try:
        return np.array(items, np.int64 if whole else np.float64)
    except OverflowError as error:
        raise DataError(f"{uri}: has a number that 64 bits do not hold. Number the classes, or scale it.") from error


def _at_fault(items: Sequence[Any], kinds: dict[type, str], uri: str) -> DataError:
    """For items that are not of one kind: the first that is at fault."""
    first = ""
    for row, item in enumerate(items):
        kind = kinds[type(item)]
        if kind == "missing" or (isinstance(item, (float, np.floating)) and item != item):
            return missing(uri, row)
        if kind not in ("text", "a number", "a truth value"):
            return DataError(f"{uri}: row {row:,} is a {kind}. Labels are numbers, truth values or text, one a row.")
        if first and kind != first:
            return DataError(f"{uri}: row {row:,} is {kind}, row 0 is {first}. Make all labels of one kind.")
        first = kind
    raise AssertionError("items of one kind")


def checked(values: np.ndarray, uri: str, n_rows: int | None) -> np.ndarray:
    """``values`` (n,) of a kind that labels may be, in native byte order."""
    require_shape(values.shape, uri, n_rows)
    values = values.reshape(-1)
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            raise missing(uri, int(np.argmax(np.ma.getmaskarray(values))))
        values = values.data
    if values.dtype.kind in "OST":
        values = _of_items(values.tolist(), uri)
    if values.dtype.kind not in "biufU":
        raise DataError(f"{uri}: holds dtype {values.dtype}. Labels are numbers, truth values or text.")
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        row = int(np.argmin(finite))
        if np.isnan(values[row]):
            raise missing(uri, row)
        raise DataError(f"{uri}: row {row:,} is infinite. Correct it, or leave the row out, of the matrix too.")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def require_shape(shape: Sequence[int], uri: str, n_rows: int | None) -> None:
    """DataError unless ``shape`` is that of labels, ``n_rows`` of them where that is given."""
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise DataError(f"{uri}: has shape {tuple(shape)}, labels have one dimension. Pass one column, an entry a row.")
    if shape[0] == 0:
        raise DataError(f"{uri}: is empty: no labels. Check what wrote it.")
    if n_rows is not None and shape[0] != n_rows:
        raise DataError(f"{uri}: {shape[0]:,} labels, but X has {n_rows:,} rows. Give one label a row.")


def missing(uri: str, row: int) -> DataError:
    """What to raise where ``row`` is the first without a label."""
    return DataError(f"{uri}: row {row:,} has no label. Leave such rows out, of the matrix too, or fill it in.")
