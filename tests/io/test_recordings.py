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
from recording_writers import CASES, RATE, WRITERS, nwb, probe, spikeglx

from lazypipe.blocks import Span
from lazypipe.io import open_matrix
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.io.recordings import Recording, open_recording
from lazypipe.io.recordings.stacked import Stacked, stack
from lazypipe.io.recordings.timestamps import AT_ONCE, read_clock

TELLING = ("raw", "zarr", "hdf5", "nwb")  # a rate


def counts(*shape: int, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def all_of(recording: Recording, dtype: str = "float64") -> np.ndarray:
    out = np.empty((recording.n_samples, recording.n_channels), dtype)
    with recording.matrix.open() as reader:
        reader.read(Span(0, recording.n_samples), recording.columns, out)
    return out


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


# --- SpikeGLX ---------------------------------------------------------------------------------------------


def test_spikeglx_imec_bands(tmp_path):
    values = counts(50, 5)
    ap, lf = [500, 250, 1000, 500], [250, 250, 125, 50]
    path = spikeglx(tmp_path / "r_g0_t0.imec0.ap.bin", values, probe(4, ap, lf, 4, 0, "0:3,8"))
    for source in (path, path.with_suffix(".meta"), str(path)):
        recording = open_recording(source)
        assert recording.columns == Span(0, 4)
        assert (recording.sampling_rate, recording.unit, recording.dtype) == (RATE, "µV", np.int16)
        np.testing.assert_allclose(recording.gain, 0.6 / 512 / np.array(ap) * 1e6)
        np.testing.assert_array_equal(all_of(recording), values[:, :4])
    path = spikeglx(tmp_path / "r_g0_t0.imec0.lf.bin", values, probe(4, ap, lf, 0, 4, "4:7,8"), rate=2500)
    recording = open_recording(path, n_channels=4, dtype="int16", sampling_rate=2500)
    np.testing.assert_allclose(recording.gain, 0.6 / 512 / np.array(lf) * 1e6)
    assert open_recording(path, n_channels=5).n_channels == 4  # counting the sync word


def test_spikeglx_saved_subsets(tmp_path):
    ap, lf = [500, 250, 1000, 125], [250, 50, 125, 1000]
    path = spikeglx(tmp_path / "a.ap.bin", counts(9, 3), probe(4, ap, lf, 2, 0, "1,3,8"))
    np.testing.assert_allclose(open_recording(path).gain, 0.6 / 512 / np.array([250, 125]) * 1e6)
    path = spikeglx(tmp_path / "a.lf.bin", counts(9, 3), probe(4, ap, lf, 0, 2, "0:3,5:6,8"))
    np.testing.assert_allclose(open_recording(path).gain, 0.6 / 512 / np.array([50, 125]) * 1e6)


DEVICES = {  # entries of the .meta, kind, channels, gains in V a count
    "NP 2.0": (["imDatPrb_type=24", "imMaxInt=8192", "imAiRangeMax=0.5"], "imec", 2, 0.5 / 8192 / 80),
    "NP 2.0 sold": (["imDatPrb_type=2013", "imAiRangeMax=0.62"], "imec", 2, 0.62 / 2048 / 100),
    "gain told": (["imDatPrb_type=9999", "imAiRangeMax=0.6", "imChan0apGain=70"], "imec", 2, 0.6 / 512 / 70),
    "UHD": (["imDatPrb_type=1110", "imAiRangeMax=0.6", "~imroTbl=(1110,2,0,500,250,1)"], "imec", 2, 0.6 / 512 / 500),
    "NI": (
        ["snsMnMaXaDw=1,1,1,1", "niAiRangeMax=5", "niMNGain=200", "niMAGain=10"],
        "nidq",
        3,
        [5 / 32768 / gain for gain in (200, 10, 1)],
    ),
    "OneBox": (["snsXaDwSy=2,1,1", "obAiRangeMax=5"], "obx", 2, 5 / 32768),
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_spikeglx_gains_of_each_device(tmp_path, device):
    lines, kind, n, gain = DEVICES[device]
    lines = [*lines, "snsApLfSy=2,0,1", "acqApLfSy=2,0,1"] if kind == "imec" else lines
    path = spikeglx(tmp_path / "r.bin", counts(9, n + (2 if kind == "obx" else 1)), lines, kind)
    recording = open_recording(path)
    assert recording.n_channels == n
    np.testing.assert_allclose(recording.gain, np.broadcast_to(np.array(gain) * 1e6, n))
    assert open_recording(path, gain=1).gain == 1
    assert open_recording(path, gain=1).unit == ""


def test_spikeglx_files_join(tmp_path):
    for t in (0, 1):
        spikeglx(tmp_path / f"t{t}.ap.bin", counts(9, 3, seed=t), probe(2, [500, 500], [250, 250], 2, 0, "0:1,4"))
    recording = open_recording(sorted(tmp_path.glob("*.bin")), starts=[0, 30])
    assert recording.spans == (Span(0, 9), Span(30, 39))
    assert recording.n_channels == 2


# --- HDF5, NWB, Zarr --------------------------------------------------------------------------------------


def test_hdf5_datasets_by_name_link_and_rate(tmp_path):
    path = tmp_path / "r.h5"
    with h5py.File(path, "w") as file:
        file["g/raw"] = counts(9, 4)
        file["g/lfp"] = counts(9, 4, seed=1)
        file["g"].attrs["sampling_frequency"] = np.array([1250.0])
        file["again"] = h5py.SoftLink("/g/lfp")
        file["name"] = "text is no samples"
        file["none"] = h5py.Empty("f4")
    raw, lfp = (open_recording(path, column=name) for name in ("/g/raw", "lfp"))
    np.testing.assert_array_equal(all_of(raw), counts(9, 4))
    np.testing.assert_array_equal(all_of(lfp), counts(9, 4, seed=1))
    np.testing.assert_array_equal(all_of(open_recording(path, column="again")), counts(9, 4, seed=1))
    assert raw.sampling_rate == 1250
    assert raw.matrix.fingerprint() != lfp.matrix.fingerprint()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["far"] = h5py.ExternalLink("r.h5", "/g/raw")
    far = open_recording(tmp_path / "other.h5", column="far").matrix
    assert far.pieces() == ((str(path), Span(0, 9)),)


def test_hdf5_never_written_is_what_fills_it(tmp_path):
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_dataset("x", (20, 3), "i2", fillvalue=7)
    assert (all_of(open_recording(tmp_path / "r.h5")) == 7).all()


def test_nwb_calibration(tmp_path):
    factors, volts = np.array([1.0, 0.5, 2.0]), {"conversion": 2.5e-6, "offset": 1e-3}
    path = nwb(
        tmp_path / "r.nwb",
        ("acquisition/raw", {"values": counts(9, 3), "channel_conversion": factors, "start": 12.5} | volts),
        ("processing/ecephys/LFP/lfp", {"values": counts(9, 3, dtype="float32"), "rate": 1250}),
        ("stimulus/presentation/light", {"values": counts(9), "kind": "TimeSeries", "unit": "n.a.", "rate": 60}),
        ("processing/behavior/speed", {"values": counts(9), "kind": "TimeSeries", "unit": "m/s", "conversion": 0.1}),
    )  # fmt: skip
    raw = open_recording(path, column="raw")
    np.testing.assert_allclose(raw.gain, 2.5 * factors)
    assert (raw.offset, raw.unit, raw.start_time, raw.sampling_rate) == (pytest.approx(1000), "µV", 12.5, RATE)
    lfp = open_recording(path, column="processing/ecephys/LFP/lfp")
    assert (lfp.gain, lfp.offset, lfp.unit, lfp.sampling_rate) == (1e6, None, "µV", 1250)
    light = open_recording(path, column="light")
    assert (light.gain, light.unit, light.shape) == (None, "", (9, 1))
    speed = open_recording(path, column="/processing/behavior/speed")
    assert (speed.gain, speed.unit) == (0.1, "m/s")
    assert open_recording(path, column="raw", gain=0.195, unit="µV").offset is None


def test_nwb_timestamps_make_stretches(tmp_path):
    seconds = 3.0 + np.concatenate([np.arange(10), 14 + np.arange(5), 30 + np.arange(6)]) / 20_000
    path = nwb(tmp_path / "r.nwb", ("acquisition/raw", {"values": counts(21, 2), "timestamps": seconds}))
    recording = open_recording(path)
    assert (recording.sampling_rate, recording.start_time) == (20_000, 3.0)
    assert recording.spans == (Span(0, 10), Span(14, 19), Span(30, 36))
    np.testing.assert_array_equal(all_of(recording), counts(21, 2))
    path = nwb(tmp_path / "r.nwb", ("acquisition/raw", {"values": counts(10, 2), "timestamps": seconds[:10]}))
    assert open_recording(path).stretches == ()


def test_a_clock_of_many_timestamps():
    n = AT_ONCE * 2 + 5
    numbers = np.arange(n) + 1000 * (np.arange(n) >= AT_ONCE) + 7 * (np.arange(n) >= n - 2)
    jitter = np.random.default_rng(0).uniform(-0.04, 0.04, n)
    clock = read_clock(100 + (numbers + jitter) / 29_999.9712, None, "stamps")
    assert clock.rate == pytest.approx(29_999.9712, rel=1e-7)
    assert clock.stretches == (Span(0, AT_ONCE), Span(AT_ONCE + 1000, n - 2 + 1000), Span(n + 1005, n + 1007))
    assert read_clock(numbers[: AT_ONCE + 2] / 25_000, 25_000.0, "stamps").rate == 25_000


def test_zarr_groups_and_their_rate(tmp_path):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", attributes={"sampling_frequency": 500.0})
    for name, values in {"traces": counts(9, 4), "times": counts(9, dtype="float64")}.items():
        group.create_array(name, data=values)
    group.create_group("deep").create_array("movie", data=counts(5, 3, 2))
    recording = open_recording(tmp_path / "g.zarr", column="traces")
    assert recording.sampling_rate == 500
    np.testing.assert_array_equal(all_of(recording), counts(9, 4))
    movie = open_recording(tmp_path / "g.zarr", column="deep/movie")
    assert movie.sample_shape == (3, 2)
    np.testing.assert_array_equal(all_of(movie), counts(5, 3, 2).reshape(5, 6))


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
