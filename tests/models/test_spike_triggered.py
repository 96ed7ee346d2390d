"""Spike-triggered averages against plain NumPy, on data made to catch what peers get wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_reference import moments_of, windows_of

import lazypipe as lp
from lazypipe.blocks import Span
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.average import _statistic
from lazypipe.models.spike_triggered.on_paper import question_on_paper
from lazypipe.models.spike_triggered.planning import part_of, plan_in_tiles
from lazypipe.models.spike_triggered.record import lines_of
from lazypipe.sizes import MIB
from lazypipe.stats.spike_triggered import Moments

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_fly = pytest.mark.skipif(not (DATA / "fly_h1_stimulus.npy").exists(), reason="../shared/data is not there")
FLY = (-0.33083048, -0.29083503, -0.23076012, -0.24636984, -0.10962767)  # as published, window of 150 samples
FAR = np.float64(np.float32(1e30))  # stands for NaN among the values
CHUNKS = (1, 149, 150, 151, 997, 600_000)


def average(x, spikes, window, engine, **options):
    return lp.spike_triggered_average(x, spikes, window, engine=engine, **options)


def assert_same(a, b):
    for name in ("mean", "std", "n_used"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for reason, counts in a.n_dropped.items():
        np.testing.assert_array_equal(counts, b.n_dropped[reason], err_msg=reason)


@pytest.fixture(scope="module")
def fly():
    recording = lp.open_recording(DATA / "fly_h1_stimulus.npy", sampling_rate=500)
    return recording, lp.read_spikes(DATA / "fly_h1_spikes.npz")


@needs_fly
@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_fly_has_its_published_average_under_every_chunk_length(fly, chunk, serial_engine):
    sta = average(*fly, (-149, 1), serial_engine, chunk_length=chunk)
    assert sta.n_used.tolist() == [53_583] and sta.n_dropped["edge"].tolist() == [18]
    assert [f"{value:.8f}" for value in sta.mean[0, :5, 0]] == [f"{value:.8f}" for value in FLY]
    assert_same(sta, average(*fly, (-149, 1), serial_engine))
    np.testing.assert_allclose(sta.times[[0, -1]], [-0.298, 0])


@needs_fly
@pytest.mark.parametrize("chunk", (149, 997, None))
def test_the_fly_is_the_same_on_every_engine(fly, chunk, serial_engine, cluster_engine):
    assert_same(average(*fly, (-149, 1), cluster_engine, chunk_length=chunk), average(*fly, (-149, 1), serial_engine))


@given(data=st.data(), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_any_recording_spikes_and_options_equal_plain_numpy(data, seed, serial_engine):
    rng = np.random.default_rng(seed)
    n_channels, dtype = data.draw(st.sampled_from([(1, np.int16), (3, np.int16), (2, np.float32), (1, np.float64)]))
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    gaps = data.draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))
    starts = np.cumsum([0] + [n + g for n, g in zip(lengths, gaps, strict=False)])[:-1].tolist()
    stretches = [(a, a + n) for a, n in zip(starts, lengths, strict=True)]
    end = stretches[-1][1]
    x = rng.integers(-300, 300, (sum(lengths), n_channels)).astype(dtype)
    start = data.draw(st.integers(-12, 8))
    window = start, start + data.draw(st.integers(1, 12))
    exclude = data.draw(st.sampled_from([(), ((5, 9),), ((0, 3), (20, 22))]))
    edges, weights = data.draw(st.sampled_from(["drop", "nan"])), data.draw(st.sampled_from(["count", "binary"]))
    units = {u: np.sort(rng.integers(0, end, rng.integers(0, 30))) for u in range(3)}
    recording = Recording(lp.open_matrix(x), 1000.0, tuple(Span(*s) for s in stretches))
    chunk = data.draw(st.integers(1, 60))
    sta = average(
        recording, units, window, serial_engine, exclude=exclude, edges=edges, weights=weights, chunk_length=chunk
    )
    for i, (unit, spikes) in enumerate(units.items()):
        windows = windows_of(x, spikes, window, stretches, exclude, edges, weights)
        n, mean, std = moments_of(windows)
        np.testing.assert_array_equal(sta.n_used[i] if edges == "nan" else np.full(len(n), sta.n_used[i]), n)
        np.testing.assert_allclose(sta.mean[i], mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(sta.std[i], std, rtol=1e-9, atol=1e-9)
        dropped = sum(int(counts[i]) for counts in sta.n_dropped.values())
        n_spikes = len(np.unique(spikes)) if weights == "binary" else len(spikes)
        assert dropped == n_spikes - len(windows), unit


@pytest.mark.parametrize("edges", ["drop", "nan"])
@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_a_constant_gives_that_constant_at_every_lag(edges, dtype, serial_engine):
    x = np.full((400, 2), 3, dtype)
    recording = Recording(lp.open_matrix(x), 100.0, (Span(0, 250), Span(300, 450)))
    spikes = np.array([0, 1, 5, 6, 100, 244, 245, 248, 249, 270, 300, 301, 306, 400, 444, 448, 449])
    sta = average(recording, spikes, (-6, 5), serial_engine, edges=edges, exclude=[(350, 360)])
    assert (sta.mean == 3).all() and (sta.std == 0).all()
    assert sta.n_dropped["beyond_end"].sum() == 0


def test_the_spikes_own_sample_is_in_the_window(serial_engine):
    x = np.zeros(200, np.int16)
    x[[50, 90]] = 1
    sta = average(x, np.array([50, 90]), (-3, 1), serial_engine)
    assert sta.lags.tolist() == [-3, -2, -1, 0] and sta.mean[0, :, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("rate", [30_000, 24_414.0625, 1_000 / 3])
def test_no_time_lands_a_sample_off(rate, serial_engine):
    samples = np.arange(20, 9_980)
    x = (np.arange(10_000) % 7 == 3).astype(np.int16)
    spikes = lp.read_spikes({0: samples[samples % 7 == 3] / rate}, times="s", sampling_rate=rate)
    sta = average(lp.open_recording(x, sampling_rate=rate), spikes, (-2, 3), serial_engine)
    assert sta.mean[0, :, 0].tolist() == [0, 0, 1, 0, 0]


def test_sums_of_integers_are_exact_at_the_extremes_with_a_million_spikes(serial_engine):
    x = np.where(np.arange(600) % 3 == 0, -32_768, 32_767).astype(np.int16)
    spikes = np.sort(np.random.default_rng(0).integers(0, 600, 1_000_000))
    sta = average(x, spikes, (-5, 6), serial_engine)
    count = np.bincount(spikes, minlength=600)
    used = np.arange(5, 595)
    for j, lag in enumerate(range(-5, 6)):
        values = x[used + lag].astype(np.int64)
        total, squares = int((count[used] * values).sum()), int((count[used] * values**2).sum())
        n = int(count[used].sum())
        assert round(float(sta.mean[0, j, 0]) * n) == total
        exact = (squares * n - total**2) / (n * (n - 1))  # Python's integers
        np.testing.assert_allclose(sta.std[0, j, 0], exact**0.5, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_a_large_offset_leaves_the_deviation_right(dtype, serial_engine):
    rng = np.random.default_rng(1)
    x = np.rint(8_000 + 5 * rng.standard_normal((200_000, 2))).astype(dtype)
    spikes = np.sort(rng.integers(0, 200_000, 20_000))
    sta = average(x, spikes, (-3, 3), serial_engine)
    _, mean, std = moments_of(np.stack([x[t - 3 : t + 3].astype(float) for t in spikes if 3 <= t <= 199_997]))
    np.testing.assert_allclose(sta.mean[0], mean, rtol=1e-12)
    np.testing.assert_allclose(sta.std[0], std, rtol=1e-10)


def test_nan_spoils_what_the_policy_says(serial_engine):
    x = np.random.default_rng(2).standard_normal((300, 3)).astype(np.float32)
    x[100, 1] = np.nan
    x[250] = np.nan  # in no window
    spikes = np.array([50, 98, 101, 150])
    with pytest.raises(lp.DataError, match=r"NaN at sample 100, channel 1, within a window\. Leave such"):
        average(x, spikes, (-4, 5), serial_engine)
    kept = average(x, spikes, (-4, 5), serial_engine, nan="omit")
    assert kept.n_used.tolist() == [2] and kept.n_dropped["nan"].tolist() == [2]
    clean = average(x, spikes[[0, 3]], (-4, 5), serial_engine)
    np.testing.assert_array_equal(kept.mean, clean.mean)
    np.testing.assert_array_equal(kept.std, clean.std)
    spread = average(x, spikes, (-4, 5), serial_engine, nan="propagate")
    assert np.argwhere(np.isnan(spread.mean[0])).tolist() == [[3, 1], [6, 1]] and spread.n_used.tolist() == [4]


def test_units_without_spikes_are_results_with_n_0(serial_engine):
    sta = average(np.arange(100.0), {3: np.array([50, 60]), 7: np.array([], int)}, (-2, 2), serial_engine)
    assert sta.unit_ids.tolist() == [3, 7] and sta.n_used.tolist() == [2, 0]
    assert np.isnan(sta.mean[1]).all() and np.isnan(sta.sem[1]).all() and np.isfinite(sta.sem[0]).all()
    assert sta.best_channel.tolist() == [0, -1]


def test_the_best_channel_is_looked_for_where_the_mean_is_finite(serial_engine):
    x = np.zeros((100, 3), np.float32)
    x[1] = 1, 5, 2
    sta = average(x, np.array([0]), (-2, 3), serial_engine, edges="nan")
    assert np.isnan(sta.mean[0, :2]).all() and sta.best_channel.tolist() == [1]
    x[2, 1], x[:, 2] = np.inf, np.nan  # an infinity is left out like a NaN
    sta = average(x, np.array([0]), (-2, 4), serial_engine, edges="nan", nan="propagate")
    (line,) = lines_of(sta, lp.read_spikes(np.array([0])))
    assert sta.best_channel.tolist() == [line.best_channel] == [1]
    assert (line.peak_lag, line.peak_value, line.baseline) == (1, 5, 0)


def test_spikes_beyond_the_end_are_counted_and_warned_of(serial_engine):
    with pytest.warns(lp.DroppedSpikesWarning, match="2 of 3 spikes lie beyond the end"):
        sta = average(np.arange(100.0), np.array([50, 100, 900]), (-2, 2), serial_engine)
    assert sta.n_dropped["beyond_end"].tolist() == [2] and sta.n_used.tolist() == [1]


@pytest.mark.parametrize(("mib", "n_tiles"), [(15, 9), (16, 2), (256, 1)])
def test_cutting_by_units_and_channels_changes_no_bit(mib, n_tiles, tmp_path, cluster_engine, monkeypatch):
    rng = np.random.default_rng(3)
    x = rng.integers(-500, 500, (9_000, 40)).astype(np.int16)
    units = {u: np.sort(rng.integers(0, 9_000, 50)) for u in range(12)}
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(cluster_engine, "host", replace(cluster_engine.host, memory=mib * MIB))
    sta = average(tmp_path / "x.npy", units, (-60, 60), cluster_engine, dtype="float32")
    assert sta.plan.arrays_nbytes <= sta.plan.host.memory
    assert (sta.plan.passes > 1) == (n_tiles > 1), sta.plan
    for i, spikes in enumerate(units.values()):
        n, mean, std = moments_of(windows_of(x, spikes, (-60, 60)))
        assert sta.n_used[i] == n[0]
        np.testing.assert_allclose(sta.mean[i], mean, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(sta.std[i], std, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "mib", "n_tiles"), [("int16", 18, 3), ("int16", 32, 1), ("float32", 18, 48)])
def test_on_many_workers_exact_sums_are_cut_in_time_and_the_recording_is_read_less_often(
    dtype, mib, n_tiles, tmp_path, dask_engine, serial_engine, monkeypatch
):
    rng = np.random.default_rng(3)
    np.save(tmp_path / "x.npy", rng.integers(-500, 500, (600_000, 40)).astype(dtype))
    question = tmp_path / "x.npy", {u: np.sort(rng.integers(0, 600_000, 50)) for u in range(60)}, (-60, 60)
    monkeypatch.setattr(serial_engine, "host", replace(serial_engine.host, memory=mib * MIB))
    wanted = average(*question, serial_engine)
    away = replace(dask_engine.host, memory=mib * MIB, shared=False)  # as if its tasks were on workers of their own
    monkeypatch.setattr(dask_engine, "host", away)
    monkeypatch.setattr(dask_engine, "slots", 12)
    sta = average(*question, dask_engine)
    (fold,) = sta.plan.folds
    assert sta.plan.passes == n_tiles and sta.plan.arrays_nbytes <= away.memory, sta.plan
    assert (fold.state_nbytes > 0 and fold.runs[0].start < fold.runs[-1].start) == (dtype == "int16"), sta.plan
    assert_same(sta, wanted)


@pytest.mark.parametrize(("mib", "whole"), [(26, False), (64, True)])
def test_only_a_tile_of_all_channels_plans_for_sums_within_the_result(mib, whole, serial_engine):
    question = question_on_paper(40_000, 64, "int16", 1_000, (-6_000, 6_000), 1, 13)
    statistic = _statistic(question, True, 1, "float32")
    host = replace(serial_engine.host, memory=mib * MIB)
    within, apart = (
        plan_in_tiles("average", statistic, question.recording.matrix, host, 1, 6 * MIB, shares=shares)
        for shares in (True, False)
    )
    tile = within.tiles[0]
    assert tile == apart.tiles[0] and (len(tile.channels) == 64) == whole
    mean, std = np.zeros((2, 1, 12_000, 64), np.float32)
    sums = part_of(statistic, tile).empty(Moments(mean[:, :, tile.channels.slice], std[:, :, tile.channels.slice]))
    shared = sum(a.nbytes for a, b in ((sums.total, mean), (sums.squares, std)) if np.shares_memory(a, b))
    assert apart.fold.task_nbytes - within.fold.task_nbytes == shared


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_one_unit_too_large_for_the_budget_is_cut_by_channels(dtype, tmp_path):
    rng = np.random.default_rng(4)
    x = rng.integers(-500, 500, (3_000, 300)).astype(dtype)
    spikes = np.sort(rng.integers(0, 3_000, 40))
    np.save(tmp_path / "x.npy", x)
    with lp.open_engine("serial", memory="20MiB") as engine:
        sta = average(tmp_path / "x.npy", spikes, (-900, 900), engine, dtype="float32", edges="nan")
    assert sta.plan.passes > 1 and sta.plan.arrays_nbytes <= 20 * MIB
    _, mean, std = moments_of(windows_of(x, spikes, (-900, 900), edges="nan"))
    np.testing.assert_allclose(sta.mean[0], mean, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(sta.std[0], std, rtol=1e-6)


@pytest.mark.parametrize(
    ("window", "options", "told"),
    [
        ((5, 5), {}, "holds no sample"),
        ((5, -5), {}, "holds no sample"),
        ((-0.5, 1), {}, "whole samples"),
        (("a", 1), {}, "no pair"),
        ((0, 1e30), {}, "reaches farther"),
        ((0, 10**400), {}, "no pair"),
        ((-5, 5), {"exclude": [(0.2, 5.9)]}, "whole samples"),
        ((-5, 5), {"exclude": [(0, float("inf"))]}, "whole samples"),
        ((-5, 5), {"exclude": 5}, "no list of intervals"),
        ((-5, 5), {"chunk_length": 1.5}, "chunk_length"),
        ((-5, 5), {"window_unit": "s"}, "no sampling rate"),
        ((-5, 5), {"window_unit": "h"}, "samples, s, ms"),
        ((-5, 5), {"edges": "wrap"}, "drop, nan"),
        ((-5, 5), {"weights": "none"}, "count, binary"),
        ((-5, 5), {"nan": "mean"}, "raise, omit, propagate"),
        ((-5, 5), {"exclude": [(9, 3)]}, "ends before it starts"),
        ((-5, 5), {"dtype": "int8"}, "float64, float32"),
        ((-5, 5), {"ddof": -1}, "ddof"),
        ((-5, 5), {"chunk_length": 0}, "chunk_length"),
    ],
)
def test_questions_that_make_no_sense_are_refused(window, options, told, serial_engine):
    with pytest.raises(lp.ConfigError, match=told):
        average(np.arange(100.0), np.array([50]), window, serial_engine, **options)


def test_mismatched_rates_are_named(serial_engine):
    spikes = lp.read_spikes({0: np.array([0.5])}, times="s", sampling_rate=20_000)
    with pytest.raises(lp.DataError, match=r"20000 Hz.*30000 Hz"):
        average(lp.open_recording(np.zeros(40_000), sampling_rate=30_000), spikes, (-2, 2), serial_engine)


def test_a_budget_that_is_too_small_says_what_fits(serial_engine):
    with (
        lp.open_engine("serial", memory="16MiB") as engine,
        pytest.raises(lp.MemoryPlanError, match=r"It fits in memory="),
    ):
        average(np.zeros((5_000, 400), np.int16), np.array([2_500]), (-2_000, 2_000), engine)


@given(seed=st.integers(0, 2**16), chunk=st.integers(1, 90), n_bad=st.integers(0, 6))
@settings(max_examples=30, deadline=None)
def test_nan_anywhere_equals_plain_numpy(seed, chunk, n_bad, serial_engine):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((80, 2)).astype(rng.choice(["f4", "f8"]))
    x[rng.integers(0, 80, n_bad), rng.integers(0, 2, n_bad)] = rng.choice([np.nan, np.inf])
    spikes = np.sort(rng.integers(0, 80, 40))
    windows = windows_of(np.nan_to_num(x, nan=FAR, posinf=FAR), spikes, (-4, 3))
    bad = (windows == FAR).any(axis=(1, 2))
    omitted = average(x, spikes, (-4, 3), serial_engine, nan="omit", chunk_length=chunk)
    n, mean, std = moments_of(windows[~bad])
    assert omitted.n_used[0] == n[0] and omitted.n_dropped["nan"][0] == bad.sum()
    np.testing.assert_allclose(omitted.mean[0], mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(omitted.std[0], std, rtol=1e-9, atol=1e-12)
    spoilt = average(x, spikes, (-4, 3), serial_engine, nan="propagate", chunk_length=chunk)
    assert spoilt.n_used[0] == len(windows)
    touched = (windows == FAR).any(axis=0)
    np.testing.assert_array_equal(np.isfinite(spoilt.mean[0]), ~touched)
    np.testing.assert_allclose(spoilt.mean[0][~touched], windows.mean(axis=0)[~touched], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("edges", ["drop", "nan"])
def test_panels_of_channels_change_no_bit(dtype, edges, serial_engine, monkeypatch):
    from lazypipe.stats import spike_triggered

    rng = np.random.default_rng(6)
    x = rng.integers(-900, 900, (9_000, 100)).astype(dtype)
    spikes = {u: np.sort(rng.integers(0, 9_000, 300)) for u in range(4)}
    monkeypatch.setattr(spike_triggered, "PANEL_REUSE", np.inf)
    flat = average(x, spikes, (-90, 80), serial_engine, edges=edges)
    monkeypatch.setattr(spike_triggered, "PANEL_REUSE", 0)
    monkeypatch.setattr(spike_triggered, "PANEL_NBYTES", 2**15)
    assert spike_triggered.panel_width(lp_windows(x, spikes), len(x), 100) == 32
    for chunk in (700, 9_000):
        assert_same(flat, average(x, spikes, (-90, 80), serial_engine, edges=edges, chunk_length=chunk))


def lp_windows(x, spikes):
    from lazypipe.models.spike_triggered.question import ask

    return ask(x, spikes, (-90, 80)).windows


@pytest.mark.parametrize("memory", ["64MiB", "128MiB"])
def test_where_tiles_fit_one_at_a_time_they_are_made_one_at_a_time(memory):
    x, spikes = np.zeros(3_000_000), {u: np.array([1_500_000]) for u in range(2)}
    with lp.open_engine("dask", workers=2, memory=memory) as engine:
        question = x, spikes, (-500_000, 500_000)
        try:
            plan = lp.plan_spike_triggered_average(*question, engine=engine)
        except lp.MemoryPlanError as error:
            assert memory == "64MiB" and "It fits in memory=" in str(error)
        else:
            assert memory != "64MiB" and plan.arrays_nbytes <= engine.host.memory
            assert (plan.passes, plan.folds[0].concurrency) == (2, 1)
