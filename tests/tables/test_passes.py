"""What tasks do with their batches, without Spark: any cut of the rows gives the same matrix, and the same record."""

import pickle
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypipe.errors import DataError
from lazypipe.io.convert import npy_header
from lazypipe.tables.features import Feature, numbers
from lazypipe.tables.judged import judge
from lazypipe.tables.passes import Labels, Measure, Write

FEATURES = (
    Feature("count", "int", "integer"),
    Feature("share", "double", "float64"),
    Feature("city", "string", "text"),
    Feature("position", "array<float>", "float32", is_list=True),
)
LABEL = Feature("y", "string", "text")
N_ROWS = 60


def batch(rows, split):
    """Rows of a table whose entries are known, as Spark would send them."""
    at = np.arange(*rows)
    columns = {
        "file": [f"file:/t/{split[0]}.csv"] * len(at),
        "key": pa.array([split[0]] * len(at), pa.int64()),
        "begin": pa.array([split[1]] * len(at), pa.int64()),
        "c0": pa.array([None if i % 7 == 3 else int(i) for i in at], pa.int32()),
        "c1": pa.array([None if i % 11 == 5 else np.nan if i % 11 == 6 else i / 3 for i in at], pa.float64()),
        "c2": pa.array([None if i % 13 == 1 else "abc"[i % 3] for i in at], pa.string()),
        "c3": pa.array(
            [None if i % 17 == 2 else [None if i % 5 == 0 else i, -i / 2] for i in at], pa.list_(pa.float32())
        ),
        "c4": pa.array([f"class {i % 4}" for i in at], pa.string()),
    }
    return pa.record_batch(columns)


def expected(nulls):
    """The matrix in float64, by rows: one loop, no Arrow."""
    fill = {"nan": np.nan, "zero": 0.0}.get(nulls)
    out, kept = [], []
    for i in range(N_ROWS):
        has_null = i % 7 == 3 or i % 11 == 5 or i % 13 == 1 or i % 17 == 2 or i % 5 == 0
        if nulls == "drop" and has_null:
            continue
        city = [fill] * 3 if i % 13 == 1 else [float(i % 3 == j) for j in range(3)]
        place = [fill, fill] if i % 17 == 2 else [fill if i % 5 == 0 else i, -i / 2]
        share = fill if i % 11 == 5 else np.nan if i % 11 == 6 else i / 3
        out.append([fill if i % 7 == 3 else i, share, *city, *place])
        kept.append(f"class {i % 4}")
    return np.array(out, np.float64), np.array(kept)


@pytest.mark.parametrize(
    ("kind", "type", "dtype"),
    [
        ("truth", pa.bool_(), np.uint8),
        ("integer", pa.int8(), np.int8),
        ("integer", pa.int64(), np.int64),
        ("float32", pa.float32(), np.float32),
        ("float64", pa.float64(), np.float64),
        ("day", pa.date32(), np.int32),
        ("second", pa.timestamp("us", "UTC"), np.float64),
        ("second", pa.timestamp("us"), np.float64),
    ],
    ids=str,
)
def test_nulls_of_every_kind_are_0_among_the_numbers(kind, type, dtype):
    whole, gap = pa.array([1], pa.int64() if type.bit_width == 64 else pa.int32()), pa.array([None], type)
    values = pa.concat_arrays([whole.cast(type), gap])
    found = numbers(Feature("a", "b", kind), values)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [1e-6 if kind == "second" else 1, 0])


def answer(work, batches):
    """What a task tells the driver."""
    (report,) = work(iter(batches))
    found = pickle.loads(report.column(0)[0].as_py())
    if isinstance(found, DataError):
        raise found
    return found


def convert(folder, tasks, nulls):
    """Both passes over tasks of batches."""
    measure = Measure(FEATURES, LABEL, nulls == "drop", 10)
    seen = measure.nothing()
    for task in tasks:
        seen.merge(answer(measure, task))
    judged = judge(seen, nulls, "one-hot", 10, None, "t")
    header, label_header = (
        npy_header((judged.n_rows, judged.width), judged.dtype),
        npy_header((judged.n_rows,), judged.labels),
    )
    path, labels = folder / "x.npy", folder / "y.npy"
    path.write_bytes(header.ljust(len(header) + judged.n_rows * judged.width * judged.dtype.itemsize, b"?"))
    labels.write_bytes(label_header.ljust(len(label_header) + judged.n_rows * judged.labels.itemsize, b"?"))
    fill = {"nan": np.nan, "zero": 0.0}.get(nulls)
    write = Write(
        path=str(path),
        offset=len(header),
        dtype=judged.dtype.str,
        fields=judged.fields,
        places=judged.places,
        fill=fill,
        drop=nulls == "drop",
        uri="t",
        labels=Labels(LABEL, str(labels), len(label_header), judged.labels.str),
    )
    for task in reversed(tasks):  # in any order
        answer(write, [one.drop_columns(["file"]) for one in task])
    answer(write, [one.drop_columns(["file"]) for one in tasks[0]])  # a task may run twice
    return judged, np.load(path), np.load(labels)


def test_what_only_rows_have_that_are_left_out_does_not_count(tmp_path):
    rows = {
        "file": ["a", "a"],
        "key": pa.array([1, 1], pa.int64()),
        "begin": pa.array([0, 0], pa.int64()),
        "c0": pa.array([1, 1_000], pa.int32()),
        "c1": pa.array([0.5, None], pa.float64()),
        "c2": ["a", "z"],
        "c3": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32())),
        "c4": ["y", "n"],
    }
    judged, x, _ = convert(tmp_path, [[pa.record_batch(rows)]], "drop")
    np.testing.assert_array_equal(x, [[1, 0.5, 1, 1, 2]])
    assert judged.fields[0].range == (0, 1) and judged.fields[2].categories == ("a",)
    assert [field.n_nulls for field in judged.fields] == [0, 1, 0, 0]


def writing(path, judged):
    return Write(str(path), 128, judged.dtype.str, judged.fields, judged.places, np.nan, False, "t", None)


@st.composite
def cuts(draw):
    """Rows cut into files, those into splits, those into batches; tasks that each take some splits."""
    edges = sorted(draw(st.sets(st.integers(1, N_ROWS - 1), max_size=6)))
    splits = list(zip([0, *edges], [*edges, N_ROWS], strict=True))
    files = sorted(draw(st.lists(st.integers(0, 3), min_size=len(splits), max_size=len(splits))))
    pieces = []
    for (start, stop), file in zip(splits, files, strict=True):
        inner = sorted(draw(st.sets(st.integers(start, stop), max_size=3)))
        bounds = [start, *inner, stop]
        pieces.append([batch((a, b), (file, start)) for a, b in pairwise(bounds)])
    order = draw(st.permutations(range(len(pieces))))
    n_tasks = draw(st.integers(1, len(pieces)))
    return [[one for i in order[task::n_tasks] for one in pieces[i]] for task in range(n_tasks)]


@pytest.mark.parametrize("nulls", ["nan", "zero", "drop"])
@settings(max_examples=25, deadline=None)
@given(tasks=cuts())
def test_any_cut_into_files_splits_batches_and_tasks_gives_the_same_matrix(tmp_path_factory, nulls, tasks):
    judged, x, y = convert(tmp_path_factory.mktemp("cut"), tasks, nulls)
    wanted, labels = expected(nulls)
    assert judged.dtype == np.float64  # i / 3 is exact in nothing less
    np.testing.assert_array_equal(x, wanted)
    np.testing.assert_array_equal(y, labels)
    found = {field.name: field.found for field in judged.fields}
    low, high = np.nanmin(wanted[:, 0]), np.nanmax(wanted[:, 0])
    assert (min(0, found["count"].low[0]), found["count"].high[0]) == (min(0, low), high)  # of the rows that stay
    assert found["count"].n_missing == sum(i % 7 == 3 for i in range(N_ROWS))  # of all rows
    assert found["share"].n_nan.tolist() == [5 if nulls != "drop" else np.isnan(wanted[:, 1]).sum()]
    assert found["position"].nulls.tolist() == [sum(i % 17 == 2 or i % 5 == 0 for i in range(N_ROWS)), 4]
    assert judged.fields[2].categories == ("a", "b", "c")


def test_batches_of_two_splits_are_cut_at_their_border(tmp_path):
    both = pa.Table.from_batches([batch((0, 20), (1, 0)), batch((20, N_ROWS), (1, 500))]).combine_chunks()
    _, x, _ = convert(tmp_path, [both.to_batches()], "nan")
    np.testing.assert_array_equal(x, expected("nan")[0])


def test_rows_that_came_between_the_passes_are_refused(tmp_path):
    judged, _, _ = convert(tmp_path, [[batch((0, N_ROWS), (1, 0))]], "nan")
    write = Write(
        str(tmp_path / "x.npy"), 128, judged.dtype.str, judged.fields, judged.places, np.nan, False, "t", None
    )
    longer = [batch((0, N_ROWS), (1, 0)).drop_columns(["file"]), batch((0, 1), (1, 0)).drop_columns(["file"])]
    with pytest.raises(DataError, match="t: changed while it was read"):
        answer(write, longer)
    with pytest.raises(DataError, match="t: changed while it was read"):
        answer(write, [batch((0, 1), (2, 0)).drop_columns(["file"])])


def test_a_category_that_came_between_the_passes_is_refused(tmp_path):
    judged, _, _ = convert(tmp_path, [[batch((0, N_ROWS), (1, 0))]], "nan")
    write = Write(
        str(tmp_path / "x.npy"), 128, judged.dtype.str, judged.fields, judged.places, np.nan, False, "t", None
    )
    other = batch((0, 5), (1, 0)).drop_columns(["file"])
    other = other.set_column(4, "c2", pa.array(["d"] * 5))
    with pytest.raises(DataError, match="t: changed while it was read"):
        answer(write, [other])


def test_a_worker_that_does_not_see_the_target_says_so(tmp_path):
    judged, _, _ = convert(tmp_path, [[batch((0, N_ROWS), (1, 0))]], "nan")
    write = Write(
        str(tmp_path / "no.npy"), 128, judged.dtype.str, judged.fields, judged.places, np.nan, False, "t", None
    )
    with pytest.raises(DataError, match=r"no.npy: the worker on \S+ does not see it. Write to a folder that"):
        answer(write, [])


def test_a_disk_that_fills_up_under_a_task_is_told(tmp_path):
    judged, _, _ = convert(tmp_path, [[batch((0, N_ROWS), (1, 0))]], "nan")
    with pytest.raises(DataError, match=r"the target on \S+: cannot be written: the disk is full"):
        answer(writing("/dev/full", judged), [batch((0, N_ROWS), (1, 0)).drop_columns(["file"])])
