"""A symmetric matrix on disk as a Zarr group: the tiles of its upper triangle, each a chunk.

Tiles are written around the page cache (a store of many times the memory would push out the data that it
is computed from), each whole or not there, with the CRC32C that Zarr's codec of that name checks.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from lazypipe.atomic import replacing
from lazypipe.errors import DataError
from lazypipe.io.kinds import attributes_of_kind
from lazypipe.io.sources import one_line
from lazypipe.io.zarr import store_of
from lazypipe.stores import AnyPath, Place, SomePath

NAME = "covariance"
KIND = "lazypipe tiles"
CHECKSUM_NBYTES = 4
AGAIN = "Write the store again (overwrite=True)."


def create(path: Path, n: int, tile: int, dtype: np.dtype, attributes: dict[str, Any]) -> None:
    """An empty store for an (n, n) matrix in ``tile`` x ``tile`` chunks, with a ``mean`` (n,) beside it.

    The attributes come last: a store that has them has its arrays. Other files of the folder, as a lock,
    are left alone.
    """
    wanted = ((NAME, (n, n), (tile, tile), dtype), ("mean", (n,), (tile,), np.dtype("float64")))
    for name, shape, chunks, kind in wanted:
        zarr.create_array(
            str(path / name),
            shape=shape,
            chunks=chunks,
            dtype=kind,
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
            overwrite=True,
        )
    zarr.create_group(str(path), attributes={"kind": KIND, "n": n, "tile": tile, **attributes})


def attributes_of(path: AnyPath) -> dict[str, Any]:
    """Those of a store. Raises DataError where there is none."""
    return attributes_of_kind(path, KIND, "is no store of covariance tiles")


def tile_path(path: SomePath, i: int, j: int) -> SomePath:
    """The file of the tile in tile row i and tile column j, i <= j."""
    return path / f"{NAME}/c/{i}/{j}"


def mean_path(path: SomePath, i: int) -> SomePath:
    """The file of the means of the columns of tile row i."""
    return path / f"mean/c/{i}"


def is_whole(path: AnyPath, nbytes: int) -> bool:
    """Whether a chunk file of ``nbytes`` of data is there, with its checksum."""
    with contextlib.suppress(OSError):
        return path.stat().st_size == nbytes + CHECKSUM_NBYTES
    return False


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An array that starts on a page, as direct I/O wants it."""
    return np.frombuffer(mmap.mmap(-1, shape[0] * shape[1] * dtype.itemsize), dtype).reshape(shape)


def write_chunk(path: Path, values: np.ndarray) -> None:
    """Write a C-contiguous array as a chunk file, whole or not at all."""
    raw = values.reshape(-1).view(np.uint8)
    checksum = google_crc32c.value(raw).to_bytes(4, "little")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, overwrite=True, n_bytes=raw.nbytes + CHECKSUM_NBYTES) as partial:
        _write_direct(partial, raw.data)
        with open(partial, "ab") as file:
            file.write(checksum)


def _write_direct(path: Path, raw: memoryview) -> None:
    """Around the page cache where the file system can do that, through it elsewhere."""
    direct = getattr(os, "O_DIRECT", 0) if raw.nbytes % 4096 == 0 else 0
    for flag in dict.fromkeys((direct, 0)):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flag, 0o644)
            try:
                done = 0
                while done < raw.nbytes:
                    done += os.write(descriptor, raw[done:])
            finally:
                os.close(descriptor)
            return
        except OSError:
            if not flag:
                raise


def read_tile(path: AnyPath, tile: int, dtype: np.dtype) -> np.ndarray:
    """The chunk file of a tile (tile, tile), in one piece of memory. Raises DataError where it is torn."""
    values = np.empty((tile, tile), dtype)
    raw = values.reshape(-1).view(np.uint8)
    try:
        with _opened(path) as file:
            done = 0
            while done < raw.nbytes and (n := file.readinto(raw[done:].data)):
                done += n
            checksum = file.read()
    except OSError as error:
        raise DataError(f"{path}: this tile is missing ({one_line(error)}). {AGAIN}") from error
    if done < raw.nbytes or checksum != google_crc32c.value(raw).to_bytes(CHECKSUM_NBYTES, "little"):
        raise DataError(f"{path}: this tile is torn: its checksum does not fit. {AGAIN}")
    return values


def _opened(path: AnyPath) -> Any:
    return path.open("rb") if isinstance(path, Place) else open(path, "rb", buffering=0)


def read_array(path: AnyPath, name: str, at: Any) -> np.ndarray:
    """``array[at]`` of a store, its checksums checked. Raises DataError that names the store."""
    try:
        return np.asarray(zarr.open_group(store_of(path), mode="r")[name][at])
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise DataError(
            f"{path}: {name} cannot be read: a chunk is torn ({one_line(error)}). Delete that chunk, "
            f"or write the store again."
        ) from error
