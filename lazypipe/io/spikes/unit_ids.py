"""Unit ids: integers or text, never floats; a number for each, and which of them were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lazypipe.errors import ConfigError, DataError

Column: TypeAlias = Any  # pyarrow.ChunkedArray: Arrow is loaded where it is used

FEW = 1 << 16  # numpy sorts 16-bit numbers by radix, in a third of the time
RANKS_AT_ONCE = 1 << 20


def checked_ids(ids: Sequence[Any] | np.ndarray, what: str, raised: type[ConfigError] | type[DataError]) -> np.ndarray:
    """``ids`` (n,) as int64 or str; ``what`` says whose they are in what is raised.

    Raises ``raised`` for floats, truth values, mixtures, other objects, and integers beyond int64.
    """
    array = ids if isinstance(ids, np.ndarray) and ids.dtype.kind != "O" else _of_objects(ids, what, raised)
    if array.ndim != 1:
        raise raised(f"{what}: unit ids have shape {array.shape}. Pass one dimension, an id a spike or unit.")
    if array.dtype.kind in "iu" or array.size == 0:
        if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise raised(f"{what}: unit id {int(array.max()):,} is beyond int64. Number the units anew.")
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind == "S":
        try:
            return array.astype(str)
        except UnicodeDecodeError:
            return np.char.decode(array, "utf-8", "replace")
    found = {"f": "floats", "b": "truth values"}.get(array.dtype.kind, f"dtype {array.dtype}")
    raise raised(f"{what}: units given as {found}. Unit ids are integers or text: convert them.")


def _of_objects(ids: Sequence[Any] | np.ndarray, what: str, raised: type[ConfigError] | type[DataError]) -> np.ndarray:
    values = list(ids)
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=str)
    if all(isinstance(value, Integral) and not isinstance(value, (bool, np.bool_)) for value in values):
        try:
            return np.array([int(value) for value in values], dtype=np.int64)
        except OverflowError as error:
            raise raised(f"{what}: a unit id is beyond int64. Number the units anew.") from error
    found = sorted({type(value).__name__ for value in values})
    plural = "floats" if any("float" in name for name in found) else " and ".join(found)
    raise raised(f"{what}: units given as {plural}. Unit ids are all integers or all text: convert them.")


class Encoded(NamedTuple):
    """The unit of each spike, as a number: 2 bytes where there are fewer than 65,536 units."""

    unit_ids: np.ndarray  # (n_units,) int64 or str, sorted, each once
    ranks: np.ndarray  # (n_spikes,) places in unit_ids


def encode(ids: np.ndarray | Column) -> Encoded:
    """``ids`` (n_spikes,), int64 or text, of numpy or, where numpy would need an object a text, of Arrow."""
    if isinstance(ids, np.ndarray) and ids.dtype.kind == "i" and ids.size:
        low, high = int(ids.min()), int(ids.max())
        if high - low < FEW:
            shifted = (ids - low).astype(np.uint16)
            is_there = counted(shifted, high - low + 1) > 0
            rank = (np.cumsum(is_there) - 1).astype(np.uint16)
            return Encoded(np.flatnonzero(is_there) + low, rank[shifted])
    encoded = (_column(ids) if isinstance(ids, np.ndarray) else ids).dictionary_encode().unify_dictionaries()
    if len(encoded) == 0:
        return Encoded(np.zeros(0, np.int64), np.zeros(0, np.uint16))
    found = encoded.chunk(0).dictionary.to_pylist()
    if isinstance(ids, np.ndarray) and ids.dtype.kind == "U":
        distinct = np.frombuffer(b"".join(found), ids.dtype.newbyteorder("="))
    else:
        distinct = np.array(found)
    by_id = np.argsort(distinct)
    rank = np.empty(len(distinct), np.uint16 if len(distinct) <= FEW else np.int64)
    rank[by_id] = np.arange(len(distinct))
    return Encoded(distinct[by_id], np.concatenate([rank[chunk.indices.to_numpy()] for chunk in encoded.chunks]))


def _column(ids: np.ndarray) -> Column:
    """For Arrow; text as the bytes that it is in numpy, which takes no copy, and a tenth of the time."""
    import pyarrow as pa

    native = np.ascontiguousarray(ids.astype(ids.dtype.newbyteorder("="), copy=False))
    if native.dtype.kind != "U":
        return pa.chunked_array([pa.array(native)])
    buffers = [None, pa.py_buffer(native.view(np.uint8))]
    return pa.chunked_array([pa.Array.from_buffers(pa.binary(native.dtype.itemsize), len(native), buffers)])


def counted(ranks: np.ndarray, n: int) -> np.ndarray:
    """(n,) how often each of 0 to n - 1 is there; by blocks, for bincount copies what it counts to int64."""
    counts = np.zeros(n, np.int64)
    for start in range(0, len(ranks), RANKS_AT_ONCE):
        counts += np.bincount(ranks[start : start + RANKS_AT_ONCE], minlength=n)
    return counts


def places(wanted: np.ndarray, present: np.ndarray, uri: str) -> np.ndarray:
    """(len(present),) the place of each unit in ``wanted``, len(wanted) for those that nobody asked for.

    Raises ConfigError where integers are asked of a source that has text, or the other way about.
    """
    if len(present) and wanted.dtype.kind != present.dtype.kind:
        kinds = ("text", "integers") if present.dtype.kind == "U" else ("integers", "text")
        raise ConfigError(
            f"{uri}: its unit ids are {kinds[0]}, such as {present[0].item()!r}, and units= names {kinds[1]}. "
            f"Pass units= as {kinds[0]}."
        )
    place = {unit_id: index for index, unit_id in enumerate(wanted.tolist())}
    stored = np.uint16 if len(wanted) < FEW else np.int64
    return np.array([place.get(unit_id, len(wanted)) for unit_id in present.tolist()], dtype=stored)
