"""Spike-triggered averages that are saved: killed, grown, and refused where they would be wrong."""

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


def assert_equal(a, b):
    np.testing.assert_array_equal(a.n_used, b.n_used)
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.std, b.std)
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
        assert_equal(saved, lp.spike_triggered_average(grown, until(spikes, n), WINDOW, **options))
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
