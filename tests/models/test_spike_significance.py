"""Significance of averages: against a loop over shifts, and on neurons of which it is known what they see."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from spike_neurons import biphasic, coloured, linear_neuron

import lazypipe as lp
from lazypipe.blocks import Span
from lazypipe.models.spike_triggered.significance import spike_triggered_significance
from lazypipe.stats.shift_surrogates import circular, fft_size, shift_blocks

SHARED = Path(__file__).parents[2] / "../shared/data"
WINDOW = (-6, 2)
ARRAYS = ("mean", "null_mean", "null_std", "z", "p_values", "significant", "band")


def pieces_by_hand(n_rows, stretches, exclude):
    """(start, stop) on the clock and first row of what is left of each stretch."""
    pieces, row = [], 0
    for start, stop in stretches or [(0, n_rows)]:
        inside = np.ones(stop - start, bool)
        for low, high in exclude:
            inside[max(low - start, 0) : max(high - start, 0)] = False
        edges = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(int))).reshape(-1, 2)
        pieces += [(start + a, start + b, row + a) for a, b in edges.tolist()]
        row += stop - start
    return pieces


def by_hand(x, spikes, window, blocks, n_offsets, pieces):
    """Mean, null mean, null deviation and p of one unit and channel: a loop over shifts, a window at a time."""
    length = window[1] - window[0]
    first = []
    for t in spikes:
        for start, stop, row in pieces:
            if start <= t < stop and t + window[0] >= start and t + window[1] <= stop:
                first.append(row + t + window[0] - start)
    mean = np.mean([x[r : r + length] for r in first], axis=0)
    nulls = []
    for s in range(length, n_offsets - length + 1):
        total = np.zeros(length)
        for r in first:
            (block,) = [b for b in blocks if b.start <= r < b.stop]
            total += x[block.start + (r - block.start + s + np.arange(length)) % len(block)]
        nulls.append(total / len(first))
    nulls = np.array(nulls)
    away = np.abs(nulls - nulls.mean(axis=0)) >= np.abs(mean - nulls.mean(axis=0)) * (1 - 1e-12)
    return mean, nulls.mean(axis=0), nulls.std(axis=0, ddof=1), (1 + away.sum(axis=0)) / (1 + len(nulls)), len(nulls)


@pytest.mark.parametrize("dtype", ["int16", "float64"])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"shift_block": 101},
        {"stretches": [(10, 160), (200, 297), (297, 450)], "shift_block": 70},
        {"exclude": [(50, 55), (300, 360)]},
        {"stretches": [(0, 250), (300, 450)], "exclude": [(240, 310)], "shift_block": 64},
    ],
    ids=["one circle", "blocks", "gaps", "excluded", "both"],
)
def test_nulls_equal_a_loop_over_all_shifts(case, dtype, serial_engine):
    rng = np.random.default_rng(3)
    stretches, exclude = case.get("stretches"), case.get("exclude", ())
    x = (rng.normal(100, 30, (400, 3)).cumsum(axis=0) / 10).astype(dtype)
    recording = x
    if stretches:
        starts = [a for a, _ in stretches]
        sizes = np.cumsum([0] + [b - a for a, b in stretches])
        recording = lp.open_recording([x[a:b] for a, b in pairwise(sizes)], starts=starts)
    spikes = {5: np.sort(rng.integers(0, 450 if stretches else 400, 60)), 9: np.sort(rng.integers(0, 400, 7))}
    found = spike_triggered_significance(
        recording, spikes, WINDOW, channels=[2, 0], exclude=exclude, shift_block=case.get("shift_block", 2**20),
        n_bootstrap=20, engine=serial_engine,
    )  # fmt: skip
    pieces = pieces_by_hand(len(x), stretches, exclude)
    rows = np.array([(row, row + stop - start) for start, stop, row in pieces])
    blocks, n_offsets = shift_blocks(rows, case.get("shift_block", 2**20), 8)
    assert all(any(a <= block.start and block.stop <= b for a, b in rows) for block in blocks)
    for u, unit in enumerate(spikes):
        for k, channel in enumerate((2, 0)):
            want = by_hand(x[:, channel].astype(float), spikes[unit], WINDOW, blocks, n_offsets, pieces)
            mean, null_mean, null_std, p_values, n_shifts = want
            assert found.n_shifts == n_shifts
            np.testing.assert_allclose(found.mean[u, :, k], mean, rtol=1e-12)
            np.testing.assert_allclose(found.null_mean[u, :, k], null_mean, rtol=1e-12)
            np.testing.assert_allclose(found.null_std[u, :, k], null_std, rtol=1e-9)
            np.testing.assert_allclose(found.z[u, :, k], (mean - null_mean) / null_std, rtol=1e-8, atol=1e-9)
            np.testing.assert_array_equal(found.p_values[u, :, k], p_values)
        want = false_discovery_control(found.p_values[u].ravel()) <= 0.05
        np.testing.assert_array_equal(found.significant[u].ravel(), want)


@given(n=st.integers(1, 60), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_circular_correlation_at_any_length(n, seed):
    x, train = np.random.default_rng(seed).normal(size=(2, n))
    size = fft_size(n)
    found = circular(np.fft.rfft(x, size) * np.conj(np.fft.rfft(train, size)), n, size)
    np.testing.assert_allclose(found, [np.roll(x, -j) @ train for j in range(n)], atol=1e-12)


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6), most=st.integers(10, 400), length=st.integers(1, 12)
)
@settings(max_examples=60, deadline=None)
def test_blocks_cover_every_piece_that_holds_a_window(sizes, most, length):
    edges = np.cumsum([0] + [size + 5 for size in sizes])
    pieces = np.array([(a, a + size) for a, size in zip(edges, sizes, strict=False)])
    blocks, n_offsets = shift_blocks(pieces, most, length)
    rows = np.concatenate([np.arange(b.start, b.stop) for b in blocks]) if blocks else np.empty(0, int)
    want = [np.arange(a, b) for a, b in pieces if b - a >= length]
    np.testing.assert_array_equal(rows, np.concatenate(want) if want else np.empty(0, int))
    assert all(len(block) <= most for block in blocks)
    if blocks:
        assert sum(len(b) for b in blocks if len(b) >= n_offsets) >= 0.9 * len(rows)


def test_units_without_tuning_are_not_significant_and_tuned_ones_are():
    n, n_units = 40_000, 60
    x = coloured(n)
    rng = np.random.default_rng(4)
    spikes = {i: np.sort(rng.integers(0, n, 300)) for i in range(n_units)}
    spikes[n_units] = linear_neuron(x, biphasic(), rate=0.01)
    found = spike_triggered_significance(x, spikes, (-19, 1), n_bootstrap=10)
    assert found.significant[:-1].any(axis=(1, 2)).sum() <= 7  # 3 expected of 60 at 5%
    p_values = found.p_values[:-1, ::10, 0].ravel()
    assert 0.02 < (p_values < 0.1).mean() < 0.18
    assert found.significant[-1, 12:16].all()
    assert found.p_values[-1].min() == 1 / (1 + found.n_shifts)


def test_choosing_the_best_channel_makes_nothing_significant():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((10_000, 32))
    spikes = {i: np.sort(rng.integers(0, 10_000, 200)) for i in range(40)}
    spikes[40] = linear_neuron(x[:, 9], biphasic(), rate=0.05)
    found = spike_triggered_significance(x, spikes, (-19, 1), n_bootstrap=5)
    assert found.significant[:-1].any(axis=(1, 2)).sum() <= 5  # 2 expected of 40, and 23 were the choice forgotten
    assert found.channels[-1] == 9 and found.significant[-1, 13:16].all()
    p_values = np.concatenate([found.p_values[-1].ravel(), np.ones(31 * 20)])
    np.testing.assert_array_equal(found.significant[-1].ravel(), false_discovery_control(p_values)[:20] <= 0.05)


def test_band_covers_the_true_average_as_often_as_it_says():
    n, w = 60_000, biphasic()
    x = np.random.default_rng(1).standard_normal(n)
    spikes = {i: linear_neuron(x, w, rate=0.02, seed=i, gain=0.7) for i in range(8)}
    found = spike_triggered_significance(x, spikes, (-19, 1), n_bootstrap=400, confidence=0.9)
    low, high = found.band[..., 0]
    covered = (low <= 0.7 * w) & (0.7 * w <= high)
    assert 0.8 < covered.mean() < 0.97
    assert ((low < found.mean[..., 0]) & (found.mean[..., 0] < high)).all()


def test_each_unit_is_tested_on_its_best_channel():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5_000, 4))
    spikes = {i: linear_neuron(x[:, i], biphasic(), seed=i) for i in (2, 0, 3)}
    spikes[7] = np.empty(0, np.int64)
    found = spike_triggered_significance(x, spikes, (-19, 1), n_bootstrap=50)
    assert found.channels.tolist() == [[2], [0], [3], [-1]]
    alone = spike_triggered_significance(x, spikes, (-19, 1), n_bootstrap=50, channels=[3])
    average = lp.spike_triggered_average(x, spikes, (-19, 1))
    for u, channel in enumerate((2, 0, 3)):
        np.testing.assert_allclose(found.mean[u, :, 0], average.mean[u, :, channel], atol=1e-14)
    for name in set(ARRAYS) - {"significant"}:  # which knows that the channel was chosen
        np.testing.assert_array_equal(np.take(getattr(found, name), 2, -3), np.take(getattr(alone, name), 2, -3))
    assert np.isnan(found.mean[3]).all() and np.isnan(found.p_values[3]).all() and not found.significant[3].any()
    assert found.n_used.tolist()[3] == 0


def test_an_average_that_is_there_saves_a_pass(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5_000, 4))
    spikes = {i: linear_neuron(x[:, i], biphasic(), seed=i) for i in (2, 0, 3)}
    asked = x, spikes, (-19, 1)
    want = spike_triggered_significance(*asked, n_bootstrap=50)
    for out in (None, tmp_path / "sta.zarr"):
        average = lp.spike_triggered_average(*asked, out=out)
        found = spike_triggered_significance(*asked, n_bootstrap=50, average=average)
        assert found.plan.passes == want.plan.passes - 1
        for name in (*ARRAYS, "channels"):
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"spikes": {1: [50, 60]}}, "units"),
        ({"window": (-4, 0)}, "lags"),
        ({"recording": np.zeros((100, 2))}, "channels"),
        ({"exclude": [(40, 60)]}, "windows"),
        ({"edges": "nan"}, "windows"),
    ],
)
def test_an_average_of_something_else_is_refused(changed, what):
    asked = {"recording": np.zeros((100, 3)), "spikes": {0: [50, 60]}, "window": (-3, 1)}
    average = lp.spike_triggered_average(**asked | changed)
    with pytest.raises(lp.ConfigError, match=f"average: is of other {what} than asked here"):
        spike_triggered_significance(**asked, average=average)


def test_values_that_are_missing_count_for_nothing():
    rng = np.random.default_rng(0)
    x = coloured(3_000)
    spikes = np.sort(rng.integers(0, 3_000, 400))
    holes = x.copy()
    holes[[40, 1_500, 1_501, 2_900]] = np.nan
    found = spike_triggered_significance(holes, spikes, WINDOW, nan="omit", n_bootstrap=20)
    spoilt = [np.isnan(holes[t - 6 : t + 2]).any() for t in spikes if 6 <= t <= 2_998]
    assert found.n_dropped["nan"].tolist() == [sum(spoilt)] and found.n_used.tolist() == [len(spoilt) - sum(spoilt)]
    first = np.array([t - 6 for t in spikes if 6 <= t <= 2_998])
    shifts = range(8, 3_000 - 7)
    nulls = np.array([np.nanmean(holes[(first[:, None] + s + np.arange(8)) % 3_000], axis=0) for s in shifts])
    np.testing.assert_allclose(found.null_mean[0, :, 0], nulls.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.null_std[0, :, 0], nulls.std(axis=0, ddof=1), rtol=1e-9)
    with pytest.raises(lp.DataError, match=r"NaN at sample 40, channel 0"):
        spike_triggered_significance(holes, spikes, WINDOW)


def test_a_channel_that_never_changes_is_significant_nowhere():
    x = np.full(2_000, 1234.567)
    found = spike_triggered_significance(x, np.arange(50, 1_900, 7), WINDOW, n_bootstrap=5)
    assert (found.p_values == 1).all() and np.isnan(found.z).all() and not found.significant.any()


def test_one_spike_has_a_mean_and_no_band():
    x = np.random.default_rng(0).standard_normal(500)
    found = spike_triggered_significance(x, [200], WINDOW, n_bootstrap=9)
    np.testing.assert_allclose(found.mean[0, :, 0], x[194:202], rtol=1e-12)
    assert np.isnan(found.band).all() and np.isfinite(found.z).all()


def test_in_units_of_the_recording():
    x = np.random.default_rng(0).integers(-500, 500, (3_000, 2)).astype(np.int16)
    spikes = np.arange(30, 2_900, 11)
    plain = spike_triggered_significance(x, spikes, WINDOW, channels=[1], n_bootstrap=50)
    scaled = lp.open_recording(x, gain=[2.0, -0.5], offset=3.0, unit="µV")
    found = spike_triggered_significance(scaled, spikes, WINDOW, channels=[1], n_bootstrap=50)
    np.testing.assert_allclose(found.mean, plain.mean * -0.5 + 3, rtol=1e-12)
    np.testing.assert_allclose(found.null_std, plain.null_std * 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.z, -plain.z, rtol=1e-12)
    np.testing.assert_allclose(found.band, plain.band[::-1] * -0.5 + 3, rtol=1e-12)
    np.testing.assert_array_equal(found.p_values, plain.p_values)


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("significance") / "long.npy"
    rng = np.random.default_rng(5)
    np.save(path, rng.integers(-2_000, 2_000, (150_000, 3)).astype(np.int16))
    return path, {i: np.sort(rng.integers(0, 150_000, 2_000)) for i in range(6)}


def test_every_engine_gives_the_same_bits(long_recording, serial_engine, cluster_engine):
    path, spikes = long_recording
    first, second = (
        spike_triggered_significance(path, spikes, (-20, 5), n_bootstrap=50, shift_block=2**14, engine=engine)
        for engine in (serial_engine, cluster_engine)
    )
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_small_budget_takes_more_passes_and_finds_the_same(long_recording, serial_engine):
    path, spikes = long_recording
    want = spike_triggered_significance(path, spikes, (-20, 5), n_bootstrap=50, engine=serial_engine)
    with lp.open_engine("serial", memory="34MiB") as small:
        found = spike_triggered_significance(path, spikes, (-20, 5), n_bootstrap=50, engine=small)
    assert found.plan.passes > want.plan.passes
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-9, atol=1e-9)
    with (
        lp.open_engine("serial", memory="16MiB") as tiny,
        pytest.raises(lp.MemoryPlanError, match=r"significance, shifts needs .* It fits in memory="),
    ):
        spike_triggered_significance(path, spikes, (-20, 5), engine=tiny)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bootstrap": 0}, "n_bootstrap: 0 is no whole number"),
        ({"level": 1.0}, "level: 1.0 is not between 0 and 1"),
        ({"confidence": 0}, "confidence: 0 is not between"),
        ({"channels": [3]}, "channels: 3 is no channel of .* which has 0 to 2"),
        ({"channels": [1, 1]}, "names one twice"),
        ({"channels": []}, "channels: is empty"),
        ({"channels": 1.5}, "channels: 1.5 is no channel of"),
        ({"seed": -1}, "seed: -1 is no whole number of 0 or more"),
        ({"edges": "nan"}, "edges: 'nan' keeps windows in part"),
        ({"nan": "propagate"}, "nan: 'propagate' would spoil"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(lp.ConfigError, match=message):
        spike_triggered_significance(np.zeros((100, 3)), [50], (-3, 1), **options)


def test_windows_too_long_to_be_shifted_are_refused():
    with pytest.raises(lp.PlanError, match="leave no shift that is a window"):
        spike_triggered_significance(np.zeros(100), [60], (-59, 1))
    with pytest.raises(lp.DataError, match="no piece of it is 101 samples long"):
        spike_triggered_significance(np.zeros(100), [60], (-100, 1))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the H1 recording in ../shared/data")
def test_h1_is_significant_over_a_quarter_of_a_second():
    found = spike_triggered_significance(
        SHARED / "fly_h1_stimulus.npy", SHARED / "fly_h1_spikes.npz", (-149, 1), n_bootstrap=200
    )
    assert found.n_used.tolist() == [53_583] and found.n_shifts == 599_701
    assert found.z.max() > 100
    assert 90 < found.significant.sum() < 110


def test_blocks_of_time_are_equal():
    from lazypipe.models.spike_triggered.passes import time_blocks

    runs = time_blocks(1_003, 10, 60)
    assert [Span(run.start, run.stop) for run in runs][-1].stop == 1_003
    assert {run.stop - run.start for run in runs} == {100, 101}
