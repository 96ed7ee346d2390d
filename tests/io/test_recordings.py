"""Any samples of any format, in any dtype, are those that were written; clocks and gains are those told."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recording_writers import CASES, RATE, WRITERS, all_of, counts

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.io.recordings import open_recording
from lazypipe.io.recordings.stacked import Stacked, stack

TELLING = ("raw", "zarr", "hdf5", "nwb")  # a rate


@st.composite
def spans(draw: st.DrawFn, length: int) -> Span:
    start = draw(st.integers(0, length))
    return Span(start, draw(st.integers(start, length)))


@pytest.mark.parametrize(("format", "n_dims"), CASES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rectangle_equals_the_slice(format, n_dims, tmp_path, data):
    shape = data.draw(st.tuples(st.integers(2, 11), *[st.integers(2, 5)] * (n_dims - 1)))
    dtype = data.draw(st.sampled_from(("int16", "float32", "uint8", "float64")))
    values = counts(*shape, dtype=dtype)
    source, options = WRITERS[format][0](tmp_path, values)
    recording = pickle.loads(pickle.dumps(open_recording(source, **options)))
    flat = values.reshape(shape[0], -1)
    assert recording.shape == (shape if n_dims > 1 else (*shape, 1))
    assert (recording.n_samples, recording.n_channels) == recording.matrix.shape == flat.shape
    assert recording.dtype == np.dtype(dtype)
    assert recording.dtype.isnative
    assert recording.sampling_rate == (RATE if format.startswith(TELLING) else None)
    assert recording.spans == (Span(0, shape[0]),)
    with recording.matrix.open() as reader:
        for target in ("int16", "float32", "float64"):
            if target == "int16" and dtype.startswith("float"):
                continue
            rows, columns = data.draw(spans(shape[0])), data.draw(spans(flat.shape[1]))
            out = np.empty((len(rows), len(columns)), target)
            reader.read(rows, columns, out)
            np.testing.assert_array_equal(out, flat[rows.slice, columns.slice].astype(target))


@pytest.mark.parametrize(("format", "n_dims"), [case for case in CASES if not case[0].startswith("array")])
def test_pieces_cover_all_samples_and_the_fingerprint_follows_the_file(format, n_dims, tmp_path):
    write = WRITERS[format][0]
    source, options = write(tmp_path, counts(*(11, 4, 3)[:n_dims]))
    matrix = open_recording(source, **options).matrix
    pieces = matrix.pieces()
    assert pieces
    assert all(Path(piece.path).exists() for piece in pieces)
    assert set(range(11)) == {row for piece in pieces for row in range(piece.rows.start, piece.rows.stop)}
    before = matrix.fingerprint()
    assert before == open_recording(source, **options).matrix.fingerprint()
    write(tmp_path, counts(*(11, 4, 3)[:n_dims], seed=1))
    assert open_recording(source, **options).matrix.fingerprint() != before


@pytest.mark.parametrize("format", ["array", "raw", "npy", "zarr-3", "hdf5", "hdf5-chunked", "nwb"])
def test_unsigned_samples_of_16_bits(format, tmp_path):
    values = counts(7, 4, dtype="uint16")
    source, options = WRITERS[format][0](tmp_path, values)
    recording = open_recording(source, **options)
    assert recording.dtype == np.uint16
    np.testing.assert_array_equal(all_of(recording), values)


def test_what_lies_in_one_piece_is_read_as_raw_rows(tmp_path):
    values = counts(9, 4)
    for format in ("raw", "npy", "arrow", "hdf5", "hdf5-user-block", "nwb"):
        source, options = WRITERS[format][0](tmp_path, values)
        assert isinstance(open_recording(source, **options).matrix, RawRowsMatrix), format
    source, options = WRITERS["arrow"][0](tmp_path, values[:, 0])
    assert isinstance(open_recording(source, **options).matrix, RawRowsMatrix)


def test_sources_that_are_open_already():
    values = counts(20, 3)
    matrix = open_matrix(values)
    recording = open_recording(matrix, sampling_rate=RATE)
    assert recording.matrix is matrix
    assert open_recording(recording) is recording
    assert open_recording(recording, gain=0.5, unit="mV").gain == 0.5
    assert open_recording(values, sampling_rate=np.float32(25)).sampling_rate == 25


def test_suffixes_addresses_and_first_bytes(tmp_path):
    values = counts(8, 2)
    source, _ = WRITERS["npy"][0](tmp_path, values)
    assert open_recording(f"file://{source}").n_channels == 2
    source.rename(tmp_path / "bare")
    assert open_recording(tmp_path / "bare").n_channels == 2
    values.tofile(tmp_path / "r.i16")
    told = {"n_channels": 2, "dtype": "int16", "sampling_rate": 1000}
    assert open_recording(str(tmp_path / "r.i16"), **told).n_samples == 8


def test_what_is_done_with_a_reader_is_not_the_fault_of_its_file(tmp_path):
    source, options = WRITERS["hdf5-chunked"][0](tmp_path, counts(9, 4))
    matrix = open_recording(source, **options).matrix
    with pytest.raises(KeyError, match="of its caller"), matrix.open():
        raise KeyError("of its caller")


# --- Several sources --------------------------------------------------------------------------------------


def raw_files(folder: Path, *lengths: int, n_channels: int = 3) -> tuple[list[Path], np.ndarray]:
    values = counts(sum(lengths), n_channels)
    edges = np.cumsum([0, *lengths])
    paths = [folder / f"{i}.dat" for i in range(len(lengths))]
    for path, start, stop in zip(paths, edges, edges[1:], strict=False):
        values[start:stop].tofile(path)
    return paths, values


TOLD = {"n_channels": 3, "dtype": "int16", "sampling_rate": RATE}


def test_files_follow_one_another_or_begin_where_they_are_said_to(tmp_path):
    paths, values = raw_files(tmp_path, 10, 4, 7)
    recording = open_recording(paths, **TOLD)
    assert recording.spans == (Span(0, 10), Span(10, 14), Span(14, 21))
    assert isinstance(recording.matrix, RawRowsMatrix)
    assert [Path(piece.path).name for piece in recording.matrix.pieces()] == ["0.dat", "1.dat", "2.dat"]
    np.testing.assert_array_equal(all_of(recording), values)
    with_gaps = open_recording(paths, starts=[5, 15, np.int64(100)], **TOLD)
    assert with_gaps.spans == (Span(5, 15), Span(15, 19), Span(100, 107))
    assert with_gaps.stop == 107
    assert open_recording(paths[:1], **TOLD).stretches == ()
    assert open_recording(paths[0], starts=[3], **TOLD).spans == (Span(3, 13),)


def test_recordings_of_several_stretches_keep_their_gaps(tmp_path):
    paths, _ = raw_files(tmp_path, 10, 4, 7)
    first = open_recording(paths[:2], starts=[0, 20], **TOLD)
    assert open_recording([first, paths[2]], **TOLD).spans == (Span(0, 10), Span(20, 24), Span(24, 31))
    joined = open_recording([paths[2], first], starts=[0, 100], **TOLD)
    assert joined.spans == (Span(0, 7), Span(100, 110), Span(120, 124))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_stacked_reads_equal_the_concatenation(tmp_path, data):
    formats = data.draw(
        st.lists(st.sampled_from(("array", "raw", "npy-big-endian", "hdf5-chunked")), min_size=1, max_size=4)
    )
    parts, matrices = [], []
    for number, format in enumerate(formats):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        parts.append(counts(data.draw(st.integers(1, 6)), 3, seed=number))
        source, options = WRITERS[format][0](tmp_path / str(number), parts[-1])
        matrices.append(open_recording(source, **options).matrix)
    whole = np.concatenate(parts)
    for matrix in (stack(matrices), Stacked("stacked", tuple(matrices))):
        assert matrix.shape == whole.shape
        assert matrix.fingerprint() == pickle.loads(pickle.dumps(matrix)).fingerprint()
        with matrix.open() as reader:
            for _ in range(4):
                rows, columns = data.draw(spans(len(whole))), data.draw(spans(3))
                out = np.empty((len(rows), len(columns)), np.float32)
                reader.read(rows, columns, out)
                np.testing.assert_array_equal(out, whole[rows.slice, columns.slice])


def test_a_list_of_many_files_never_has_all_of_them_open(tmp_path):
    paths, values = raw_files(tmp_path, *[2] * 150)
    recording = open_recording(paths, **TOLD)
    assert isinstance(recording.matrix, Stacked)
    pieces = recording.matrix.pieces()
    assert pieces[-1] == (str(paths[-1]), Span(298, 300))
    before = len(list(Path("/proc/self/fd").iterdir()))
    out = np.empty(values.shape, np.int16)
    with recording.matrix.open() as reader:
        reader.read(Span(0, 300), Span(0, 3), out)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    np.testing.assert_array_equal(out, values)


# --- Memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["hdf5", "zarr"])
@pytest.mark.parametrize(
    ("shape", "chunks"), [((400_000,), (30_000,)), ((3000, 40, 50), (70, 16, 50)), ((3000, 2000), (700, 90))]
)
def test_a_reader_holds_what_it_says(format, shape, chunks, tmp_path):
    values = counts(*shape)
    if format == "hdf5":
        with h5py.File(tmp_path / "r.h5", "w") as file:
            file.create_dataset("x", data=values, chunks=chunks, compression="lzf")
        source = tmp_path / "r.h5"
    else:
        source = tmp_path / "r.zarr"
        zarr.create_array(source, shape=shape, chunks=chunks, dtype="i2")[...] = values
    matrix: Matrix = open_recording(source).matrix
    rows = Span(shape[0] // 3, shape[0] // 3 * 2)
    for columns in (Span(0, matrix.shape[1]), Span(matrix.shape[1] // 3, matrix.shape[1] // 2 + 1)):
        out = np.empty((len(rows), len(columns)), np.int16)
        with matrix.open() as reader:
            tracemalloc.start()
            reader.read(rows, columns, out)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        np.testing.assert_array_equal(out, values.reshape(shape[0], -1)[rows.slice, columns.slice])
        assert peak < matrix.reader_nbytes(len(rows), len(columns)) + 512 * 1024


def test_blocks_that_share_a_chunk_decode_it_once(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("x", data=counts(1000, 4), chunks=(400, 4), compression="lzf")
    matrix = open_recording(tmp_path / "r.h5").matrix
    decoded = []
    with matrix.open() as reader:
        decode = reader._decoded
        monkeypatch.setattr(reader, "_decoded", lambda rows, columns: decoded.append(rows) or decode(rows, columns))
        for start in range(0, 1000, 50):
            reader.read(Span(start, start + 50), Span(0, 4), np.empty((50, 4), np.int16))
    assert decoded == [Span(0, 400), Span(400, 800), Span(800, 1000)]


# --- Damage after opening ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["hdf5", "zarr"])
def test_damaged_chunks_are_told_when_they_are_read(format, tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (400, 4)).astype(np.int16)
    if format == "hdf5":
        path = tmp_path / "r.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("x", data=values, chunks=(100, 4), compression="gzip")
            where = data.id.get_chunk_info(2).byte_offset
        broken = path
    else:
        path = tmp_path / "r.zarr"
        zarr.create_array(path, data=values, chunks=(100, 4))
        broken, where = path / "c" / "2" / "0", 0
    content = bytearray(broken.read_bytes())
    content[where : where + 20] = b"\xff" * 20
    broken.write_bytes(content)
    out = np.empty((100, 4), np.int16)
    with open_recording(path).matrix.open() as reader:
        reader.read(Span(0, 100), Span(0, 4), out)
        np.testing.assert_array_equal(out, values[:100])
        with pytest.raises(DataError) as caught:
            reader.read(Span(200, 300), Span(0, 4), out)
    assert str(path) in str(caught.value)
    assert "200:300 cannot be decoded" in str(caught.value)


def test_files_that_vanish_are_told(tmp_path):
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=counts(10, 4), chunks=(5, 4))
    matrix = open_recording(path).matrix
    with h5py.File(path, "w") as file:
        file["y"] = counts(9, 4)
    with pytest.raises(DataError, match="has lost its dataset"), matrix.open():
        pass
    path.unlink()
    with pytest.raises(DataError, match="not an HDF5 file|cannot be read"), matrix.open():
        pass
