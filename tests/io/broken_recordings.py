"""Recordings of every format that are damaged, empty, ambiguous, or contradict themselves."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import scipy.sparse
import zarr
from matrix_writers import write_ipc
from recording_writers import nwb, probe, series, spikeglx

from lazypipe.io import open_matrix

ONES = np.ones((10, 4), np.int16)
Write = Callable[[Path], Any]


class Trap:
    """Unpickled, it makes the directory ``sprung``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


def raw(name: str, content: bytes | np.ndarray) -> Write:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.tobytes())
        return folder / name

    return write


def npy(values: np.ndarray, cut: int = 0) -> Write:
    def write(folder: Path) -> Path:
        np.save(folder / "r.npy", values, allow_pickle=True)
        data = (folder / "r.npy").read_bytes()
        (folder / "r.npy").write_bytes(data[: len(data) - cut])
        return folder / "r.npy"

    return write


def h5(suffix: str = ".h5", cut: int = 0, **datasets: Any) -> Write:
    def write(folder: Path) -> Path:
        path = folder / f"r{suffix}"
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[name] = values
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - cut])
        return path

    return write


def h5_of(build: Callable[[h5py.File], Any]) -> Write:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "r.h5", "w") as file:
            build(file)
        return folder / "r.h5"

    return write


def one_series(values: np.ndarray = ONES, build: Callable[[h5py.Group], Any] | None = None, **told: Any) -> Write:
    """An NWB file of one series, then changed by ``build``."""

    def write(folder: Path) -> Path:
        path = nwb(folder / "r.nwb")
        with h5py.File(path, "a") as file:
            group = series(file, "acquisition/raw", values, **told)
            if build is not None:
                build(group)
        return path

    return write


def two_series(folder: Path) -> Path:
    values = {"values": ONES}
    return nwb(folder / "r.nwb", ("acquisition/a", values), ("processing/ecephys/LFP/b", values))


def glx(*lines: str, kind: str = "imec", n: int = 5, edit: Callable[[str], str] = str, name: str = "r.ap.bin") -> Write:
    """A SpikeGLX pair of ``n`` columns; four channels and gains unless ``lines`` say otherwise."""

    def write(folder: Path) -> Path:
        entries = list(lines) or probe(4, [500] * 4, [250] * 4, 4, 0, "0:3,8")
        path = spikeglx(folder / name, np.ones((10, n), np.int16), entries, kind)
        meta = path.with_suffix(".meta")
        meta.write_text(edit(meta.read_text()))
        return path

    return write


def only_meta(folder: Path) -> Path:
    path = glx()(folder)
    path.unlink()
    return path.with_suffix(".meta")


def group(**arrays: np.ndarray) -> Write:
    def write(folder: Path) -> Path:
        node = zarr.open_group(folder / "g.zarr", mode="w")
        for name, values in arrays.items():
            node.create_array(name, data=values)
        return folder / "g.zarr"

    return write


def zarr_of(values: np.ndarray, **attributes: Any) -> Write:
    def write(folder: Path) -> Path:
        zarr.create_array(folder / "r.zarr", data=values, attributes=attributes)
        return folder / "r.zarr"

    return write


def pickled_zarr(folder: Path) -> Path:
    path = folder / "r.zarr"
    path.mkdir()
    told = {"zarr_format": 2, "shape": [4, 2], "chunks": [4, 2], "dtype": "<i2", "order": "C", "fill_value": 0}
    (path / ".zarray").write_text(json.dumps(told | {"compressor": None, "filters": [{"id": "pickle"}]}))
    (path / "0.0").write_bytes(pickle.dumps(Trap()))
    return path


def sparse_ipc(folder: Path) -> Path:
    lists = pa.list_(pa.int32()), pa.list_(pa.float32())
    table = pa.table({"indices": pa.array([[0], [1]], lists[0]), "values": pa.array([[1.0], [2.0]], lists[1])})
    write_ipc(folder / "r.arrow", table, 2)
    return folder / "r.arrow"


def sparse_matrix(folder: Path) -> Any:
    scipy.sparse.save_npz(folder / "r.npz", scipy.sparse.csr_array(np.eye(3, dtype=np.float32)))
    return open_matrix(folder / "r.npz")


def virtual(folder: Path) -> Path:
    with h5py.File(folder / "r.h5", "w") as file:
        layout = h5py.VirtualLayout((10, 4), "i2")
        layout[:] = h5py.VirtualSource("gone.h5", "x", (10, 4))
        file.create_virtual_dataset("x", layout)
    return folder / "r.h5"


def deep(folder: Path) -> Path:
    (folder / "locked").mkdir()
    return folder / ("x" * 300)
