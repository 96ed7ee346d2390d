"""Every format's writer, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BytesCodec

from lazypipe.io.convert import convert


def _list_array(values: np.ndarray, fixed: bool = True) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if fixed:
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], flat)


def list_table(values: np.ndarray, fixed: bool = True) -> pa.Table:
    return pa.table({"features": _list_array(values, fixed)})


def wide_table(values: np.ndarray) -> pa.Table:
    return pa.table({f"x{j}": np.ascontiguousarray(values[:, j]) for j in range(values.shape[1])})


def write_ipc(path: Path, table: pa.Table, rows: int, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)


def _npy(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "m.npy", np.ascontiguousarray(values))
    return folder / "m.npy"


def _fortran(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "f.npy", np.asfortranarray(values))
    return folder / "f.npy"


def _big_endian(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "b.npy", values.astype(values.dtype.newbyteorder(">")))
    return folder / "b.npy"


def _arrow(folder: Path, values: np.ndarray) -> Path:
    write_ipc(folder / "m.arrow", list_table(values), 3)
    return folder / "m.arrow"


def _arrow_converted(folder: Path, values: np.ndarray) -> Path:
    return convert(values, folder / "c.arrow", overwrite=True, memory=max(64, values[:2].nbytes * 3))


def _arrow_compressed(folder: Path, values: np.ndarray) -> Path:
    write_ipc(folder / "z.feather", list_table(values), 3, "lz4")
    return folder / "z.feather"


def _arrow_sliced(folder: Path, values: np.ndarray) -> Path:
    padded = np.concatenate([values[:1], values, values[:1]])
    write_ipc(folder / "s.arrow", list_table(padded).slice(1, len(values)), 2)
    return folder / "s.arrow"


def _arrow_lists(folder: Path, values: np.ndarray) -> Path:
    write_ipc(folder / "l.ipc", list_table(values, fixed=False), 2)
    return folder / "l.ipc"


def _arrow_tensor(folder: Path, values: np.ndarray) -> Path:
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), [values.shape[1]])
    column = pa.ExtensionArray.from_storage(kind, _list_array(values))
    write_ipc(folder / "t.arrow", pa.table({"features": column}), 4)
    return folder / "t.arrow"


def _arrow_columns(folder: Path, values: np.ndarray) -> Path:
    write_ipc(folder / "w.arrow", wide_table(values), 3)
    return folder / "w.arrow"


def _parquet(folder: Path, values: np.ndarray) -> Path:
    pq.write_table(list_table(values), folder / "m.parquet", row_group_size=3)
    return folder / "m.parquet"


def _parquet_columns(folder: Path, values: np.ndarray) -> Path:
    pq.write_table(wide_table(values), folder / "w.parquet", row_group_size=4)
    return folder / "w.parquet"


def _parquet_parts(folder: Path, values: np.ndarray) -> Path:
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for old in parts.iterdir():
        old.unlink()
    for start in range(0, len(values), 4):
        table = list_table(values[start : start + 4], fixed=False)
        pq.write_table(table, parts / f"part-{start:04}.parquet", row_group_size=2)
    return parts


def _zarr(folder: Path, values: np.ndarray, version: int, group: bool = False, **options: object) -> Path:
    path = folder / f"m{version}{group}.zarr"
    if group:
        zarr.open_group(path, mode="w", zarr_format=version)
    array = zarr.create_array(
        path, name="inner" if group else None, shape=values.shape, chunks=(3, 2), dtype=values.dtype,
        zarr_format=version, overwrite=True, **options,
    )  # fmt: skip
    array[:] = values
    return path


def _zarr_raw(folder: Path, values: np.ndarray, version: int, group: bool = False, big: bool = False) -> Path:
    if big and version == 2:
        values = values.astype(values.dtype.newbyteorder(">"))
    options = {"serializer": BytesCodec(endian="big")} if big and version == 3 else {}
    return _zarr(folder, values, version, group, compressors=None, filters=None, **options)


def _panels(folder: Path, values: np.ndarray) -> Path:
    return convert(values, folder / "p.zarr", overwrite=True, panel_columns=3, memory=max(400, values.nbytes * 3))


IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(values: np.ndarray) -> bytes:
    """An IDX file of ``values``, of any number of dimensions."""
    head = bytes([0, 0, IDX_CODES[values.dtype.name], values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def _idx(folder: Path, values: np.ndarray) -> Path:
    (folder / "m-idx2").write_bytes(idx_bytes(values))
    return folder / "m-idx2"


# What a format cannot hold.
LACKS = {"idx": ("float16", "bool")}

WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "npy": _npy,
    "npy-fortran": _fortran,
    "npy-big-endian": _big_endian,
    "arrow": _arrow,
    "arrow-converted": _arrow_converted,
    "arrow-compressed": _arrow_compressed,
    "arrow-sliced": _arrow_sliced,
    "arrow-lists": _arrow_lists,
    "arrow-tensor": _arrow_tensor,
    "arrow-columns": _arrow_columns,
    "parquet": _parquet,
    "parquet-columns": _parquet_columns,
    "parquet-parts": _parquet_parts,
    "zarr-2": lambda folder, values: _zarr(folder, values, 2),
    "zarr-3": lambda folder, values: _zarr(folder, values, 3),
    "zarr-group": lambda folder, values: _zarr(folder, values, 3, group=True),
    "zarr-raw-2": lambda folder, values: _zarr_raw(folder, values, 2),
    "zarr-raw-3": lambda folder, values: _zarr_raw(folder, values, 3),
    "zarr-raw-group": lambda folder, values: _zarr_raw(folder, values, 3, group=True),
    "zarr-raw-2-big-endian": lambda folder, values: _zarr_raw(folder, values, 2, big=True),
    "zarr-raw-3-big-endian": lambda folder, values: _zarr_raw(folder, values, 3, big=True),
    "zarr-panels": _panels,
    "idx": _idx,
}
