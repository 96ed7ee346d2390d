"""Whatever cannot be read as a matrix is refused in one line that names it and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from matrix_writers import list_table, write_ipc

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.tables.formats import FORMATS

ONES = np.ones((4, 3), np.float32)


def saved(values: np.ndarray, cut: int = 0, name: str = "m.npy") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / name, values)
        if cut:
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(data[:-cut])
        return folder / name

    return write


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def table(columns: dict[str, object], suffix: str = ".parquet", cut: int = 0) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path, content = folder / f"m{suffix}", pa.table(columns)
        if suffix == ".parquet":
            pq.write_table(content, path)
        else:
            write_ipc(path, content, 2)
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])
        return path

    return write


def stream(folder: Path) -> Path:
    batches = list_table(ONES)
    with pa.ipc.new_stream(str(folder / "m.arrow"), batches.schema) as writer:
        writer.write_table(batches)
    return folder / "m.arrow"


def folder_of(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return write


def group(**arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        node = zarr.open_group(folder / "g.zarr", mode="w")
        for name, values in arrays.items():
            node.create_array(name, data=values)
        return folder / "g.zarr"

    return write


def parts_that_differ(folder: Path) -> Path:
    pq.write_table(pa.table({"a": [1.0]}), folder / "1.parquet")
    pq.write_table(pa.table({"b": [1.0]}), folder / "2.parquet")
    return folder


def nowhere(folder: Path) -> Path:
    return folder / "nowhere.npy"


def list_of(rows: list[object], width: int | None = None) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32(), width) if width else pa.list_(pa.float32()))


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing path": (nowhere, ("no such file or directory", "nowhere.npy")),
    "unknown suffix": (raw("m.csv", b"1,2\n"), ("'.csv'", ".npy", ".arrow", ".parquet", ".zarr")),
    "no suffix": (raw("m", b"1,2\n"), ("no suffix", ".npy")),
    "another scheme": (lambda folder: "ftp://bucket/m.npy", ("s3://", "local")),
    "not a source": (lambda folder: 3, ("int", "Pass a path")),
    "empty folder": (folder_of("void"), ("directory without data",)),
    "empty zarr folder": (folder_of("void.zarr"), ("directory without data",)),
    "npy: empty file": (raw("m.npy", b""), ("not a readable .npy",)),
    "npy: garbage": (raw("m.npy", b"garbage" * 99), ("not a readable .npy",)),
    "npy: truncated": (saved(ONES, cut=5), ("truncated", "176", "171")),
    "npy: one dimension": (saved(ONES[0]), ("1 dimension", "reshape")),
    "npy: three dimensions": (saved(ONES[None]), ("3 dimensions", "Reshape")),
    "npy: no rows": (saved(ONES[:0]), ("empty", "no rows")),
    "npy: no columns": (saved(ONES[:, :0]), ("empty", "no columns")),
    "npy: complex": (saved(ONES.astype(complex)), ("complex128", "float32")),
    "npy: int64": (saved(ONES.astype(np.int64)), ("int64", "int32")),
    "npy: text": (saved(ONES.astype("U3")), ("text", "float32")),
    "npy: objects": (saved(ONES.astype(object)), ("objects", "float32")),
    "npy: structured": (saved(np.zeros((2, 2), [("a", "f4")])), ("structured", "float32")),
    "array: one dimension": (lambda folder: ONES[0], ("<array>", "reshape")),
    "array: complex": (lambda folder: ONES.astype(complex), ("<array>", "complex128")),
    "array: masked": (lambda folder: np.ma.array(ONES, mask=ONES > 0), ("<array>", "masked", "array.filled(np.nan)")),
    "array: empty": (lambda folder: ONES[:0], ("<array>", "empty")),
    "arrow: garbage": (raw("m.arrow", b"garbage" * 99), ("not an Arrow IPC file",)),
    "arrow: empty file": (raw("m.arrow", b""), ("not an Arrow IPC file",)),
    "arrow: truncated": (table({"x": list_of([[1, 2]], 2)}, ".arrow", cut=40), ("damaged or truncated",)),
    "arrow: stream": (stream, ("stream format", "pyarrow.ipc.new_file")),
    "arrow: feather 1": (raw("m.feather", b"FEA1" + b"\0" * 99), ("Feather version 1",)),
    "arrow: two lists": (
        table({"a": list_of([[1]], 1), "b": list_of([[1]], 1)}, ".arrow"),
        ("'a', 'b'", "column="),
    ),
    "arrow: null row": (table({"x": list_of([[1, 2], [3, 4], None], 2)}, ".arrow"), ("row 2", "'x'")),
    "arrow: null entry": (table({"x": list_of([[1, 2], [3, None]], 2)}, ".arrow"), ("row 1", "column 1")),
    "arrow: no rows": (table({"x": list_of([], 2)}, ".arrow"), ("empty", "no rows")),
    "arrow: text": (table({"name": ["a"]}, ".arrow"), ("'name'", "string")),
    "parquet: garbage": (raw("m.parquet", b"garbage" * 99), ("damaged Parquet",)),
    "parquet: truncated": (table({"x": [1.0]}, cut=20), ("damaged Parquet",)),
    "parquet: text": (table({"x": [1.0], "name": ["a"]}), ("'name'", "string", "Leave it out")),
    "parquet: int64": (table({"n": [1, 2]}), ("'n'", "int64", "int32")),
    "parquet: time": (table({"t": pa.array([0], pa.timestamp("s"))}), ("'t'", "timestamp")),
    "parquet: decimal": (table({"d": pa.array([1], pa.decimal128(5))}), ("'d'", "decimal")),
    "parquet: nested": (table({"l": pa.array([[[1.0]]])}), ("'l'", "list")),
    "parquet: no rows": (table({"x": pa.array([], pa.float32())}), ("empty", "no rows")),
    "parquet: parts differ": (parts_that_differ, ("2.parquet", "differ")),
    "zarr: garbage": (
        lambda folder: raw("zarr.json", b"{")(folder).parent,
        ("not a readable Zarr",),
    ),
    "zarr: two matrices": (group(a=ONES, b=ONES), ("a, b", "column=")),
    "zarr: no matrix": (group(a=ONES[0]), ("without a 2-D array", "a")),
    "zarr: one dimension": (
        lambda folder: [zarr.save_array(folder / "v.zarr", ONES[0]), folder / "v.zarr"][1],
        ("1 dimension", "reshape"),
    ),
    "zarr: int64": (group(a=ONES.astype(np.int64)), ("int64", "int32")),
}  # fmt: skip

REFUSED_WHEN_READ: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "arrow: null in a column": (table({"x": pa.array([1.0, 2.0, None])}, ".arrow"), ("row 2", "'x'")),
    "parquet: null in a column": (table({"x": pa.array([1.0, None])}), ("row 1", "'x'")),
    "parquet: null entry": (table({"x": list_of([[1, 2], [None, 4]])}), ("row 1", "column 0")),
    "parquet: null row": (table({"x": list_of([[1, 2], None])}), ("row 1", "'x'")),
    "parquet: ragged": (table({"x": list_of([[1, 2], [1, 2], [3]])}), ("row 2", "1 entries", "2")),
    "arrow: ragged": (table({"x": list_of([[1, 2], [1, 2], [3]])}, ".arrow"), ("row 2", "1 entries")),
}


def told(error: DataError, parts: tuple[str, ...], source: object) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message, message
    if isinstance(source, Path):
        assert str(source) in message


@pytest.mark.parametrize("case", REFUSED)
def test_refused_when_opened(case, tmp_path):
    write, parts = REFUSED[case]
    source = write(tmp_path)
    with pytest.raises(DataError) as caught:
        open_matrix(source)
    told(caught.value, parts, source)


@pytest.mark.parametrize("case", REFUSED_WHEN_READ)
def test_refused_when_read(case, tmp_path):
    write, parts = REFUSED_WHEN_READ[case]
    source = write(tmp_path)
    matrix = open_matrix(source)
    with pytest.raises(DataError) as caught, matrix.open(mapped=True) as reader:
        reader.read(Span(0, matrix.shape[0]), Span(0, matrix.shape[1]), np.empty(matrix.shape))
    told(caught.value, parts, source)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_column_chooses_and_is_checked(suffix, tmp_path):
    columns = {"a": list_of([[1, 2]], 2), "b": list_of([[3, 4, 5]], 3), "name": ["x"]}
    path = table(columns, suffix)(tmp_path)
    assert open_matrix(path, column="b").shape == (1, 3)
    with pytest.raises(DataError, match=r"no column 'c'.*'a', 'b', 'name'"):
        open_matrix(path, column="c")
    with pytest.raises(DataError, match=r"'name' has type string"):
        open_matrix(path, column="name")


def test_a_file_that_shrinks_is_refused_not_fatal(tmp_path):
    path = saved(np.ones((4, 40_000), np.float32))(tmp_path)
    matrix = open_matrix(path)
    path.write_bytes(path.read_bytes()[:1000])
    for columns in (Span(0, 40_000), Span(5, 9)):
        with pytest.raises(DataError, match="shorter"), matrix.open(mapped=True) as reader:
            reader.read(Span(0, 4), columns, np.empty((4, len(columns)), np.float32))


def test_a_rectangle_outside_is_refused():
    with open_matrix(ONES).open() as reader:
        with pytest.raises(DataError, match="inside its shape"):
            reader.read(Span(0, 5), Span(0, 3), np.empty((5, 3)))
        with pytest.raises(DataError, match="out has shape"):
            reader.read(Span(0, 4), Span(0, 3), np.empty((3, 3)))


@pytest.mark.parametrize(("suffix", "kind"), [one for one in FORMATS.items() if one[1] != "parquet"])
def test_a_table_is_to_be_converted_by_the_name_of_its_format(suffix, kind, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(b'{"a": 1}\n')
    with pytest.raises(DataError, match=rf"A table is converted first: python -m jobs convert --format {kind}\."):
        open_matrix(tmp_path / f"a{suffix}")
