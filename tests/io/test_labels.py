"""Labels of every kind, from every place, are the array one would write by hand; gaps and mixtures are refused."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matrix_writers import idx_bytes, write_ipc

from lazypipe.errors import DataError
from lazypipe.io.convert import convert
from lazypipe.io.labels import read_labels

WORDS = ["A", "ж", "two words", "A"]
KINDS: dict[str, np.ndarray] = {
    "uint8": np.array([0, 255, 3, 3], np.uint8),
    "int16": np.array([-1, 300, 0, 0], np.int16),
    "int64": np.array([-1, 1 << 40, 0, 0]),
    "bool": np.array([True, False, True, True]),
    "float32": np.array([0.5, -1e9, 0, 2], np.float32),
    "float64": np.array([0.5, 1e15, 0, 2]),
    "text": np.array(WORDS),
}


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    assert got.dtype.isnative
    assert got.ndim == 1
    np.testing.assert_array_equal(got, expected)


def npy(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "y.npy", values)
    return folder / "y.npy"


def npz(folder: Path, values: np.ndarray) -> Path:
    np.savez(folder / "y.npz", labels=values)
    return folder / "y.npz"


def packed_npz(folder: Path, values: np.ndarray) -> Path:
    np.savez_compressed(folder / "z.npz", labels=values)
    return folder / "z.npz"


def arrow(folder: Path, values: np.ndarray, name: str = "y.arrow") -> Path:
    write_ipc(folder / name, pa.table({"label": pa.array(values)}), 3)
    return folder / name


def parquet(folder: Path, values: np.ndarray) -> Path:
    pq.write_table(pa.table({"label": pa.array(values)}), folder / "y.parquet", row_group_size=3)
    return folder / "y.parquet"


def parts(folder: Path, values: np.ndarray) -> Path:
    (folder / "parts").mkdir()
    for i in range(len(values)):
        pq.write_table(pa.table({"label": pa.array(values[i : i + 1])}), folder / "parts" / f"{i}.parquet")
    return folder / "parts"


def text(folder: Path, content: str | bytes, name: str = "y.txt") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


FILES: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "npy": npy,
    "npz": npz,
    "npz compressed": packed_npz,
    "arrow": arrow,
    "feather": lambda folder, values: arrow(folder, values, "y.feather"),
    "parquet": parquet,
    "parts": parts,
}
IN_MEMORY: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda values: values,
    "column": lambda values: values.reshape(-1, 1),
    "objects": lambda values: values.astype(object),
    "list": lambda values: values.tolist(),
    "list of numpy's": list,
    "tuple": lambda values: tuple(values.tolist()),
    "pandas": pd.Series,
    "pandas, another index": lambda values: pd.Series(values, index=[7, 5, 3, 1]),
    "pandas category": lambda values: pd.Series(values, dtype="category"),
    "pandas nullable": lambda values: pd.Series(values).convert_dtypes(),
    "pandas frame": lambda values: pd.DataFrame({"y": values}),
    "arrow": pa.array,
    "arrow chunks": lambda values: pa.chunked_array([pa.array(values[:1]), pa.array(values[1:])]),
    "arrow dictionary": lambda values: pa.array(values).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_files(file, kind, tmp_path):
    path = FILES[file](tmp_path, KINDS[kind])
    same(read_labels(path, n_rows=4), KINDS[kind])
    same(read_labels(f"file://{path}"), KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", IN_MEMORY)
def test_memory(form, kind):
    values = KINDS[kind]
    got = read_labels(IN_MEMORY[form](values), n_rows=4)
    np.testing.assert_array_equal(got, values)
    assert got.dtype.kind.replace("u", "i") == values.dtype.kind.replace("u", "i")
    if form in ("array", "column", "pandas", "arrow"):
        assert got.dtype == values.dtype


def test_arrays_are_not_copied():
    values = np.arange(9)
    assert np.shares_memory(read_labels(values), values)


def test_other_text(tmp_path):
    same(read_labels(np.array([b"A", "ж".encode()])), np.array(["A", "ж"]))
    same(read_labels([b"A", "B"]), np.array(["A", "B"]))
    same(read_labels(np.array(WORDS, np.dtypes.StringDType())), np.array(WORDS))
    same(read_labels(np.array(WORDS).astype(">U9")), np.array(WORDS, "U9"))
    same(read_labels(npy(tmp_path, np.array([b"A", b"BC"]))), np.array(["A", "BC"]))
    same(read_labels(pa.array([b"A", b"BC"])), np.array(["A", "BC"]))
    same(read_labels(pd.Series(WORDS, dtype="string[pyarrow]")), np.array(WORDS))


def test_other_numbers(tmp_path):
    same(read_labels([1, 2.5]), np.array([1, 2.5]))
    same(read_labels(range(3)), np.arange(3))
    same(read_labels(np.array([1 << 63], np.uint64)), np.array([1 << 63], np.uint64))
    same(read_labels(npy(tmp_path, np.array([1, 2], ">i4"))), np.array([1, 2], np.int32))
    same(read_labels(npy(tmp_path, np.ones((3, 1)))), np.ones(3))


@pytest.mark.parametrize("name", ["y-idx1-ubyte", "y-idx1-ubyte.gz", "y.idx", "y.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64"])
def test_idx(name, dtype, tmp_path):
    values = np.array([3, 1, 2], dtype)
    content = idx_bytes(values)
    same(read_labels(text(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name), 3), values)


def test_converted_idx_are_still_labels(tmp_path):
    path = text(tmp_path, idx_bytes(np.array([3, 1, 2], np.uint8)), "y")
    same(read_labels(convert(path, tmp_path / "y.npy")), np.array([3, 1, 2], np.uint8))


TEXTS: dict[str, tuple[str | bytes, list]] = {
    "whole": ("3\n-1\n+2\n", [3, -1, 2]),
    "numbers": ("3\n.5\n1e-3\n2.", [3, 0.5, 1e-3, 2]),
    "words": ("A\ntwo words\n ж \n", ["A", "two words", "ж"]),
    "codes": ("A\n7\n0x10\n1_000\n", ["A", "7", "0x10", "1_000"]),
    "words like gaps": ("left\nnone\nNA\n", ["left", "none", "NA"]),
    "Windows": ("\ufeff3\r\n4\r\n", [3, 4]),
    "empty lines at the end": ("3\n4\n\n \n", [3, 4]),
    "a line": ("A", ["A"]),
}


@pytest.mark.parametrize("name", ["y.txt", "y.csv"])
@pytest.mark.parametrize("case", TEXTS)
def test_text_files(case, name, tmp_path):
    content, expected = TEXTS[case]
    same(read_labels(text(tmp_path, content, name)), np.array(expected))


def test_commas(tmp_path):
    same(read_labels(text(tmp_path, "a,b\nc\n")), np.array(["a,b", "c"]))
    same(read_labels(text(tmp_path, '"a,b"\nc\n', "y.csv")), np.array(["a,b", "c"]))
    with pytest.raises(DataError, match=r"line 2 has 2 values\. Write one label a line\."):
        read_labels(text(tmp_path, "a\nb,c\n", "y.csv"))


def test_column_chooses(tmp_path):
    table = pa.table({"x": [[1.0], [2.0]], "label": ["A", "B"], "age": [1, 2]})
    write_ipc(tmp_path / "t.arrow", table, 1)
    pq.write_table(table, tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", x=np.ones((2, 2)), label=["A", "B"], age=[1, 2])
    for suffix in (".arrow", ".parquet", ".npz"):
        path = tmp_path / f"t{suffix}"
        same(read_labels(path, column="label"), np.array(["A", "B"]))
        same(read_labels(path, column="age"), np.array([1, 2]))
        for column, said in ((None, r"has 3 \w+ \('x', 'label', 'age'\)\. Choose one with column="), ("z", "no 'z'")):
            with pytest.raises(DataError, match=said):
                read_labels(path, column=column)
        with pytest.raises(DataError, match=r"row 0 is a ndarray|has shape \(2, 2\)"):
            read_labels(path, column="x")


OBJECTS = np.array([[1, 2], None], object)
BAD: dict[str, tuple[Any, str]] = {
    "2-D": (np.ones((900, 2)), r"^y: has shape \(900, 2\), labels have one dimension"),
    "3-D": (np.ones((9, 1, 1)), r"has shape \(9, 1, 1\)"),
    "0-D": (np.array(3), r"has shape \(\)"),
    "a row": (np.ones((1, 9)), r"has shape \(1, 9\)"),
    "lists": ([[1, 2], [3, 4]], "row 0 is a list"),
    "ragged": (OBJECTS, "row 0 is a list"),
    "frame": (pd.DataFrame({"a": [1], "b": [2]}), r"has shape \(1, 2\)"),
    "empty": (np.zeros(0), "is empty: no labels"),
    "empty list": ([], "is empty: no labels"),
    "empty arrow": (pa.array([], pa.int64()), "is empty: no labels"),
    "NaN": (np.array([1, 2, np.nan, np.nan]), r"row 2 has no label\. Leave such rows out"),
    "NaN after infinity": (np.array([1, np.inf, np.nan]), "row 1 is infinite"),
    "None": ([1, 2, None, None], "row 2 has no label"),
    "None in text": (["a", None], "row 1 has no label"),
    "NaN in text": (np.array(["a", np.nan], object), "row 1 has no label"),
    "NaN in a list": ([1.0, float("nan")], "row 1 has no label"),
    "all None": ([None, None], "row 0 has no label"),
    "masked": (np.ma.masked_array([1, 2, 3], [0, 1, 0]), "row 1 has no label"),
    "pandas NA": (pd.Series([1, None], dtype="Int64"), "row 1 has no label"),
    "pandas text NA": (pd.Series(["a", None], dtype="string"), "row 1 has no label"),
    "pandas category NA": (pd.Series(["a", None], dtype="category"), "row 1 has no label"),
    "arrow null": (pa.array([1, None]), "row 1 has no label"),
    "arrow null chunk": (pa.chunked_array([[1], [None]]), "row 1 has no label"),
    "arrow null text": (pa.array(["a", None]).dictionary_encode(), "row 1 has no label"),
    "text and numbers": (["a", "b", 3], "row 2 is a number, row 0 is text. Make all labels of one kind"),
    "numbers and text": (np.array([1, "b"], object), "row 1 is text, row 0 is a number"),
    "truth and numbers": ([True, 2], "row 1 is a number, row 0 is a truth value"),
    "complex": (np.ones(3, complex), "holds dtype complex128. Labels are"),
    "complex list": ([1j, 2], "row 0 is a complex"),
    "times": (np.zeros(3, "M8[s]"), "holds dtype datetime64"),
    "records": (np.zeros(3, [("a", "f4")]), "holds dtype "),
    "arrow lists": (pa.array([[1], [2]]), "row 0 is a ndarray"),
    "too large": ([1 << 70], "64 bits do not hold"),
    "not UTF-8": (np.array([b"\xff"]), "is not UTF-8 text"),
    "a dict": ({"a": 1}, "a dict cannot be read as labels. Pass an array"),
    "a number": (3, "a int cannot be read as labels"),
    "bytes": (b"abc", "a bytes cannot be read as labels"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_memory(case):
    source, said = BAD[case]
    with pytest.raises(DataError, match=said) as caught:
        read_labels(source)
    assert str(caught.value).startswith("y: ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def shortened(path: Path, n: int) -> Path:
    path.write_bytes(path.read_bytes()[:-n])
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda f: f / "no.npy", "no such file or directory"),
    "unknown": (lambda f: text(f, "1\n", "y.xls"), r"unknown suffix '\.xls'\. Labels are read from \.npy, .*\.idx"),
    "no suffix": (lambda f: text(f, "1\n", "y"), "no suffix"),
    "a directory": (lambda f: f, "is a directory without labels"),
    "npy 2-D": (lambda f: npy(f, np.ones((9, 2))), r"has shape \(9, 2\)"),
    "npy objects": (lambda f: npy(f, np.array(["a", None])), "holds Python objects, which are never unpickled"),
    "npy truncated": (lambda f: shortened(npy(f, np.ones(9)), 3), "is truncated"),
    "npy damaged": (lambda f: text(f, "abc", "y.npy"), r"is no readable \.npy file"),
    "npy NaN": (lambda f: npy(f, np.array([1, np.nan])), "row 1 has no label"),
    "npz truncated": (lambda f: shortened(npz(f, np.ones(9)), 30), r"is no readable \.npz file"),
    "npz damaged": (lambda f: text(f, b"PK\3\4" * 9, "y"), r"is no readable \.npz file"),
    "arrow truncated": (lambda f: shortened(arrow(f, np.ones(9)), 30), "damaged or truncated"),
    "parquet truncated": (lambda f: shortened(parquet(f, np.ones(9)), 30), "damaged Parquet"),
    "idx images": (lambda f: text(f, idx_bytes(np.ones((3, 2), np.uint8)), "y"), r"has shape \(3, 2\)"),
    "idx truncated": (lambda f: shortened(text(f, idx_bytes(np.ones(9)), "y"), 1), "is truncated"),
    "text: header": (
        lambda f: text(f, "label\n1\n2\n"),
        "line 1 is 'label', all others are numbers. Remove the header",
    ),
    "text: gap": (lambda f: text(f, "a\n\nb\n"), "line 2 has no label"),
    "text: NaN": (lambda f: text(f, "1\nnan\n2\n"), "line 2 has no label"),
    "text: NA": (lambda f: text(f, "1.5\n2\nNA\n"), "line 3 has no label"),
    "text: mixed": (lambda f: text(f, "1.5\n2\nx\n"), "line 3 is 'x', others are numbers"),
    "text: infinite": (lambda f: text(f, "1.5\ninf\n"), "row 1 is infinite"),
    "text: empty": (lambda f: text(f, "\n\n"), "is empty: no labels"),
    "text: not UTF-8": (lambda f: text(f, b"\xff\xfe\n"), r"is no readable \.csv file"),
    "csv: quotes": (lambda f: text(f, '"a"b\n', "y.csv"), r"is no readable \.csv file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_refused_files(case, tmp_path):
    write, said = BAD_FILES[case]
    path = write(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_another_length_is_told(tmp_path):
    values = np.zeros(900, np.uint8)
    said = r"900 labels, but X has 1,000 rows\. Give one label a row\."
    for name, write in FILES.items():
        (tmp_path / name).mkdir()
        if name != "parts":
            with pytest.raises(DataError, match=said):
                read_labels(write(tmp_path / name, values), n_rows=1000)
    for source in (values, values.tolist(), text(tmp_path, "0\n" * 900), text(tmp_path, idx_bytes(values), "y")):
        with pytest.raises(DataError, match=said):
            read_labels(source, n_rows=1000)
    with pytest.raises(DataError, match=r"^target: 900 labels"):
        read_labels(values, n_rows=1000, what="target")


def test_column_means_nothing_there(tmp_path):
    for source in (np.ones(3), npy(tmp_path, np.ones(3)), text(tmp_path, "1\n")):
        with pytest.raises(DataError, match=r"no named columns\. Leave out column='a'\."):
            read_labels(source, column="a")


@pytest.mark.parametrize("write", [npy, npz, packed_npz])
def test_a_matrix_is_refused_before_it_is_read(write, tmp_path):
    path = write(tmp_path, np.zeros((1 << 12, 1 << 10)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"has shape \(4096, 1024\)"):
            read_labels(path)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
