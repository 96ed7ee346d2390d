"""Whatever cannot be read as spikes is refused in one line that names it and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spike_writers import MANY, ONE, SECONDS, write_npz, write_nwb, write_phy

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.spikes import from_arrays, read_spikes

Source = Callable[[Path], object]


def npz(**arrays: object) -> Source:
    def write(folder: Path) -> Path:
        np.savez(folder / "s.npz", **{name: np.asarray(values) for name, values in arrays.items()})
        return folder / "s.npz"

    return write


def npy(values: object, cut: int = 0) -> Source:
    def write(folder: Path) -> Path:
        np.save(folder / "s.npy", values)
        (folder / "s.npy").write_bytes((folder / "s.npy").read_bytes()[: -cut or None])
        return folder / "s.npy"

    return write


def raw(name: str, content: bytes) -> Source:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def table(**columns: object) -> Source:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "s.parquet")
        return folder / "s.parquet"

    return write


def arrow(content: pa.Table) -> Source:
    def write(folder: Path) -> Path:
        with pa.ipc.new_file(str(folder / "s.arrow"), content.schema) as writer:
            writer.write_table(content)
        return folder / "s.arrow"

    return write


def parts_that_differ(folder: Path) -> Path:
    for name, kind in (("1", pa.int32()), ("2", pa.int64())):
        pq.write_table(pa.table({"unit": [1], "sample": pa.array([1], kind)}), folder / f"{name}.parquet")
    return folder


def phy(samples: list[int], units: object, **files: str) -> Source:
    def write(folder: Path) -> Path:
        made = write_phy(folder, np.array(samples), np.array([0] * len(samples)))
        np.save(made / "spike_clusters.npy", units)
        for name, content in files.items():
            (made / f"{name}.tsv").write_text(content)
        return made

    return write


def phy_without_clusters(folder: Path) -> Path:
    made = phy([1], [1])(folder)
    (made / "spike_clusters.npy").unlink()
    return made


def nwb(**changes: object) -> Source:
    """The units table with some of it replaced, or taken away where it is None."""

    def write(folder: Path) -> Path:
        path = write_nwb(folder, np.array([5, 6, 9]), np.array([3, 3, 4]))
        with h5py.File(path, "a") as file:
            for name, values in changes.items():
                node = file if name == "units" else file["units"]
                del node[name]
                if values is not None:
                    node[name] = values
        return path

    return write


def in_memory(source: object) -> Source:
    return lambda folder: source


def nothing(folder: Path) -> Path:
    (folder / "void").mkdir()
    return folder / "void"


RATE = {"sampling_rate": 30_000}
IN_S, IN_MS = {"times": "s", **RATE}, {"times": "ms", **RATE}
COUNTS = {"counts": True}
MICRO = {"unit": "µs"}
SPIKE = np.array([1])

REFUSED: dict[str, tuple[Source, dict, tuple[str, ...]]] = {
    "missing path": (lambda folder: folder / "nowhere.npz", {}, ("no such file or directory",)),
    "unknown suffix": (raw("s.xyz", b"1\n"), {}, ("'.xyz'", ".npz", ".nwb", ".parquet", ".txt")),
    "another scheme": (in_memory("ftp://bucket/s.npz"), {}, ("s3://", "local")),
    "not a source": (in_memory(3), {}, ("int", "Pass a path")),
    "empty folder": (nothing, {}, ("directory without spikes", "spike_times.npy")),
    # what holds for every format
    "not in order": (
        npz(samples=[5, 1, 9, 4, 4], units=[1, 2, 1, 1, 2]),
        {},
        ("unit 1, spike 2", "sample 4 comes after sample 9", "Sort"),
    ),
    "not in order, seconds": (in_memory([0.5, 0.25]), IN_S, ("spike 1", "0.25 s comes after 0.5 s")),
    "not in order, text ids": (in_memory({"a": [1], "b": [7, 7, 2]}), {}, ("unit 'b', spike 2", "sample 7")),
    "negative": (npz(samples=[-4, 1], units=[1, 1]), {}, ("unit 1, spike 0", "sample -4 is negative", "from 0")),
    "before the start": (in_memory([1.0]), {**IN_S, "start_time": 2.0}, ("spike 0", "1.0 s", "start_time=")),
    "nan": (in_memory([0.1, np.nan]), IN_S, ("spike 1", "nan", "Leave")),
    "infinity": (in_memory([0.1, np.inf]), IN_MS, ("spike 1", "inf")),
    "nan for samples": (in_memory([0, np.nan]), {}, ("spike 1", "nan")),
    "seconds for samples": (in_memory([0.0, 1.5]), {}, ("spike 1", "1.5 is no whole sample", "times='s'")),
    "beyond int64": (in_memory(np.array([1, 2**63], np.uint64)), {}, ("spike 1", "beyond int64")),
    "beyond float64": (in_memory([1.0, 1e17]), {}, ("spike 1", "1e+17", "beyond")),
    "beyond float64, seconds": (in_memory([1.0, 1e300]), {**IN_S, "sampling_rate": 1e9}, ("spike 1", "beyond")),
    "float32 seconds": (in_memory(np.array([1, 2000], np.float32)), IN_S, ("float32", "samples", "float64")),
    "complex": (in_memory(np.array([1j])), {}, ("complex128",)),
    "text": (in_memory(["a"]), {}, ("<U1",)),
    "ragged": (in_memory([[1], [1, 2]]), {}, ("no array",)),
    "masked": (in_memory(np.ma.array([1, 2], mask=[0, 1])), {}, ("masked", "compressed()")),
    "two dimensions": (in_memory([[1, 2]]), {}, ("(1, 2)",)),
    "no units": (in_memory({}), {}, ("no spikes", "no units")),
    # units
    "dict: float units": (in_memory({1.0: [1]}), {}, ("units given as floats",)),
    "dict: mixed units": (in_memory({1: [1], "a": [1]}), {}, ("int and str",)),
    "dict: a bool": (in_memory({True: [1]}), {}, ("bool",)),
    "dict: far unit": (in_memory({2**64: [1]}), {}, ("beyond int64",)),
    "dict: two dimensions": (in_memory({4: [[1]]}), {}, ("unit 4", "(1, 1)")),
    # .npz
    "npz: no samples": (npz(spikes=[1], cells=[2]), {}, ("no 'samples'", "cells, spikes")),
    "npz: no times": (npz(spikes=[1]), IN_S, ("no 'times'", "spikes")),
    "npz: empty": (npz(), {}, ("no 'samples'", "nothing")),
    "npz: lengths": (npz(samples=[1, 2], units=[1]), {}, ("2 spikes and 1 units",)),
    "npz: float units": (npz(samples=[1], units=[1.0]), {}, ("units given as floats",)),
    "npz: 2-D units": (npz(samples=[1], units=[[1]]), {}, ("(1, 1)",)),
    "npz: far units": (npz(samples=[1], units=np.array([2**63], np.uint64)), {}, ("beyond int64",)),
    "npz: objects": (npz(samples=np.array([1, "a"], object)), {}, ("samples", "never unpickled")),
    "npz: object units": (npz(samples=[1], units=np.array([None])), {}, ("units", "never unpickled")),
    "npz: garbage": (raw("s.npz", b"garbage" * 99), {}, ("damaged .npz",)),
    "npz: truncated": (
        lambda folder: raw("s.npz", write_npz(folder, SPIKE, SPIKE).read_bytes()[:-30])(folder),
        {},
        ("damaged .npz",),
    ),
    # .npy
    "npy: garbage": (raw("s.npy", b"garbage" * 99), {}, ("not a readable .npy",)),
    "npy: truncated": (npy(np.arange(9), cut=5), {}, ("not a readable .npy",)),
    "npy: objects": (npy(np.array([None])), {}, ("objects", "never unpickled")),
    "npy: two dimensions": (npy(np.ones((3, 2), int)), {}, ("(3, 2)", "counts=True")),
    "counts: negative": (npy([0, 1, -1]), COUNTS, ("sample 2", "-1 is no count")),
    "counts: fractional": (npy([0, 1, 0.5]), COUNTS, ("sample 2", "0.5 is no count")),
    "counts: nan": (npy([0, 1, np.nan]), COUNTS, ("sample 2", "nan is no count")),
    "counts: of a unit": (npy(np.array([[0, 0], [1, -1]])), COUNTS, ("sample 1, unit 1", "-1")),
    "counts: samples": (npy([5, 200_000]), COUNTS, ("sample 1", "200000 spikes in one sample", "leave out")),
    "counts: three dimensions": (npy(np.ones((2, 2, 2))), COUNTS, ("(2, 2, 2)", "n_units")),
    "counts: of no unit": (npy(np.ones((2, 0), int)), COUNTS, ("names no units",)),
    "counts: text": (npy(np.array(["a"])), COUNTS, ("<U1",)),
    # text
    "text: a word": (raw("s.txt", b"1\n# c\n\ntwo # 3\n"), {}, ("line 4", "'two' is no number")),
    "text: two numbers": (raw("s.csv", b"1\n2,3\n"), {}, ("line 2", "'2,3'")),
    "text: hexadecimal": (raw("s.txt", b"1\n0x10\n"), {}, ("line 2", "'0x10'")),
    "text: seconds": (raw("s.txt", b"# c\n1\n\n2.5\n"), {}, ("spike 1 (line 4)", "2.5", "times='s'")),
    "text: not in order": (raw("s", b"5\r\n\r\n4\r\n"), {}, ("line 3", "sample 4", "sample 5")),
    "text: binary": (raw("s", bytes(99)), {}, ("no text",)),
    "text: far": (raw("s.txt", b"1\n99999999999999999999\n"), {}, ("line 2", "beyond")),
    # tables
    "table: no unit column": (table(a=[1], sample=[2]), {}, ("'unit'", "'a', 'sample'", "unit_column=")),
    "table: no time column": (table(unit=[1], b=[2]), {}, ("'sample'", "'unit', 'b'", "time_column=")),
    "table: named one is not there": (table(unit=[1], b=[2]), {"time_column": "c"}, ("'c'", "'unit', 'b'")),
    "table: two unit columns": (table(unit=[1], cluster=[1], sample=[2]), {}, ("'unit', 'cluster'", "unit_column=")),
    "table: float units": (table(unit=[1.0], sample=[2]), {}, ("'unit'", "units given as floats")),
    "table: units of lists": (table(unit=[[1]], sample=[2]), {}, ("'unit'", "list")),
    "table: timestamps": (table(unit=[1], sample=pa.array([1], pa.timestamp("s"))), {}, ("'sample'", "timestamp")),
    "table: null unit": (table(unit=[1, None], sample=[1, 2]), {}, ("'unit'", "null", "row 1")),
    "table: null sample": (table(unit=[1, 1], sample=[1, None]), {}, ("'sample'", "null", "row 1")),
    "table: not in order": (
        table(unit=["a", "b", "a"], sample=[3, 9, 1]),
        {},
        ("unit 'a', spike 1 (row 2)", "sample 1 comes after sample 3"),
    ),
    "table: no rows": (table(unit=pa.array([], pa.int64()), sample=pa.array([], pa.int64())), {}, ("no spikes",)),
    "table: garbage": (raw("s.parquet", b"garbage" * 99), {}, ("damaged Parquet",)),
    "table: arrow garbage": (raw("s.arrow", b"garbage" * 99), {}, ("not an Arrow IPC file",)),
    "table: one column twice": (arrow(pa.table([[1], [1], [1]], ["unit", "unit", "sample"])), {}, ("'unit', 'unit'",)),
    "table: parts differ": (parts_that_differ, {}, ("2.parquet", "'sample'", "1.parquet")),
    # phy
    "phy: no clusters": (phy_without_clusters, {}, ("spike_clusters.npy", "only spike_times.npy")),
    "phy: lengths": (phy([1, 2], [1]), {}, ("2 spikes and 1 units",)),
    "phy: float clusters": (phy([1], [1.0]), {}, ("spike_clusters.npy", "units given as floats")),
    "phy: not in order": (phy([2, 1], [7, 7]), {}, ("unit 7, spike 1 (entry 1 of spike_times.npy)",)),
    "phy: no labels": (phy([1], [1]), {"groups": ["good"]}, ("cluster_group.tsv", "units=")),
    "phy: no such label": (
        phy([1], [1], cluster_group="cluster_id\tgroup\n1\tmua\n2\tnoise\n"),
        {"groups": ["good"]},
        ("'good'", "'mua', 'noise'"),
    ),
    "phy: no table": (phy([1], [1], cluster_group="a\tb\n1 mua\n"), {"groups": ["mua"]}, ("line 2", "'1 mua'")),
    # NWB
    "nwb: garbage": (raw("s.nwb", b"garbage" * 99), RATE, ("not a readable NWB file",)),
    "nwb: no units": (nwb(units=None), RATE, ("no units table", "acquisition")),
    "nwb: no times": (nwb(spike_times=None), RATE, ("no spike_times", "id, spike_times_index")),
    "nwb: ends": (nwb(spike_times_index=[2, 9]), RATE, ("2 ids, 2 ends", "(3,)")),
    "nwb: ids": (nwb(id=[1]), RATE, ("1 ids, 2 ends",)),
    "nwb: one id twice": (nwb(id=[1, 1]), RATE, ("twice",)),
    "nwb: float ids": (nwb(id=[1.0, 2.0]), RATE, ("/units/id", "units given as floats")),
    "nwb: not in order": (nwb(spike_times=[1.0, 0.5, 1.0]), RATE, ("unit 3, spike 1", "0.5 s", "1.0 s")),
    "nwb: scalar": (nwb(spike_times_index=3), RATE, ("1 ends",)),
}  # fmt: skip

MISUSED: dict[str, tuple[Source, dict, tuple[str, ...]]] = {
    "seconds without a rate": (in_memory([1.0]), {"times": "s"}, ("seconds", "sampling_rate=")),
    "milliseconds without a rate": (in_memory({1: [1.0]}), {"times": "ms"}, ("milliseconds", "sampling_rate=")),
    "nwb without a rate": (nwb(), {}, ("s.nwb", "seconds", "sampling_rate=")),
    "nwb in samples": (nwb(), {"times": "samples"}, ("NWB", "times='samples'")),
    "rate zero": (in_memory([1.0]), {"times": "s", "sampling_rate": 0}, ("sampling_rate=0", "above 0")),
    "rate nan": (in_memory([1]), {"sampling_rate": np.nan}, ("sampling_rate=nan",)),
    "rate infinite": (in_memory([1]), {"sampling_rate": np.inf}, ("sampling_rate=inf",)),
    "rate text": (in_memory([1]), {"sampling_rate": "30000"}, ("sampling_rate='30000'",)),
    "rate true": (in_memory([1]), {"sampling_rate": True}, ("sampling_rate=True",)),
    "start nan": (in_memory([1.0]), {**IN_S, "start_time": np.nan}, ("start_time=nan",)),
    "start of samples": (in_memory([1]), {"start_time": 1.0}, ("start_time=1", "samples")),
    "another unit of time": (in_memory([1]), {"times": "us"}, ("times='us'", "'samples', 's' or 'ms'")),
    "npz: times without a unit": (npz(times=[1.0]), {}, ("no unit", "times='s'")),
    "npz: samples as seconds": (npz(samples=[1]), IN_S, ("holds samples",)),
    "table: times without a unit": (table(unit=[1], time=[1.0]), {}, ("'time'", "no unit", "times=")),
    "table: samples as seconds": (table(unit=[1], sample=[1]), IN_S, ("'sample'", "by its name")),
    "table: one column for both": (table(unit=[1], b=[1]), {"time_column": "unit"}, ("'unit'", "both")),
    "table: unknown unit": (
        arrow(pa.table([[1], [1]], pa.schema([pa.field("unit", pa.int8()), pa.field("t", pa.int8(), metadata=MICRO)]))),
        {"time_column": "t"},
        ("'t'", "'µs'"),
    ),
    "counts of an npz": (npz(samples=[1]), COUNTS, ("counts=True", "Leave it out")),
    "counts in seconds": (in_memory([1]), {**COUNTS, **IN_S}, ("counts", "times='s'")),
    "counts with a start": (in_memory([1]), {**COUNTS, "start_time": 1}, ("start_time=1",)),
    "groups of an npz": (npz(samples=[1]), {"groups": ["good"]}, ("groups=", "Leave it out")),
    "groups as text": (phy([1], [1]), {"groups": "good"}, ("['good']",)),
    "no groups": (phy([1], [1]), {"groups": []}, ("groups=[]",)),
    "groups and units": (phy([1], [1]), {"groups": ["good"], "units": [1]}, ("groups= and units=",)),
    "columns of an npz": (npz(samples=[1]), {"unit_column": "a"}, ("unit_column='a'",)),
    "units: floats": (in_memory({1: [1]}), {"units": [1.0]}, ("units given as floats",)),
    "units: float array": (in_memory({1: [1]}), {"units": np.array([1.0])}, ("units given as floats",)),
    "units: mixed": (in_memory({1: [1]}), {"units": [1, "a"]}, ("int and str",)),
    "units: none": (in_memory({1: [1]}), {"units": []}, ("units=[]",)),
    "units: one": (in_memory({1: [1]}), {"units": 1}, ("[1]",)),
    "units: one text": (in_memory({"ab": [1]}), {"units": "ab"}, ("['ab']",)),
    "units: twice": (in_memory({1: [1]}), {"units": [2, 1, 2]}, ("unit 2 twice",)),
    "units: text of integers": (npz(samples=[1], units=[3]), {"units": ["3"]}, ("integers, such as 3", "Pass")),
    "units: integers of text": (in_memory({"a": [1]}), {"units": [3]}, ("text, such as 'a'", "Pass")),
    "open spikes in seconds": (in_memory(from_arrays(SPIKE)), SECONDS, ("read already", "times='s'")),
}  # fmt: skip


def told(error: Exception, parts: tuple[str, ...], source: object) -> None:
    message = str(error)
    assert "\n" not in message
    assert message[-1] in ".?"
    for part in parts:
        assert part in message, message
    if isinstance(source, Path):
        assert str(source) in message or str(source.name) in message


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    make, options, parts = REFUSED[case]
    source = make(tmp_path)
    with pytest.raises(DataError) as caught:
        read_spikes(source, **options)
    told(caught.value, parts, source if "differ" not in case else None)


@pytest.mark.parametrize("case", MISUSED)
def test_misused(case, tmp_path):
    make, options, parts = MISUSED[case]
    with pytest.raises(ConfigError) as caught:
        read_spikes(make(tmp_path), **options)
    told(caught.value, parts, None)


@pytest.mark.parametrize("format", ["npz", "parquet", "arrow", "nwb", "npy", "npy-counts"])
def test_half_a_file_is_refused(format, tmp_path):
    samples = np.arange(50)
    if format in MANY:
        write, options = MANY[format]
        path = write(tmp_path, samples, samples % 3)
    else:
        write_one, options = ONE[format]
        path = write_one(tmp_path, samples)
    whole = path.read_bytes()
    for cut in (0, 3, 20, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError) as caught:
            read_spikes(path, **options)
        told(caught.value, (), path)


def test_what_is_not_asked_for_is_not_checked(tmp_path):
    """A unit out of order does not keep the others from being read."""
    path = npz(samples=[5, 1, 3, 2], units=[1, 2, 1, 2])(tmp_path)
    assert read_spikes(path, units=[2])[2].tolist() == [1, 2]
    assert read_spikes(nwb(spike_times=[1.0, 0.5, 1.0])(tmp_path), units=[4], **RATE)[4].tolist() == [30_000]


def test_an_error_of_h5py_of_any_kind_is_told_in_one_line(tmp_path, monkeypatch):
    def damaged(path, **options):
        raise ValueError("not a\nlocation")

    monkeypatch.setattr("lazypipe.io.spikes.nwb.hdf5_file", damaged)
    path = write_nwb(tmp_path, np.array([5]), np.array([3]))
    with pytest.raises(DataError, match=r"s\.nwb: is not a readable NWB file \(not a location\)\."):
        read_spikes(path, **RATE)
