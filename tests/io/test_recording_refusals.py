"""Whatever cannot be read as a recording is refused in one line that names it and says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from broken_recordings import (
    ONES,
    Trap,
    Write,
    deep,
    glx,
    group,
    h5,
    h5_of,
    npy,
    one_series,
    only_meta,
    pickled_zarr,
    raw,
    sparse_ipc,
    sparse_matrix,
    two_series,
    virtual,
    zarr_of,
)
from recording_writers import RATE, nwb

from lazypipe.blocks import Span
from lazypipe.errors import ConfigError, DataError
from lazypipe.io.recordings import open_recording

TOLD = {"n_channels": 4, "dtype": "int16", "sampling_rate": 30_000}


ABSENT: dict[str, Any] = {"column": "c"}
STAMPS = np.arange(10) / 100.0

REFUSED: dict[str, tuple[Write, dict[str, Any], tuple[str, ...]]] = {
    "missing path": (lambda folder: folder / "nowhere.dat", TOLD, ("no such file", "nowhere.dat")),
    "name too long": (deep, TOLD, ("cannot be read",)),
    "another scheme": (lambda folder: "ftp://host/r.dat", TOLD, ("ftp://", "local")),
    "not a source": (lambda folder: 3, {}, ("int", "Pass a path")),
    "no sources": (lambda folder: [], {}, ("empty list",)),
    "a list in a list": (lambda folder: [[ONES]], {}, ("list:", "Pass a path")),
    "empty folder": (lambda folder: folder, {}, ("directory without a Zarr array", ".npy")),
    "sparse matrix": (sparse_matrix, {}, ("sparse",)),
    "array: four dimensions": (lambda folder: ONES[None, None], {}, ("<array>", "4 dimensions")),
    "array: no samples": (lambda folder: ONES[:0], {}, ("<array>", "empty")),
    "array: scalar": (lambda folder: np.array(1.0), {}, ("<array>", "0 dimensions")),
    "array: complex": (lambda folder: ONES.astype(complex), {}, ("<array>", "complex128")),
    "array: objects": (lambda folder: ONES.astype(object), {}, ("<array>", "objects")),
    "array: header": (lambda folder: ONES, {"offset_bytes": 8}, ("offset_bytes=8", "Leave it out")),
    "raw: left over": (raw("r.dat", bytes(83)), TOLD, ("83 bytes", "8 bytes", "3 are left over", "n_channels")),
    "raw: left over after a header": (raw("r.dat", bytes(83)), TOLD | {"offset_bytes": 2}, ("81 bytes", "1 are left")),
    "raw: empty": (raw("r.bin", b""), TOLD, ("empty",)),
    "raw: only a header": (raw("r.raw", bytes(8)), TOLD | {"offset_bytes": 8}, ("empty", "offset_bytes=8")),
    "raw: column": (raw("r.dat", ONES), TOLD | ABSENT, ("column='c'", "Leave it out")),
    "npy: garbage": (raw("r.npy", b"garbage" * 99), {}, ("not a readable .npy",)),
    "npy: truncated": (npy(ONES, cut=3), {}, ("truncated", "208", "205")),
    "npy: four dimensions": (npy(ONES[None, None]), {}, ("4 dimensions",)),
    "npy: a movie in Fortran order": (npy(np.asfortranarray(np.ones((5, 3, 2)))), {}, ("Fortran", "ascontiguousarray")),
    "npy: no samples": (npy(ONES[:0]), {}, ("empty",)),
    "npy: complex": (npy(ONES.astype(complex)), {}, ("complex128",)),
    "npy: text": (npy(ONES.astype("U3")), {}, ("text",)),
    "npy: pickled objects": (npy(np.array([Trap()], object)), {}, ("objects",)),
    "npy: another dtype": (npy(ONES), {"dtype": "float32"}, ("int16", "float32", "Leave it out")),
    "npy: other channels": (npy(ONES), {"n_channels": 3}, ("4 channels", "n_channels=3")),
    "npy: column": (npy(ONES), ABSENT, ("column='c'", "Leave it out")),
    "spikeglx: cut short": (
        glx(edit=lambda text: text.replace("fileSizeBytes=100", "fileSizeBytes=9000")), {},
        ("100 bytes", "9,000", "Copy both again"),
    ),
    "spikeglx: another rate": (glx(), {"sampling_rate": 25_000}, ("30000 Hz", "sampling_rate=25000")),
    "spikeglx: other channels": (glx(), {"n_channels": 384}, ("4 channels", "n_channels=384")),
    "spikeglx: another dtype": (glx(), {"dtype": "float32"}, ("int16", "float32")),
    "spikeglx: no recording": (only_meta, {}, ("r.ap.bin", "missing")),
    "spikeglx: foreign meta": (raw("r.meta", b"hello=1\n"), {}, ("no SpikeGLX metadata",)),
    "spikeglx: no rate": (glx(edit=lambda text: text.replace("imSampRate", "x")), {}, ("r.ap.meta", "imSampRate")),
    "spikeglx: a rate of 0": (glx(edit=lambda text: text.replace("Rate=30000", "Rate=0")), {}, ("imSampRate='0.0'",)),
    "spikeglx: counts": (glx("snsApLfSy=7,0,1"), {}, ("snsApLfSy='7,0,1'", "makes no sense")),
    "spikeglx: no gains": (glx("snsApLfSy=4,0,1", "imAiRangeMax=0.6"), {}, ("no imroTbl",)),
    "spikeglx: gains of too few": (
        glx("snsApLfSy=4,0,1", "imAiRangeMax=0.6", "~imroTbl=(0,384)(0 0 0 500 250 1)"), {}, ("imroTbl",),
    ),
    "spikeglx: unknown probe": (
        glx("snsApLfSy=4,0,1", "imAiRangeMax=0.6", "imDatPrb_type=7777"), {}, ("probe type 7777", "Pass gain="),
    ),
    "spikeglx: another device": (glx(edit=lambda text: text.replace("imec", "toaster")), {}, ("'toaster'",)),
    "spikeglx: only digital": (glx("snsMnMaXaDw=0,0,0,5", kind="nidq"), {}, ("only digital", "no channels")),
    "spikeglx: column": (glx(), ABSENT, ("column='c'",)),
    "hdf5: garbage": (raw("r.h5", b"garbage" * 99), {}, ("not an HDF5 file",)),
    "hdf5: empty file": (raw("r.h5", b""), {}, ("not an HDF5 file",)),
    "hdf5: truncated": (h5(x=np.ones((1000, 4)), cut=900), {}, ("truncated",)),
    "hdf5: several": (h5(a=ONES, b=ONES), {}, ("2 datasets", "a, b", "column=")),
    "hdf5: none": (h5(name="text"), {}, ("name", "1 to 3 dimensions")),
    "hdf5: absent": (h5(a=ONES, b=ONES), ABSENT, ("no dataset 'c'", "a, b")),
    "hdf5: a group": (h5_of(lambda file: file.create_dataset("c/x", data=ONES)), ABSENT, ("no dataset 'c'", "c/x")),
    "hdf5: text by name": (h5(c="text"), ABSENT, ("dimensions",)),
    "hdf5: records": (h5(c=np.zeros(3, [("a", "i2")])), ABSENT, ("/c", "structured")),
    "hdf5: complex": (h5(c=ONES.astype(complex)), ABSENT, ("/c", "complex128")),
    "hdf5: no samples": (h5(c=ONES[:0]), ABSENT, ("/c", "empty")),
    "hdf5: nothing at all": (h5(c=h5py.Empty("i2")), ABSENT, ("/c", "empty")),
    "hdf5: not NWB": (h5(".nwb", x=ONES), {}, ("nwb_version", ".h5")),
    "hdf5: a rate of text": (
        h5_of(lambda file: file.create_dataset("x", data=ONES).attrs.update(sampling_rate="fast")), {}, ("'fast'",),
    ),
    "hdf5: a virtual part is missing": (virtual, {}, ("gone.h5", "missing")),
    "hdf5: header": (h5(x=ONES), {"offset_bytes": 8}, ("offset_bytes=8",)),
    "nwb: several": (two_series, {}, ("2 series", "acquisition/a", "processing/ecephys/LFP/b", "column=")),
    "nwb: absent": (two_series, ABSENT, ("no series 'c'", "acquisition/a", "processing/ecephys/LFP/b")),
    "nwb: none": (lambda folder: nwb(folder / "r.nwb"), {}, ("no series",)),
    "nwb: only events": (one_series(kind="SpikeEventSeries"), {}, ("no series",)),
    "nwb: data elsewhere": (
        one_series(build=lambda group: group.create_dataset("external_file", data=["a.avi"])), {"column": "raw"},
        ("external",),
    ),
    "nwb: another rate": (one_series(), {"sampling_rate": 25_000}, ("30000 Hz", "sampling_rate=25000")),
    "nwb: a rate of 0": (one_series(rate=0.0), {}, ("sampling rate is", "above zero")),
    "nwb: no rate": (one_series(build=lambda group: group["starting_time"].attrs.pop("rate")), {}, ("rate is None",)),
    "nwb: irregular": (one_series(timestamps=STAMPS + 0.003 * (np.arange(10) == 6)), {}, ("irregular", "number 6")),
    "nwb: backwards": (one_series(timestamps=STAMPS[::-1]), {}, ("timestamp 1", "later")),
    "nwb: infinite": (one_series(timestamps=np.append(STAMPS[:9], np.inf)), {}, ("timestamp 9",)),
    "nwb: NaN": (one_series(timestamps=np.append(STAMPS[:9], np.nan)), {}, ("timestamp 9",)),
    "nwb: drifting": (
        one_series(np.ones((2000, 4), np.int16), timestamps=np.cumsum(np.linspace(0.99, 1.01, 2000)) / 100), {},
        ("irregular", "samples off"),
    ),
    "nwb: all apart": (one_series(ONES[:2], timestamps=np.array([0.0, 0.0])), {}, ("later",)),
    "nwb: one timestamp": (one_series(ONES[:1], timestamps=STAMPS[:1]), {}, ("single timestamp", "sampling_rate=")),
    "nwb: timestamps of another length": (one_series(timestamps=STAMPS[:9]), {}, ("(10, 4)", "9 timestamps")),
    "nwb: channels first": (one_series(ONES.T, timestamps=STAMPS), {}, ("channels x time", "transpose")),
    "nwb: conversion": (one_series(conversion=np.nan), {}, ("conversion", "nan")),
    "nwb: conversions of too few": (one_series(channel_conversion=np.ones(3)), {}, ("4 channels", "3 numbers")),
    "nwb: unit alone": (one_series(), {"unit": "mV"}, ("µV", "gain=")),
    "nwb: offset alone": (one_series(), {"offset": 3}, ("offset", "gain=")),
    "zarr: several": (group(a=ONES, b=ONES), {}, ("2 arrays", "a, b", "column=")),
    "zarr: absent": (group(a=ONES), ABSENT, ("no array 'c'", "a")),
    "zarr: absent below": (group(a=ONES), {"column": "a/c"}, ("not a readable Zarr",)),
    "zarr: four dimensions": (zarr_of(ONES[None, None]), {}, ("4 dimensions",)),
    "zarr: int64": (zarr_of(ONES.astype(np.int64)), {}, ("int64", "int32")),
    "zarr: a negative rate": (zarr_of(ONES, sampling_rate=-1), {}, ("sampling rate is -1",)),
    "zarr: single array": (zarr_of(ONES), ABSENT, ("column='c'", "Leave it out")),
    "zarr: pickles": (pickled_zarr, {}, ("not a readable Zarr",)),
    "arrow: garbage": (raw("r.arrow", b"garbage" * 99), {}, ("not an Arrow IPC file",)),
    "arrow: sparse": (sparse_ipc, {}, ("sparse",)),
}  # fmt: skip


def told(error: Exception, parts: tuple[str, ...], source: object = None) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.endswith("."), message
    for part in parts:
        assert part in message, message
    if isinstance(source, Path):
        assert str(source.parent) in message


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_opened(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, options, parts = REFUSED[case]
    source = write(tmp_path)
    with pytest.raises(DataError) as caught:
        open_recording(source, **options)
    told(caught.value, parts, source)
    assert not Path("sprung").exists()


NO_RATES = (0, -1, np.nan, np.inf, "fast", True, [])
REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    **{f"rate {rate}": ({"sampling_rate": rate}, ("sampling_rate",)) for rate in NO_RATES},
    **{f"channels {n}": ({"n_channels": n}, ("n_channels",)) for n in (0, -1, 2.5, "4", True)},
    **{f"dtype {kind}": ({"dtype": kind}, ("dtype", repr(kind)[:4])) for kind in ("int99", 3)},
    **{f"dtype {kind}": ({"dtype": kind}, ("dtype",)) for kind in ("complex64", "O", "U3", "int64", [("a", "i2")])},
    **{f"header {n}": ({"offset_bytes": n}, ("offset_bytes",)) for n in (-1, 1.5, None)},
    **{f"gain {gain}": ({"gain": gain}, ("gain",)) for gain in ("high", np.nan, [[1.0]], [1.0, np.inf])},
    "gains of others": ({"gain": [1.0, 2.0]}, ("gain", "(2,)", "4 channels")),
    "offsets of others": ({"offset": [1.0, 2.0]}, ("offset", "(2,)", "4 channels")),
    "unit": ({"unit": 3}, ("unit",)),
    "column": ({"column": 3}, ("column",)),
    **{f"starts {starts}": ({"starts": starts}, ("starts",)) for starts in (3, [0.5], [0, 1], [], [-1], "ab")},
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_refused_options(case):
    options, parts = REFUSED_OPTIONS[case]
    with pytest.raises(ConfigError) as caught:
        open_recording(ONES, **options)
    told(caught.value, parts)


@pytest.mark.parametrize(
    ("left_out", "parts"),
    [
        (("dtype",), ("does not tell its dtype.", "Pass dtype=")),
        (("n_channels",), ("does not tell its n_channels.",)),
        (("sampling_rate",), ("does not tell its sampling_rate.",)),
        (("dtype", "sampling_rate"), ("dtype and sampling_rate", "Pass dtype=, sampling_rate=")),
    ],
)
def test_raw_binary_says_what_is_missing(left_out, parts, tmp_path):
    path = raw("r.dat", ONES)(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_recording(path, **{name: value for name, value in TOLD.items() if name not in left_out})
    told(caught.value, parts, path)


@pytest.mark.parametrize("name", ["r.csv", "r"])
def test_unknown_formats_are_named(name, tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_recording(raw(name, b"1,2\n")(tmp_path))
    told(caught.value, (".npy", ".nwb", "n_channels=", name))


def two(*options: dict[str, Any], values: tuple[np.ndarray, np.ndarray] = (ONES, ONES)) -> Write:
    """Two open recordings."""
    return lambda folder: [open_recording(v, **o) for v, o in zip(values, options, strict=True)]


def raw_files(folder: Path) -> list[Path]:
    return [raw(name, ONES)(folder) for name in ("a.dat", "b.dat")]


def nwb_and_later(folder: Path) -> list[Path]:
    return [
        nwb(folder / f"{name}.nwb", ("acquisition/raw", {"values": ONES, "start": start}))
        for name, start in {"a": 0.0, "b": 600.0}.items()
    ]


DIFFERENT: dict[str, tuple[Write, dict[str, Any], tuple[str, ...]]] = {
    "rates": (
        two({"sampling_rate": 30_000}, {"sampling_rate": 25_000}), {},
        ("mismatched rates: <array> has 30000 Hz, <array> 25000 Hz",),
    ),
    "a rate and none": (two({"sampling_rate": 30_000}, {}), {}, ("30000 Hz", "no rate", "Pass sampling_rate=")),
    "channels": (two({}, {}, values=(ONES, ONES[:, :3])), {}, ("mismatched channels", "4", "3")),
    "dtypes": (two({}, {}, values=(ONES, ONES.astype("f4"))), {}, ("mismatched dtypes", "int16", "float32")),
    "frames": (two({}, {}, values=(ONES.reshape(10, 2, 2), ONES)), {}, ("mismatched frames", "(2, 2)", "(4,)")),
    "gains": (two({"gain": 2}, {"gain": [2, 2, 2, 3]}), {}, ("mismatched gains", "has 2", "2 to 3", "Pass gain=")),
    "offsets": (two({"offset": 2}, {}), {}, ("mismatched offsets", "has 2", "0")),
    "units": (two({"unit": "µV"}, {}), {}, ("mismatched units", "µV", "none")),
    "overlap": (raw_files, TOLD | {"starts": [5, 14]}, ("b.dat: begins at sample 14", "a.dat ends at 15")),
    "descending": (raw_files, TOLD | {"starts": [50, 0]}, ("b.dat: begins at sample 0", "ascending order")),
    "a later start of its own": (nwb_and_later, {}, ("b.nwb: begins at 600 s", "a.nwb ends", "starts=[...]")),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_sources_that_do_not_join(case, tmp_path):
    write, options, parts = DIFFERENT[case]
    with pytest.raises(DataError) as caught:
        open_recording(write(tmp_path), **options)
    told(caught.value, parts)


def test_a_spikeglx_file_joins_no_raw_one(tmp_path):
    sources = [open_recording(glx()(tmp_path), gain=1), open_recording(ONES, sampling_rate=RATE, gain=1)]
    with pytest.raises(DataError, match="columns beside the channels"):
        open_recording(sources)


def test_starts_of_files_with_a_clock_of_their_own(tmp_path):
    recording = open_recording(nwb_and_later(tmp_path), starts=[0, 18_000_000])
    assert recording.spans == (Span(0, 10), Span(18_000_000, 18_000_010))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("write", [raw("r.dat", ONES), npy(ONES), h5(x=ONES)])
def test_no_right_to_read(write, tmp_path):
    path = write(tmp_path)
    path.chmod(0)
    with pytest.raises(DataError, match="rights|not a readable"):
        open_recording(path, **TOLD)
