"""Panels and other chunks stored uncompressed: what is written is what zarr reads, and what is torn is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

import lazypipe as lp
from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert
from lazypipe.io.raw_chunks import RawChunksReader
from lazypipe.sizes import MIB


def values_of(dtype: str, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def rectangle(path: Path, rows: Span, columns: Span, out: np.ndarray) -> np.ndarray:
    with open_matrix(path).open() as reader:
        reader.read(rows, columns, out)
    return out


def whole(path: Path) -> np.ndarray:
    matrix = open_matrix(path)
    n_rows, n_columns = matrix.shape
    return rectangle(path, Span(0, n_rows), Span(0, n_columns), np.empty(matrix.shape, matrix.dtype))


def is_raw(path: Path) -> bool:
    with open_matrix(path).open() as reader:
        return isinstance(reader, RawChunksReader)


@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
@pytest.mark.parametrize("panel_columns", [None, 1, 16, 40, 100])
def test_there_and_back_keeps_every_bit(dtype, panel_columns, tmp_path):
    values = values_of(dtype, (23, 100))
    np.save(tmp_path / "a.npy", values)
    panels = convert(
        tmp_path / "a.npy", tmp_path / "p.zarr", panel_columns=panel_columns, memory=4 * MIB + values.nbytes * 2
    )
    stored = zarr.open(panels, mode="r")
    assert stored.dtype == dtype and stored.chunks == (23, panel_columns or 100) and stored.shards is None
    assert stored[:].tobytes() == values.tobytes()
    assert open_matrix(panels).panel_columns == (None if panel_columns in (None, 100) else panel_columns)
    assert open_matrix(panels).reads_columns and is_raw(panels)
    back = convert(panels, tmp_path / "b.npy")
    assert back.read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_row_blocks_of_any_height_write_the_same_files(tmp_path):
    values = values_of("float32", (50, 70))
    one = convert(values, tmp_path / "one.zarr", panel_columns=16)
    some = convert(values, tmp_path / "some.zarr", panel_columns=16, memory=4_000)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(files) == 6
    assert all((one / file).read_bytes() == (some / file).read_bytes() for file in files)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows of a panel below and above 16 KiB, where they are read one by one, and the panels' values."""
    folder = tmp_path_factory.mktemp("wide")
    values = np.random.default_rng(0).standard_normal((31, 12_345)).astype(np.float32)
    return values, [convert(values, folder / f"{width}.zarr", panel_columns=width) for width in (500, 5_000)]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_rectangle_of_panels_is_the_slice(wide, data):
    values, stores = wide
    path = data.draw(st.sampled_from(stores))
    spans = []
    for length, unit in zip(values.shape, (1, open_matrix(path).panel_columns), strict=True):
        edges = st.integers(0, length) | st.integers(0, length // unit).map(lambda i, unit=unit: i * unit)
        spans.append(Span(*sorted((data.draw(edges), data.draw(edges | st.just(length))))))
    rows, columns = spans
    room = np.full((len(rows), len(columns) + 3), np.nan, data.draw(st.sampled_from(["f4", "f8"])))
    view = room[:, : len(columns)] if data.draw(st.booleans()) else np.empty((len(rows), len(columns)), room.dtype)
    np.testing.assert_array_equal(rectangle(path, rows, columns, view), values[rows.slice, columns.slice])
    assert np.isnan(room[:, len(columns) :]).all()


def test_a_panel_is_read_by_one_call(wide, monkeypatch):
    values, (path, _) = wide
    calls = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: calls.append(preadv(*arguments)) or calls[-1])
    out = rectangle(path, Span(0, 31), Span(500, 1_000), np.empty((31, 500), np.float32))
    assert calls == [31 * 500 * 4]
    np.testing.assert_array_equal(out, values[:, 500:1_000])


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_without_a_file_is_the_fill_value(version, tmp_path):
    array = zarr.create_array(
        tmp_path / "m.zarr", shape=(5, 7), chunks=(2, 3), dtype="float32", zarr_format=version, compressors=None,
        filters=None, fill_value=np.nan,
    )  # fmt: skip
    array[2:4, 3:6] = 1
    assert is_raw(tmp_path / "m.zarr")
    np.testing.assert_array_equal(whole(tmp_path / "m.zarr"), array[:])


def test_what_has_to_be_decoded_is_left_to_zarr(tmp_path):
    values = values_of("float32", (8, 6))
    options = {
        "compressed": {},
        "crc": {"compressors": [Crc32cCodec()]},
        "shards": {"compressors": None, "shards": (8, 6)},
        "fortran": {"compressors": None, "filters": None, "zarr_format": 2, "order": "F"},
    }
    for name, option in options.items():
        path = tmp_path / f"{name}.zarr"
        zarr.create_array(path, shape=(8, 6), chunks=(4, 3), dtype="float32", **option)[:] = values
        assert not is_raw(path)
        np.testing.assert_array_equal(whole(path), values)


@pytest.mark.parametrize("change", [-4, 4])
def test_a_torn_chunk_is_named(change, tmp_path):
    path = convert(values_of("float32", (20, 64)), tmp_path / "p.zarr", panel_columns=16)
    torn = path / "c" / "0" / "2"
    data = torn.read_bytes()
    torn.write_bytes(data[:change] if change < 0 else data + bytes(change))
    rectangle(path, Span(0, 20), Span(0, 32), np.empty((20, 32), np.float32))
    with pytest.raises(DataError, match=r"p\.zarr/c/0/2: holds 1,2\d\d bytes, .* 1,280: it is torn\. Write or copy"):
        whole(path)


def test_widths(tmp_path):
    def width(n_rows: int, n_columns: int, dtype: str = "float32", **options: int) -> int:
        path = convert(np.zeros((n_rows, n_columns), dtype), tmp_path / "w.zarr", overwrite=True, **options)
        return zarr.open(path, mode="r").chunks[1]

    assert width(2, 100) == 100
    assert width(512, 20_000) == 16_352, "an odd multiple of 32 columns, about 32 MiB"
    assert width(512, 20_000, "int16") == 20_000
    assert width(200_000, 40) == 32
    assert width(1_000, 4_000, memory=5 * MIB) == 1_248, "less where memory is less than 32 MiB"
    assert width(4, 100, panel_columns=7) == 7
    assert width(4, 100, panel_columns=700) == 100


def test_what_cannot_be_panels_is_refused(tmp_path):
    values = np.zeros((100, 64), np.float32)
    with pytest.raises(MemoryPlanError, match=r"16 columns x 100 rows takes 6,400 bytes, memory is 5,000\. Raise"):
        convert(values, tmp_path / "p.zarr", memory=5_000)
    with pytest.raises(MemoryPlanError, match=r"32 columns .* 12,800 bytes, .*\. Lower panel_columns\."):
        convert(values, tmp_path / "p.zarr", memory=5_000, panel_columns=32)
    with pytest.raises(DataError, match=r"panel_columns=0 is no width"):
        convert(values, tmp_path / "p.zarr", panel_columns=0)
    with pytest.raises(DataError, match=r"p\.npy: only \.zarr is written in panels"):
        convert(values, tmp_path / "p.npy", panel_columns=16)
    assert not list(tmp_path.iterdir())


def test_pca_of_panels(tmp_path, serial_engine, dask_engine):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 6)) * 2.0 ** -np.arange(6) @ rng.standard_normal((6, 3_000)) + 3
    np.save(tmp_path / "m.npy", (values + 0.01 * rng.standard_normal(values.shape)).astype(np.float32))
    panels = convert(tmp_path / "m.npy", tmp_path / "m.zarr", panel_columns=208)
    for solver in ("gradient", "gram"):
        pca = lp.PCA(4, solver=solver, tol=1e-5)
        want = pca.fit(tmp_path / "m.npy", engine=serial_engine)
        components, variances = want.components_, want.explained_variance_
        serial = lp.PCA(4, solver=solver, tol=1e-5).fit(panels, engine=serial_engine)
        np.testing.assert_allclose(serial.explained_variance_, variances, rtol=1e-5)
        np.testing.assert_allclose(serial.components_, components, atol=1e-5)
        dask = lp.PCA(4, solver=solver, tol=1e-5).fit(panels, engine=dask_engine)
        assert dask.components_.tobytes() == serial.components_.tobytes()
        assert dask.explained_variance_.tobytes() == serial.explained_variance_.tobytes()


def test_reading_panels_takes_no_more_than_it_says(wide):
    _, stores = wide
    for path in stores:
        matrix = open_matrix(path)
        assert matrix.reader_nbytes(31, matrix.panel_columns) <= min(31 * matrix.panel_columns * 4, 4 * MIB)
