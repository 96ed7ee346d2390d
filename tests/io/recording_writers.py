"""Every recording format's writer, for the tests that hold for all of them, and the layouts of SpikeGLX and NWB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr
from matrix_writers import list_table, wide_table, write_ipc

from lazypipe.blocks import Span
from lazypipe.io.recordings import Recording

RATE = 30_000.0
META = """typeThis={kind}
nSavedChans={n}
{rate_key}={rate}
fileSizeBytes={size}
"""


def spikeglx(path: Path, values: np.ndarray, lines: Sequence[str], kind: str = "imec", rate: float = RATE) -> Path:
    """A ``.bin`` of (n, channels and words) and its ``.meta`` of the usual entries and ``lines``."""
    values.astype("<i2").tofile(path)
    rate_key = {"imec": "imSampRate", "nidq": "niSampRate", "obx": "obSampRate"}[kind]
    text = META.format(kind=kind, n=values.shape[1], rate_key=rate_key, rate=rate, size=path.stat().st_size)
    path.with_suffix(".meta").write_text(text + "\n".join(lines) + "\n")
    return path


def imro(ap: Sequence[int], lf: Sequence[int], header: str = "(0,384)", tail: str = " 1") -> str:
    rows = "".join(f"({c} 0 0 {a} {b}{tail})" for c, (a, b) in enumerate(zip(ap, lf, strict=True)))
    return f"~imroTbl={header}{rows}"


def probe(n: int, ap: Sequence[int], lf: Sequence[int], n_ap: int, n_lf: int, saved: str) -> list[str]:
    """The entries of a Neuropixels 1.0 probe of ``n`` channels."""
    return [
        f"snsApLfSy={n_ap},{n_lf},1", f"acqApLfSy={n},{n},1", f"snsSaveChanSubset={saved}", "imAiRangeMax=0.6",
        imro(ap, lf),
    ]  # fmt: skip


def series(
    file: h5py.File, path: str, values: np.ndarray, kind: str = "ElectricalSeries", rate: float | None = RATE,
    start: float = 0.0, timestamps: np.ndarray | None = None, unit: str = "volts", conversion: float = 1.0,
    channel_conversion: np.ndarray | None = None, storage: dict[str, Any] | None = None, **attributes: Any,
) -> h5py.Group:  # fmt: skip
    """A series as pynwb lays it out."""
    group = file.create_group(path)
    group.attrs["neurodata_type"] = kind
    group.attrs["namespace"] = "core"
    data = group.create_dataset("data", data=values, **(storage or {}))
    for name, value in {"unit": unit, "conversion": conversion, "resolution": -1.0, **attributes}.items():
        data.attrs[name] = value
    if timestamps is not None:
        stamps = group.create_dataset("timestamps", data=timestamps)
        stamps.attrs.update({"interval": np.int32(1), "unit": "seconds"})
    elif rate is not None:
        begins = group.create_dataset("starting_time", data=np.float64(start))
        begins.attrs.update({"rate": np.float32(rate), "unit": "seconds"})
    if channel_conversion is not None:
        group.create_dataset("channel_conversion", data=channel_conversion).attrs["axis"] = 1
    return group


def nwb(path: Path, *all_series: tuple[str, dict[str, Any]]) -> Path:
    """An NWB file with series of which each is (path, arguments of ``series``)."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.8.0"
        for name in ("acquisition", "stimulus/presentation", "processing"):
            file.create_group(name)
        for name, arguments in all_series:
            series(file, name, **arguments)
    return path


def _raw(folder: Path, values: np.ndarray, order: str = "<", header: int = 0) -> tuple[Path, dict[str, Any]]:
    stored = values.dtype.newbyteorder(order)
    path = folder / f"r{header}.dat"
    path.write_bytes(b"\x07" * header + values.astype(stored).tobytes())
    told = {"dtype": stored, "n_channels": values[0].size, "sampling_rate": RATE}
    return path, told | ({"offset_bytes": header} if header else {})


def _npy(folder: Path, values: np.ndarray) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "r.npy", values)
    return folder / "r.npy", {}


def _arrow(folder: Path, values: np.ndarray, compression: str | None = None) -> tuple[Path, dict[str, Any]]:
    table = pa.table({"x": values}) if values.ndim == 1 else list_table(values)
    write_ipc(folder / "r.arrow", table, 3, compression)
    return folder / "r.arrow", {}


def _arrow_columns(folder: Path, values: np.ndarray) -> tuple[Path, dict[str, Any]]:
    write_ipc(folder / "c.arrow", wide_table(values), 3)
    return folder / "c.arrow", {}


def _zarr(folder: Path, values: np.ndarray, version: int, **options: Any) -> tuple[Path, dict[str, Any]]:
    path = folder / f"r{version}.zarr"
    array = zarr.create_array(
        path, shape=values.shape, chunks=(3, 2, 2)[: values.ndim], dtype=values.dtype, zarr_format=version,
        overwrite=True, attributes={"sampling_frequency": RATE}, **options,
    )  # fmt: skip
    array[...] = values
    return path, {}


def _hdf5(folder: Path, values: np.ndarray, name: str, **options: Any) -> tuple[Path, dict[str, Any]]:
    path = folder / f"{name}.h5"
    with h5py.File(path, "w", userblock_size=512 if name == "user" else 0) as file:
        dataset = file.create_dataset("a/b", data=values, **options)
        dataset.attrs["sampling_rate"] = RATE
    return path, {}


def _hdf5_chunked(folder: Path, values: np.ndarray) -> tuple[Path, dict[str, Any]]:
    chunks = tuple(min(n, m) for n, m in zip(values.shape, (3, 2, 2), strict=False))
    return _hdf5(folder, values, "chunked", chunks=chunks, compression="gzip", shuffle=True)


def _nwb(folder: Path, values: np.ndarray) -> tuple[Path, dict[str, Any]]:
    return nwb(folder / "r.nwb", ("acquisition/raw", {"values": values})), {}


def _array(folder: Path, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    return values, {}


Writer = Callable[[Path, np.ndarray], tuple[Any, dict[str, Any]]]
ALL = (1, 2, 3)
WRITERS: dict[str, tuple[Writer, tuple[int, ...]]] = {  # and the numbers of dimensions it can have
    "array": (_array, ALL),
    "array-strided": (lambda folder, values: (np.repeat(values, 2, axis=0)[::2], {}), ALL),
    "raw": (_raw, (1, 2)),
    "raw-big-endian": (lambda folder, values: _raw(folder, values, ">"), (2,)),
    "raw-header": (lambda folder, values: _raw(folder, values, "<", 13), (2,)),
    "npy": (_npy, ALL),
    "npy-fortran": (lambda folder, values: _npy(folder, np.asfortranarray(values)), (1, 2)),
    "npy-big-endian": (lambda folder, values: _npy(folder, values.astype(values.dtype.newbyteorder(">"))), ALL),
    "arrow": (_arrow, (1, 2)),
    "arrow-compressed": (lambda folder, values: _arrow(folder, values, "lz4"), (1, 2)),
    "arrow-columns": (_arrow_columns, (2,)),
    "zarr-2": (lambda folder, values: _zarr(folder, values, 2), ALL),
    "zarr-3": (lambda folder, values: _zarr(folder, values, 3), ALL),
    "zarr-raw": (lambda folder, values: _zarr(folder, values, 3, compressors=None), ALL),
    "hdf5": (lambda folder, values: _hdf5(folder, values, "plain"), ALL),
    "hdf5-user-block": (lambda folder, values: _hdf5(folder, values, "user"), (2,)),
    "hdf5-big-endian": (
        lambda folder, values: _hdf5(folder, values.astype(values.dtype.newbyteorder(">")), "big"),
        ALL,
    ),
    "hdf5-chunked": (_hdf5_chunked, ALL),
    "nwb": (_nwb, ALL),
}
CASES = [(name, n) for name, (_, dims) in WRITERS.items() for n in dims]


def counts(*shape: int, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    """Values from the whole range of integers, or normal ones."""
    random = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def all_of(recording: Recording, dtype: str = "float64") -> np.ndarray:
    """Every sample of every channel (n_samples, n_channels)."""
    out = np.empty((recording.n_samples, recording.n_channels), dtype)
    with recording.matrix.open() as reader:
        reader.read(Span(0, recording.n_samples), recording.columns, out)
    return out
