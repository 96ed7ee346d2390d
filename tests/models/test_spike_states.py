"""Spike-triggered averages that are saved: killed, grown, and refused where they would be wrong."""

import contextlib

import h5py
import numpy as np
import pytest

import lazypipe as lp

WINDOW = (-20, 12)


@pytest.fixture
def recording(tmp_path):
    """A file of 4 channels that can grow, its spikes, and how much of it is there."""
    rng = np.random.default_rng(0)
    x = rng.integers(-900, 900, (9_000, 4)).astype(np.int16)
    spikes = {u: np.sort(rng.integers(0, 9_000, 300)) for u in range(3)}

    def write(n, dtype="int16"):
        x[:n].astype(dtype).tofile(tmp_path / "rec.dat")
        return lp.open_recording(tmp_path / "rec.dat", n_channels=4, dtype=dtype, sampling_rate=1_000)

    return write, spikes, tmp_path / "state"


def until(spikes, n):
    return {unit: samples[samples < n] for unit, samples in spikes.items()}


def assert_equal(a, b, rtol=0.0):
    np.testing.assert_array_equal(a.n_used, b.n_used)
    np.testing.assert_allclose(a.mean, b.mean, rtol=rtol)
    np.testing.assert_allclose(a.std, b.std, rtol=rtol)
    for reason, counts in a.n_dropped.items():
        np.testing.assert_array_equal(counts, b.n_dropped[reason], err_msg=reason)


@pytest.mark.parametrize("edges", ["drop", "nan"])
@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_a_recording_that_grows_is_read_where_it_is_new(edges, dtype, recording, serial_engine):
    write, spikes, state = recording
    options = {"edges": edges, "exclude": [(2_000, 2_050)], "engine": serial_engine}
    for n in (3_000, 3_001, 3_015, 6_000, 9_000):
        grown = write(n, dtype)
        saved = lp.spike_triggered_average(grown, until(spikes, n), WINDOW, state=state, chunk_length=500, **options)
        fresh = lp.spike_triggered_average(grown, until(spikes, n), WINDOW, **options)
        assert_equal(saved, fresh, 0.0 if dtype == "int16" else 1e-12)  # floats are about a value of what was there
    assert saved.n_new_samples == 3_000
    again = lp.spike_triggered_average(grown, spikes, WINDOW, state=state, chunk_length=500, **options)
    assert again.n_new_samples == 0
    assert_equal(again, saved)


def test_what_is_in_the_state_must_not_change(recording, serial_engine):
    write, spikes, state = recording

    def run(recording, spikes, **options):
        options = {"window": WINDOW, "state": state, "engine": serial_engine, **options}
        return lp.spike_triggered_average(recording, spikes, **options)

    run(write(6_000), until(spikes, 6_000))
    more = {**until(spikes, 6_000), 1: np.sort(np.append(until(spikes, 6_000)[1], 500))}
    with pytest.raises(lp.DataError, match=r"the spikes of rows 0 to 6,000 changed since"):
        run(write(6_000), more)
    with pytest.raises(lp.DataError, match=r"shrank"):
        run(write(5_000), until(spikes, 5_000))
    with pytest.raises(lp.DataError, match=r"window \[-20, 12\], this run has \[-20, 13\]"):
        run(write(6_000), until(spikes, 6_000), window=(-20, 13))
    with pytest.raises(lp.DataError, match=r"made with units"):
        run(write(6_000), {**until(spikes, 6_000), 9: np.array([100])})
    changed = write(6_000)
    values = np.fromfile(changed.uri, np.int16)
    values[4 * 400] += 1
    values.tofile(changed.uri)
    with pytest.raises(lp.DataError, match=r"rows .* changed since"):
        run(changed, until(spikes, 6_000))
    assert run(changed, until(spikes, 6_000), restart=True).n_new_samples == 6_000


def test_a_run_that_stops_goes_on_from_its_last_epoch(recording, serial_engine, monkeypatch):
    from lazypipe.models.spike_triggered import job

    write, spikes, state = recording
    monkeypatch.setattr(job, "epoch_rows", lambda *_: 1_125)
    whole = write(9_000)
    want = lp.spike_triggered_average(whole, spikes, WINDOW, engine=serial_engine)
    folds = []
    fold = type(serial_engine).fold

    def stopping(self, statistic, matrix, plan):
        if len(folds) == 5:
            raise KeyboardInterrupt
        folds.append(plan.runs)
        return fold(self, statistic, matrix, plan)

    with monkeypatch.context() as patch:
        patch.setattr(type(serial_engine), "fold", stopping)
        with pytest.raises(KeyboardInterrupt):
            lp.spike_triggered_average(whole, spikes, WINDOW, state=state, engine=serial_engine)
    assert len(folds) == 5
    resumed = lp.spike_triggered_average(whole, spikes, WINDOW, state=state, engine=serial_engine)
    assert 0 < resumed.n_new_samples < 9_000 - 4 * 1_125
    assert_equal(resumed, want)


def test_sums_too_large_for_the_budget_are_saved_by_tiles(recording):
    write, _, state = recording
    rng = np.random.default_rng(1)
    whole, spikes = write(9_000), {u: np.sort(rng.integers(0, 9_000, 40)) for u in range(100)}
    with lp.open_engine("serial", memory="24MiB") as small, lp.open_engine("serial") as engine:
        saved = lp.spike_triggered_average(whole, spikes, (-1_000, 1_000), state=state, engine=small, dtype="float32")
        assert len(list(state.glob("*.state"))) > 1
        assert saved.plan.arrays_nbytes <= saved.plan.host.memory
        want = lp.spike_triggered_average(whole, spikes, (-1_000, 1_000), engine=engine, dtype="float32")
    assert_equal(saved, want)


def test_averages_go_to_disk_tile_by_tile_and_a_killed_run_goes_on(recording, tmp_path, monkeypatch):
    from lazypipe.models.spike_triggered.store import Store

    write, _, _ = recording
    rng = np.random.default_rng(1)
    whole, spikes = write(9_000), {f"u{u}": np.sort(rng.integers(0, 9_000, 40)) for u in range(60)}
    question = {"recording": whole, "spikes": spikes, "window": (-1_000, 1_000), "edges": "nan"}
    with lp.open_engine("serial") as engine:
        want = lp.spike_triggered_average(**question, engine=engine)
    with lp.open_engine("serial", memory="16MiB") as engine:
        n_made, write_tile = [], Store.write

        def stopping(self, *given):
            if len(n_made) == 2:
                raise KeyboardInterrupt
            n_made.append(given[0])
            write_tile(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", stopping)
            with pytest.raises(KeyboardInterrupt):
                lp.spike_triggered_average(**question, out=tmp_path / "sta.zarr", engine=engine)
        assert not (tmp_path / "sta.zarr").exists()
        monkeypatch.setattr(Store, "write", lambda self, *given: (n_made.append(given[0]), write_tile(self, *given)))
        other = {**question, "window": (-999, 1_000)}
        with pytest.raises(lp.DataError, match=r"of another run are there, with window"):
            lp.spike_triggered_average(**other, out=tmp_path / "sta.zarr", engine=engine)
        found = lp.spike_triggered_average(**question, out=tmp_path / "sta.zarr", engine=engine)
        assert found.plan.passes == len(n_made) > 2 and len(set(n_made)) == len(n_made)
        assert found.plan.arrays_nbytes <= found.plan.host.memory
        for name in ("mean", "std"):
            np.testing.assert_array_equal(getattr(found, name)[...], getattr(want, name))
        np.testing.assert_array_equal(found.sem, want.sem)
        np.testing.assert_array_equal(found.n_used, want.n_used)
        assert found.best_channel.tolist() == want.best_channel.tolist()
        with pytest.raises(lp.DataError, match="exists"):
            lp.spike_triggered_average(**question, out=tmp_path / "sta.zarr", engine=engine)
        (tmp_path / "mine.zarr").mkdir()
        with pytest.raises(lp.DataError, match="is no store of spike-triggered averages"):
            lp.spike_triggered_average(**question, out=tmp_path / "mine.zarr", overwrite=True, engine=engine)
    assert sorted(p.name for p in tmp_path.glob("sta.zarr/*"))[:3] == ["lags", "mean", "n_dropped_beyond_end"]


def test_gains_scale_what_was_counted(serial_engine):
    x = np.random.default_rng(5).integers(-900, 900, (3_000, 3)).astype(np.int16)
    gain = np.array([2.0, 0.5, -1.0])
    recording = lp.open_recording(x, sampling_rate=100, gain=gain, unit="µV")
    spikes = np.arange(50, 2_900, 7)
    raw = lp.spike_triggered_average(x, spikes, (-9, 9), engine=serial_engine)
    scaled = lp.spike_triggered_average(recording, spikes, (-9, 9), engine=serial_engine)
    np.testing.assert_allclose(scaled.mean, raw.mean * gain, rtol=1e-14)
    np.testing.assert_allclose(scaled.std, raw.std * np.abs(gain), rtol=1e-14)


def test_sums_of_a_grown_recording_do_not_overflow(tmp_path, serial_engine):
    n = 60_000  # a unit of so many windows fits 32 bits, twice as many do not
    for k in (1, 2, 3):
        np.save(tmp_path / "r.npy", np.full(k * n, 32_767, np.int16))
        question = tmp_path / "r.npy", np.arange(k * n), (0, 1)
        sta = lp.spike_triggered_average(*question, state=tmp_path / "state", engine=serial_engine)
        assert sta.mean.item() == 32_767 and sta.std.item() == 0 and sta.n_used.item() == k * n


def test_windows_that_begin_to_be_clipped_are_counted(tmp_path, serial_engine):
    def run(n, spikes, **state):
        np.save(tmp_path / "r.npy", (np.arange(n) % 7 + 100).astype(np.int16))
        return lp.spike_triggered_average(
            tmp_path / "r.npy", np.array(spikes), (-2, 3), edges="nan", engine=serial_engine, **state
        )

    state = {"state": tmp_path / "state"}
    for n, spikes in ((100, [50]), (100, [50, 99]), (150, [50, 99]), (150, [50, 99, 149])):
        assert_equal(run(n, spikes, **state), run(n, spikes))


def test_windows_before_their_spikes_are_of_the_spikes_rows(tmp_path, serial_engine):
    spikes = np.array([100, 500, 1_000, 1_500])
    for n in (1_000, 2_000):
        np.save(tmp_path / "p.npy", np.arange(n, dtype=np.int16))
        question = tmp_path / "p.npy", spikes[spikes < n + 400], (-60, 0)
        with pytest.warns(lp.DroppedSpikesWarning) if n == 1_000 else contextlib.nullcontext():
            saved = lp.spike_triggered_average(*question, state=tmp_path / "state", engine=serial_engine)
    assert_equal(saved, lp.spike_triggered_average(*question, engine=serial_engine))
    assert saved.n_used.item() == 4


def test_a_window_with_a_nan_is_left_out_of_all_channels_in_any_tiles(tmp_path):
    x = np.random.default_rng(0).normal(size=(3_000, 512)).astype(np.float32)
    x[1_000, 5] = x[2_000, 500] = np.nan
    np.save(tmp_path / "x.npy", x)
    spikes = {u: np.array([500, 1_000, 1_500, 2_000, 2_500]) + u for u in range(8)}
    question = tmp_path / "x.npy", spikes, (-300, 300)
    with lp.open_engine("serial") as engine:
        whole = lp.spike_triggered_average(*question, nan="omit", engine=engine)
    with lp.open_engine("serial", memory="32MiB") as engine:
        tiled = lp.spike_triggered_average(*question, nan="omit", out=tmp_path / "sta.zarr", engine=engine)
    assert tiled.plan.passes > 1 == whole.plan.passes
    assert_equal(tiled, whole, 1e-12)
    assert tiled.n_used.tolist() == [3] * 8
    with lp.open_engine("serial", memory="16MiB") as engine, pytest.raises(lp.MemoryPlanError):
        lp.spike_triggered_average(*question, nan="omit", engine=engine)


def test_a_state_is_of_one_dataset_and_a_store_of_one_gain(tmp_path, serial_engine, monkeypatch):
    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["a"], file["b"] = np.full(1_000, 1.0, "f4"), np.full(1_000, 2.0, "f4")

    def run(column):
        recording = lp.open_recording(tmp_path / "h.h5", column=column)
        return lp.spike_triggered_average(
            recording, np.array([10, 20]), (0, 1), state=tmp_path / "state", engine=serial_engine
        )

    assert run("a").mean.item() == 1
    with pytest.raises(lp.DataError, match="was made with within"):
        run("b")

    from lazypipe.models.spike_triggered.store import Store

    monkeypatch.setattr(Store, "close", lambda *_: 1 / 0)
    x = np.ones((500, 2), np.int16)
    with pytest.raises(ZeroDivisionError):
        lp.spike_triggered_average(x, np.array([50]), (-2, 2), out=tmp_path / "s.zarr", engine=serial_engine)
    scaled = lp.open_recording(x, gain=2.5, unit="µV")
    with pytest.raises(lp.DataError, match="of another run are there, with gain"):
        lp.spike_triggered_average(scaled, np.array([50]), (-2, 2), out=tmp_path / "s.zarr", engine=serial_engine)


def test_floats_keep_their_digits_where_the_recording_begins_with_nothing(serial_engine):
    for head in (np.nan, 0.0):
        x = np.full(4_000, 0.1)
        x[:300] = head
        sta = lp.spike_triggered_average(x, np.arange(400, 3_900), (-5, 5), nan="omit", engine=serial_engine)
        assert (sta.mean == 0.1).all() and (sta.std == 0).all()


def test_a_number_of_numpy_is_kept_like_another(recording, serial_engine, tmp_path):
    write, spikes, _ = recording
    options = {"window": WINDOW, "engine": serial_engine}
    stored = lp.spike_triggered_average(
        write(3_000), until(spikes, 3_000), ddof=np.int64(0), out=tmp_path / "a.zarr", **options
    )
    plain = lp.spike_triggered_average(write(3_000), until(spikes, 3_000), ddof=0, **options)
    np.testing.assert_array_equal(stored.std[...], plain.std)
