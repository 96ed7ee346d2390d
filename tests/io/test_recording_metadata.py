"""What SpikeGLX, NWB, HDF5 and Zarr tell of a recording: channels, rates, gains, clocks, and names."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import zarr
from recording_writers import RATE, all_of, counts, nwb, probe, spikeglx

from lazypipe.blocks import Span
from lazypipe.io.recordings import open_recording
from lazypipe.io.recordings.timestamps import AT_ONCE, read_clock

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


def test_spikeglx_a_band_filtered_out_of_another(tmp_path):
    """CatGT writes an .lf.bin for probes that sample one band."""
    lines = ["imDatPrb_type=24", "imAiRangeMax=0.5", "snsApLfSy=0,2,1", "acqApLfSy=2,0,1", "snsSaveChanSubset=0:1,2"]
    path = spikeglx(tmp_path / "r.lf.bin", counts(9, 3), lines, rate=2500)
    np.testing.assert_allclose(open_recording(path).gain, 0.5 / 8192 / 80 * 1e6)


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
