"""svmlight text converted to sparse rows is what scikit-learn loads; what is malformed is refused by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone

TEXT = b"""# ranked by hand
+1 qid:3 1:0.5 4:-2e1 # the first
-1.5 qid:3 2:+1

0\t3:1\t 5:nan\r
2 # no entries
7 5:1e-3 1:4"""
LABELS = np.array([1, -1.5, 0, 2, 7])
DENSE = np.array(
    [[0.5, 0, 0, -20, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, np.nan], [0, 0, 0, 0, 0], [4, 0, 0, 0, 1e-3]]
)  # fmt: skip


def written(folder: Path, text: bytes, name: str = "rows.svm") -> Path:
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder / name


def loaded(path: Path) -> tuple[sp.csr_array, np.ndarray]:
    matrix, label = open_matrix(path), open_matrix(path, column="label")
    assert label.shape == (matrix.shape[0], 1)
    assert label.dtype == np.float64
    labels = np.empty(label.shape)
    with label.open() as reader:
        reader.read(Span(0, len(labels)), Span(0, 1), labels)
    with matrix.open() as reader:
        return reader.read_rows(Span(0, matrix.shape[0]), matrix.dtype), labels[:, 0]


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize("name", ["rows.svm", "rows.svmlight", "rows.libsvm", "rows.svm.gz"])
def test_a_text_by_hand(name, suffix, tmp_path):
    rows, labels = loaded(convert(written(tmp_path, TEXT, name), tmp_path / f"x{suffix}"))
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(rows.toarray(), DENSE)
    assert rows.nnz == 7
    assert rows.dtype == np.float64


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_as_scikit_learn_loads_it(tmp_path, data):
    datasets = pytest.importorskip("sklearn.datasets")
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(2, 30)))
    values = np.where(random.random(shape) < 0.3, random.standard_normal(shape), 0)
    values[0, 0] = values[0, -1] = 1  # so that both know base and width
    zero_based = data.draw(st.booleans())
    path = tmp_path / "rows.svm"
    datasets.dump_svmlight_file(values, random.standard_normal(len(values)), str(path), zero_based=zero_based)
    rows, labels = loaded(convert(path, tmp_path / "x.arrow", overwrite=True))
    expected, expected_labels = datasets.load_svmlight_file(str(path))
    np.testing.assert_array_equal(labels, expected_labels)
    assert rows.shape == expected.shape
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))


def test_the_cut_into_blocks_does_not_matter(tmp_path, monkeypatch):
    for name in ("TEXT_BLOCK_NBYTES", "SMALLEST_TEXT_BLOCK"):
        monkeypatch.setattr(f"lazypipe.io.convert_sparse.{name}", 64)
    random = np.random.default_rng(0)
    lines = []
    for i in range(200):
        columns = np.sort(random.choice(50, random.integers(0, 5), replace=False))
        lines.append(f"{i} " + " ".join(f"{c + 1}:{c * i}" for c in columns) + "\n" * random.integers(1, 3))
    source = written(tmp_path, "".join(lines).encode())
    path = convert(source, tmp_path / "x.arrow")
    assert len(open_matrix(path).pieces()) > 20
    rows, labels = loaded(path)
    monkeypatch.undo()
    rows_at_once, labels_at_once = loaded(convert(source, tmp_path / "y.arrow"))
    assert (rows != rows_at_once).nnz == 0
    np.testing.assert_array_equal(labels, labels_at_once)
    np.testing.assert_array_equal(labels, np.arange(200))


def test_base_and_width(tmp_path):
    def shape_and_indices(text: bytes, **asked: object) -> tuple[tuple[int, int], list[int]]:
        rows, _ = loaded(convert(written(tmp_path, text), tmp_path / "x.parquet", overwrite=True, **asked))
        return rows.shape, rows.indices.tolist()

    assert shape_and_indices(b"1 1:1 3:1\n") == ((1, 3), [0, 2])
    assert shape_and_indices(b"1 0:1 3:1\n") == ((1, 4), [0, 3])
    assert shape_and_indices(b"1 1:1 3:1\n", zero_based=True) == ((1, 4), [1, 3])
    assert shape_and_indices(b"1 1:1 3:1\n", n_columns=9) == ((1, 9), [0, 2])
    assert shape_and_indices(b"1 1:1 3:1\n", n_columns=9, zero_based=True) == ((1, 9), [1, 3])
    big = 1 << 40
    assert shape_and_indices(b"1 7:1 %d:1\n" % big) == ((1, big), [6, big - 1])


def test_both_given_means_one_pass(tmp_path):
    def stages(**asked: object) -> list[str]:
        events: list = []
        convert(
            written(tmp_path, TEXT), tmp_path / "x.arrow", overwrite=True, progress=Progress((events.append,)), **asked
        )
        assert all(isinstance(event, (StageStarted, TaskDone, StageDone)) for event in events)
        return [event.title for event in events if isinstance(event, StageDone)]

    assert stages() == ["scan rows.svm", "convert to x.arrow"]
    assert stages(n_columns=5, zero_based=False) == ["convert to x.arrow"]


MALFORMED = {
    "no value": b"1 1:2 2:\n",
    "no index": b"1 1:2 :3\n",
    "a space": b"1 1: 2\n",
    "two colons": b"1 1:2:3 4\n",
    "no label": b"1:2 2:3\n",
    "stray number": b"1 1:2 3\n",
    "word": b"1 1:two\n",
    "label word": b"spam 1:2\n",
    "labels": b"1,2 1:2\n",
    "negative": b"1 -1:2\n",
    "fraction": b"1 1.5:2\n",
    "csv": b"1,2,3\n",
    "quote": b'1 1:"2"\n',
    "plus": b"+ 1:2\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_lines_are_named(case, tmp_path):
    source = written(tmp_path, b"# one\n1 1:1\n" + MALFORMED[case] + b"1 2:1\n")
    for asked in ({}, {"n_columns": 9, "zero_based": False}):
        with pytest.raises(DataError, match=r"rows\.svm: line 3 is not 'label index:value \.\.\.'") as caught:
            convert(source, tmp_path / "x.arrow", **asked)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.svm"]


def test_refusals(tmp_path):
    def refused(text: bytes, message: str, error: type = DataError, name: str = "rows.svm", **asked: object) -> None:
        with pytest.raises(error, match=message):
            convert(written(tmp_path, text, name), tmp_path / "x.arrow", **asked)

    refused(b"1 1:1\n2 3:1 1:2 3:4\n", r"line 2 has index 3 twice\. Leave one of them out")
    refused(
        b"1 1:1\n2 0:1\n", r"line 2 has index 0 where indices count from 1\. Pass zero_based=True", zero_based=False
    )
    refused(b"1 1:1\n2 7:1\n", r"line 2 has index 7 beyond the 6 columns\. Pass a larger n_columns", n_columns=6)
    refused(b"# nothing\n\n", "is empty: no rows")
    refused(b"1\n2\n", "is empty: no columns")
    refused(b"1 1:1\n", "no named columns", column="x")
    refused(b"1 1:1\n", r"needs .* bytes, memory is 9\. Raise memory", MemoryPlanError, memory=9)
    refused(b"1 1:1 " * 30_000, r"line 1 is longer than", memory=80 * 64 * 1024)
    damaged = tmp_path / "d.svm.gz"
    damaged.write_bytes(gzip.compress(TEXT)[:-20])
    with pytest.raises(DataError, match=r"d\.svm\.gz: cannot be read on"):
        convert(damaged, tmp_path / "x.arrow")
    with pytest.raises(DataError, match=r"not written to \.npy\. Use \.arrow or \.parquet"):
        convert(damaged, tmp_path / "x.npy")
    with pytest.raises(DataError, match="no such file"):
        convert(tmp_path / "none.svm", tmp_path / "x.arrow")
    with pytest.raises(DataError, match=r"is svmlight text\. Convert it to \.arrow or \.parquet"):
        open_matrix(damaged)
