"""A job's result on disk: a folder of ``result.json``, arrays, tables and pictures, whole or not there.

Arrays are ``.npy`` files, or those of a Zarr group, which has their axes by name and attributes.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lazypipe.atomic import replacing, require_replaceable
from lazypipe.sizes import MIB
from lazypipe.stores import AnyPath, as_given

RECORD = "result.json"
CHUNK_NBYTES = 16 * MIB

Table: TypeAlias = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Stored:
    """An array of a Zarr group. ``row(i)`` makes its i-th row when that is written, so no second copy is held."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    row: Callable[[int], Any]

    @staticmethod
    def of(axes: tuple[str, ...], values: np.ndarray) -> Stored:
        """An array that is there already."""
        return Stored(axes, values.shape, values.dtype, lambda i: values[i])

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """All of a vector; else one row, of not too many bytes."""
        if len(self.shape) < 2:
            return tuple(max(1, n) for n in self.shape)
        line = math.prod(self.shape[2:]) * self.dtype.itemsize
        most = max(1, min(self.shape[1], CHUNK_NBYTES // max(1, line)))
        return 1, most, *(max(1, n) for n in self.shape[2:])


@dataclass(frozen=True)
class Group:
    """Arrays that lie in one Zarr group, and the attributes that tell what they are."""

    arrays: Mapping[str, Stored]
    attributes: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def result_folder(out: str | Path | None, job: str, overwrite: bool) -> AnyPath:
    """Where the result goes: ``out``, or ``results/JOB-<UTC time>``.

    Raises DataError if it is taken, cannot be made, or if ``overwrite`` would replace something that is no result.
    """
    if out is None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        out = Path("results") / f"{job}-{now.removesuffix('+00:00').replace(':', '').replace('-', '')}Z"
    place = as_given(out)
    require_replaceable(place, overwrite, _is_result, f"result of a job (it holds no {RECORD})")
    return place


def _is_result(place: AnyPath) -> bool:
    """Whether a folder holds a result, or nothing."""
    return (place / RECORD).is_file() or (place.is_dir() and not any(place.iterdir()))


def save_result(
    out: AnyPath,
    overwrite: bool,
    record: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]],
    arrays: Mapping[str, np.ndarray],
    pictures: Mapping[str, Any],
    tables: Mapping[str, Table] | None = None,
    groups: Mapping[str, Group] | None = None,
    files: Mapping[str, Callable[[Path], Any]] | None = None,
) -> None:
    """Write ``record`` as JSON, and beside it each array, matplotlib figure, table (.csv) and group (.zarr).

    ``files`` are written by what they name; a ``record`` that is called is given the folder that all of them are in.
    All are moved into place at once; in an object store ``result.json`` comes when all others are there. The first row
    of a table is its head.
    """
    tables, groups, files = tables or {}, groups or {}, files or {}
    n_bytes = sum(array.nbytes for array in arrays.values()) + sum(group.nbytes for group in groups.values())
    with replacing(out, overwrite, n_bytes) as folder:
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        for name, group in groups.items():
            write_group(folder / f"{name}.zarr", group)
        for name, table in tables.items():
            with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(table)
        for name, write in files.items():
            write(folder / name)
        for name, picture in pictures.items():
            picture.savefig(folder / name)
        told = record(folder) if callable(record) else record
        (folder / RECORD).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def write_group(path: Path, group: Group) -> None:
    """Write a Zarr group, its arrays row by row; each chunk with its checksum."""
    import zarr  # which takes a quarter of a second, and few results have a group
    from zarr.codecs import Crc32cCodec

    root = zarr.create_group(str(path), attributes=dict(group.attributes))
    for name, stored in group.arrays.items():
        is_text = stored.dtype.kind in "UT"
        array = root.create_array(
            name,
            shape=stored.shape,
            chunks=stored.chunks,
            dtype=str if is_text else stored.dtype,
            compressors=None if is_text else [Crc32cCodec()],
            fill_value=math.nan if stored.dtype.kind == "f" else None,
            dimension_names=stored.axes,
        )
        if len(stored.shape) < 2:
            array[:] = np.array([stored.row(i) for i in range(stored.shape[0])], stored.dtype)
            continue
        for i in range(stored.shape[0]):
            array[i] = stored.row(i)
