"""Any rectangle of any format, in any dtype, is the slice of the array that was written."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matrix_writers import LACKS, WRITERS

from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.io import open_matrix, raw_rows
from lazypipe.io.matrix import Matrix
from lazypipe.io.sources import touched

CASES = [(name, dtype) for name in WRITERS for dtype in SUPPORTED_DTYPES if dtype not in LACKS.get(name, ())]


def values_of(dtype: str, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.random(shape) < 0.5
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def rectangle(matrix: Matrix, rows: Span, columns: Span, dtype: np.dtype, mapped: bool = False) -> np.ndarray:
    out = np.empty((len(rows), len(columns)), dtype)
    with matrix.open(mapped) as reader:
        reader.read(rows, columns, out)
    return out


@st.composite
def spans(draw: st.DrawFn, length: int) -> Span:
    start = draw(st.integers(0, length))
    return Span(start, draw(st.integers(start, length)))


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=8), data=st.data())
def test_parts_that_rows_touch_are_these_rows_in_order(lengths, data):
    edges = np.cumsum([0, *lengths])
    rows = data.draw(spans(int(edges[-1])))
    found = [(int(edges[i]) + part.start, int(edges[i]) + part.stop, first) for i, part, first in touched(rows, edges)]
    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(rows.start, rows.stop))
    assert all(start == first and start < stop for start, stop, first in found)


@pytest.mark.parametrize(("format", "dtype"), CASES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rectangle_equals_the_slice(format, dtype, tmp_path, data):
    shape = data.draw(st.tuples(st.integers(1, 11), st.integers(1, 7)))
    values = values_of(dtype, shape)
    matrix = pickle.loads(pickle.dumps(open_matrix(WRITERS[format](tmp_path, values))))
    assert matrix.shape == shape
    assert matrix.dtype == np.dtype(dtype)
    assert matrix.dtype.isnative
    with matrix.open(data.draw(st.booleans())) as reader:
        for target in (np.dtype(dtype), np.dtype(np.float64)):
            for _ in range(3):
                rows, columns = data.draw(spans(shape[0])), data.draw(spans(shape[1]))
                out = np.empty((len(rows), len(columns)), target)
                reader.read(rows, columns, out)
                np.testing.assert_array_equal(out, values[rows.slice, columns.slice].astype(target))


@pytest.mark.parametrize("format", ["npy", "npy-fortran", "npy-big-endian", "arrow", "idx"])
@pytest.mark.parametrize("mapped", [False, True])
def test_stripes_of_wide_rows(format, mapped, tmp_path):
    """Rows above 16 KiB go through a map, or row by row where none is allowed."""
    values = values_of("float32", (23, 40_000))
    if format == "npy-fortran":
        values = values.T
    matrix = open_matrix(WRITERS[format](tmp_path, values))
    long = 1 if format != "npy-fortran" else 0
    with matrix.open(mapped) as reader:
        for start in range(0, values.shape[long], 7_000):
            span = Span(start, min(start + 7_000, values.shape[long]))
            other = Span(2, values.shape[1 - long] - 1)
            rows, columns = (other, span) if long else (span, other)
            for target in (np.float32, np.float64):
                out = np.empty((len(rows), len(columns)), target)
                reader.read(rows, columns, out)
                np.testing.assert_array_equal(out, values[rows.slice, columns.slice])


def test_readers_share_one_map_that_release_lets_go(tmp_path):
    values = values_of("float32", (40, 50_000))
    path = WRITERS["npy"](tmp_path, values)
    matrix = open_matrix(path)
    out = np.empty((40, 1000), np.float32)

    def n_maps():
        return sum(str(path) in line for line in open("/proc/self/maps"))

    with matrix.open(mapped=True) as first, matrix.open(mapped=True) as second:
        for reader in (first, second):
            reader.read(Span(0, 40), Span(0, 1000), out)
        assert n_maps() == 1
    assert n_maps() == 1, "kept for the next pass"
    raw_rows.MAPS.release()
    assert n_maps() == 0
    assert matrix.mapped_nbytes == values.nbytes


def test_uncompressed_arrow_is_read_as_raw_rows(tmp_path):
    values = values_of("float32", (11, 5))
    for format in ("arrow", "arrow-converted", "arrow-tensor", "arrow-sliced"):
        assert isinstance(open_matrix(WRITERS[format](tmp_path, values)), raw_rows.RawRowsMatrix)


def test_reads_columns(tmp_path):
    values = values_of("float32", (11, 5))
    reads = {name: open_matrix(write(tmp_path, values)).reads_columns for name, write in WRITERS.items()}
    assert all(reads[name] for name in ("npy", "npy-fortran", "arrow", "parquet-columns", "zarr-3", "idx"))
    assert not any(reads[name] for name in ("arrow-compressed", "parquet", "parquet-parts"))


@pytest.mark.parametrize("format", WRITERS)
def test_the_fingerprint_follows_the_data(format, tmp_path):
    path = WRITERS[format](tmp_path, values_of("float32", (11, 5)))
    before = open_matrix(path).fingerprint()
    assert before == open_matrix(str(path)).fingerprint()
    assert len(before) == 16
    assert open_matrix(WRITERS[format](tmp_path, values_of("float32", (11, 5), seed=1))).fingerprint() != before


def test_arrays_and_open_matrices():
    values = values_of("int16", (30, 20))[::2, 1::3]
    matrix = open_matrix(values)
    assert matrix.uri == "<array>"
    assert open_matrix(matrix) is matrix
    got = rectangle(matrix, Span(1, 9), Span(2, 5), np.dtype(np.float32))
    np.testing.assert_array_equal(got, values[1:9, 2:5])
    assert matrix.fingerprint() == open_matrix(values.copy()).fingerprint()
    changed = values.copy()
    changed[3, 3] += 1
    assert matrix.fingerprint() != open_matrix(changed).fingerprint()


def test_addresses_and_magic(tmp_path):
    values = values_of("float32", (4, 3))
    path = WRITERS["npy"](tmp_path, values)
    assert open_matrix(f"file://{path}").shape == (4, 3)
    bare = path.rename(tmp_path / "no_suffix")
    assert open_matrix(bare).shape == (4, 3)


def test_mixed_columns_take_the_common_dtype(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": np.arange(3, dtype=np.int16), "b": np.arange(3, dtype=np.float32)})
    pq.write_table(table, tmp_path / "mixed.parquet")
    assert open_matrix(tmp_path / "mixed.parquet").dtype == np.result_type(np.int16, np.float32)
