"""Every spike format's writer, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RATE = 24414.0625
SECONDS = {"times": "s", "sampling_rate": RATE}

Write = Callable[[Path, np.ndarray, np.ndarray], Path]


def write_npz(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    np.savez(folder / "s.npz", samples=samples, units=units)
    return folder / "s.npz"


def _npz_times(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    np.savez_compressed(folder / "t.npz", times=samples / RATE, units=units)
    return folder / "t.npz"


def _parquet(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    pq.write_table(pa.table({"depth": np.zeros(len(samples)), "sample": samples, "unit": units}), folder / "s.parquet")
    return folder / "s.parquet"


def _parquet_parts(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    half = len(samples) // 2
    for name, rows in (("1", slice(0, half)), ("2", slice(half, None))):
        table = pa.table({"spike_time": samples[rows] / RATE * 1000, "cluster": units[rows]})
        pq.write_table(table, parts / f"{name}.parquet", row_group_size=3)
    return parts


def _arrow(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    table = pa.table({"unit_id": pa.array(units).dictionary_encode(), "spike_sample": samples.astype(np.uint64)})
    with pa.ipc.new_file(str(folder / "s.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return folder / "s.arrow"


def _arrow_seconds(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    schema = pa.schema(
        [
            pa.field("neuron", pa.string() if units.dtype.kind == "U" else pa.int16()),
            pa.field("time", pa.float64(), metadata={"unit": "seconds"}),
        ]
    )
    table = pa.table([pa.array(units.tolist(), schema.field(0).type), pa.array(samples / RATE)], schema=schema)
    with pa.ipc.new_file(
        str(folder / "t.feather"), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as writer:
        writer.write_table(table)
    return folder / "t.feather"


def write_phy(folder: Path, samples: np.ndarray, units: np.ndarray, clusters: str = "spike_clusters.npy") -> Path:
    (folder / "phy").mkdir(exist_ok=True)
    np.save(folder / "phy" / "spike_times.npy", samples.astype(np.uint64).reshape(-1, 1))
    np.save(folder / "phy" / clusters, units.astype(np.int32))
    return folder / "phy"


def write_nwb(folder: Path, samples: np.ndarray, units: np.ndarray) -> Path:
    ids = np.unique(units)
    trains = [samples[units == unit_id] / RATE for unit_id in ids]
    with h5py.File(folder / "s.nwb", "w") as file:
        file.create_group("acquisition")
        table = file.create_group("units")
        table["id"] = ids
        table["spike_times"] = np.concatenate([*trains, np.zeros(0)])
        table["spike_times_index"] = np.cumsum([len(train) for train in trains]).astype(np.uint32)
    return folder / "s.nwb"


MANY: dict[str, tuple[Write, dict[str, Any]]] = {
    "npz": (write_npz, {}),
    "npz-seconds": (_npz_times, SECONDS),
    "parquet": (_parquet, {}),
    "parquet-parts-ms": (_parquet_parts, {"times": "ms", "sampling_rate": RATE}),
    "arrow": (_arrow, {}),
    "arrow-seconds": (_arrow_seconds, {"unit_column": "neuron", "sampling_rate": RATE}),
    "phy": (write_phy, {}),
    "nwb": (write_nwb, {"sampling_rate": RATE}),
}  # fmt: skip
TEXT_IDS = ("npz", "npz-seconds", "parquet", "parquet-parts-ms", "arrow", "arrow-seconds")  # the others have integers


def _npy(folder: Path, samples: np.ndarray) -> Path:
    np.save(folder / "s.npy", samples.astype(">u4"))
    return folder / "s.npy"


def _npy_counts(folder: Path, samples: np.ndarray) -> Path:
    np.save(folder / "c.npy", np.bincount(samples, minlength=3).astype(np.uint8))
    return folder / "c.npy"


def _text(name: str, head: str = "", end: str = "\n") -> Callable[[Path, np.ndarray], Path]:
    def write(folder: Path, samples: np.ndarray) -> Path:
        lines = [head, *(f"{sample}  # spike" if sample % 3 == 0 else str(sample) for sample in samples)]
        (folder / name).write_bytes(end.join(lines).encode())
        return folder / name

    return write


def _text_seconds(folder: Path, samples: np.ndarray) -> Path:
    np.savetxt(folder / "t.txt", samples / RATE, fmt="%.18e", header="seconds")
    return folder / "t.txt"


ONE: dict[str, tuple[Callable[[Path, np.ndarray], Path], dict[str, Any]]] = {
    "npy": (_npy, {}),
    "npy-counts": (_npy_counts, {"counts": True}),
    "txt": (_text("s.txt", "\ufeff# samples\n"), {}),
    "csv": (_text("s.csv", end="\r\n"), {}),
    "no suffix": (_text("spikes", " \t\n+0"), {}),
    "txt-seconds": (_text_seconds, SECONDS),
}  # fmt: skip
