"""Covariances around spikes and whitened averages: against NumPy, and on neurons whose filters are known."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spike_neurons import biphasic, coloured, cosine, energy_neuron, lagged, linear_neuron, quadrature

import lazypipe as lp
from lazypipe.blocks import Block, Span
from lazypipe.models.spike_triggered.covariance import spike_triggered_covariance
from lazypipe.models.spike_triggered.step_down import p_values, step_down
from lazypipe.models.spike_triggered.whitened import whitened_average
from lazypipe.stats.train_products import TrainProducts, draw_moves
from lazypipe.stats.window_products import Ends, WindowProducts
from lazypipe.stats.windows import find_windows

SHARED = Path(__file__).parents[2] / "../shared/data"


def blocks_of(x, cuts, before, dtype):
    """Blocks with halos between the cuts, as engines read them."""
    for a, b in pairwise([0, *sorted(cuts), len(x)]):
        start = max(a - before, 0)
        yield Block(x[start:b].astype(dtype), Span(a, b), Span(0, x.shape[1]), "<test>", a - start)


def folded(statistic, x, cuts):
    total = statistic.empty()
    for i, block in enumerate(blocks_of(x, cuts, statistic.reads.before, statistic.reads.dtype)):
        if not statistic.wants(block.rows):
            continue
        if i % 2:
            total = statistic.merge(total, statistic.measure(block))
        else:
            total = statistic.add(total, block)
    return statistic.finish(total)


def windows_at(x, rows, length):
    """(n, length * k) float64"""
    return np.array([x[r : r + length].ravel() for r in rows], float).reshape(len(rows), length * x.shape[1])


@given(data=st.data(), k=st.integers(1, 3), length=st.integers(1, 6), dtype=st.sampled_from(["int16", "float64"]))
@settings(max_examples=60, deadline=None)
def test_products_of_all_windows_equal_numpy_however_they_are_cut(data, k, length, dtype):
    n = 60
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(50, 9, (n, k)).astype(dtype)
    edges = sorted(data.draw(st.sets(st.integers(0, n - length + 1), min_size=2, max_size=6)))
    ranges = np.array(list(pairwise(edges)))[:: data.draw(st.integers(1, 2))]
    segments = np.arange(len(ranges)) % 2 if len(ranges) > 1 else np.zeros(len(ranges), int)
    shift = x[0].astype(float)
    statistic = WindowProducts(ranges, segments, 2, length, shift, np.arange(k), dtype)
    total = folded(statistic, x, data.draw(st.sets(st.integers(1, n - 1), max_size=5)))
    less = x - shift
    for segment in {*segments.tolist()}:
        among = ranges[segments == segment]
        ends = [Ends(*(less[a : a + length - 1] for a in pair)) for pair in among]
        moments = statistic.completed(total, segment, ends)
        want = windows_at(x, np.concatenate([np.arange(a, b) for a, b in among]), length)
        np.testing.assert_allclose(moments.mean + np.tile(shift, length), want.mean(axis=0), rtol=1e-12)
        if len(want) > 1:
            want = np.cov(want.T).reshape(length * k, -1)
            np.testing.assert_allclose(moments.covariance, want, atol=1e-11 * np.abs(want).max())
            np.testing.assert_array_equal(moments.covariance, moments.covariance.T)


@given(data=st.data(), length=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_moved_trains_have_the_windows_of_numpy_however_they_are_cut(data, length):
    n, window = 80, (1 - length, 1)
    x = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(n, 2))
    samples = np.sort(data.draw(st.lists(st.integers(0, n - 1), max_size=30)))
    gap = sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2)))
    pieces = [(a, b) for a, b in ((0, gap[0]), (gap[1], n)) if a < b]
    units = np.array([0, len(samples)])
    windows, _ = find_windows(np.array(samples, np.int64), units, window, [Span(0, n)], [Span(*gap)])
    circles = np.array([(a, b - length + 1) for a, b in pieces if b - a >= length]).reshape(-1, 2)
    moves = np.vstack([np.zeros((1, len(circles)), int), draw_moves(circles, length, 3, 1)])
    statistic = TrainProducts(windows, circles, np.zeros(4, int), moves, x[0], "float64")
    total = folded(statistic, x, data.draw(st.sets(st.integers(1, n - 1), max_size=5)))
    for train in range(4):
        rows = []
        for (begin, end), move in zip(circles, moves[train], strict=True):
            here = windows.first[(windows.first >= begin) & (windows.first < end)]
            rows += [begin + (r - begin + move) % (end - begin) for r in here]
        assert len(rows) == len(windows.first)
        want = windows_at(x - x[0], rows, length)
        np.testing.assert_allclose(total.total[train], want.sum(axis=0), atol=1e-11)
        np.testing.assert_allclose(total.products[train], want.T @ want, atol=1e-11)


def test_moves_keep_a_window_away_from_none_and_reach_all_else():
    circles = np.array([(0, 30), (40, 45)])
    moves = draw_moves(circles, 8, 4_000, seed=0)
    assert set(moves[:, 0].tolist()) == set(range(8, 23))
    assert set(moves[:, 1].tolist()) == set(range(5))


@given(seed=st.integers(0, 9_999), n=st.integers(3, 7))
@settings(max_examples=40, deadline=None)
def test_steps_equal_taking_out_one_direction_at_a_time(seed, n):
    rng = np.random.default_rng(seed)
    surrogates = rng.normal(size=(60, n, n)) * np.linspace(1, 2, n)
    surrogates += surrogates.transpose(0, 2, 1)
    change = rng.normal(size=(n, n)) * np.linspace(1, 5, n)
    values, vectors = np.linalg.eigh(change + change.T)

    def spectra(basis):
        return np.linalg.eigvalsh(basis.T @ surrogates @ basis)

    found, _ = step_down(
        values[None, ::-1], vectors.T[None, ::-1],
        lambda bases: {u: spectra(basis if basis.size else np.eye(n)) for u, basis in bases.items()}, 0.1,
    )  # fmt: skip
    kept = list(range(n))
    while kept:
        p = p_values(values[kept], spectra(vectors[:, kept]))
        if p.min() > 0.05:
            break
        kept.pop(int(np.argmin(p)))
    want = np.isin(np.arange(n), kept, invert=True)
    np.testing.assert_array_equal(found[0, ::-1], want)


@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_covariances_equal_numpy(dtype, serial_engine):
    rng = np.random.default_rng(2)
    x = rng.normal(300, 50, (1_500, 4)).astype(dtype)
    recording = lp.open_recording([x[:700], x[700:]], starts=[0, 800], gain=[1.0, 2.0, -3.0, 4.0], offset=5.0)
    spikes = {3: np.sort(rng.integers(0, 1_600, 120)), 1: np.array([500]), 4: np.empty(0, np.int64)}
    found = spike_triggered_covariance(
        recording, spikes, (-4, 1), channels=[2, 0], exclude=[(100, 120)], n_surrogates=40, engine=serial_engine
    )
    y = x[:, [2, 0]] * np.array([-3.0, 1.0]) + 5
    rows = np.concatenate([np.arange(0, 100 - 4), np.arange(120, 700 - 4), np.arange(700, 1_500 - 4)])
    every = windows_at(y, rows, 5)
    assert found.n_windows == len(every)
    np.testing.assert_allclose(found.prior_mean, every.mean(axis=0), rtol=1e-12)
    scale = np.abs(np.cov(every.T)).max()
    np.testing.assert_allclose(found.prior_covariance, np.cov(every.T), atol=1e-11 * scale)
    first = np.array([t - 4 if t < 700 else t - 104 for t in spikes[3] if not 700 <= t < 800])
    own = windows_at(y, first[np.isin(first, rows)], 5)
    assert found.n_used.tolist() == [len(own), 1, 0]
    assert sum(n[0] for n in found.n_dropped.values()) == 120 - len(own)
    np.testing.assert_allclose(found.mean[0], own.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance[0], np.cov(own.T), atol=1e-11 * scale)
    change = np.cov(own.T) - np.cov(every.T)
    np.testing.assert_allclose(found.eigenvalues[0], np.linalg.eigvalsh(change)[::-1], atol=1e-10 * scale)
    rebuilt = found.eigenvectors[0].T * found.eigenvalues[0] @ found.eigenvectors[0]
    np.testing.assert_allclose(rebuilt, change, atol=1e-10 * scale)
    assert (np.take_along_axis(
        found.eigenvectors[0], np.abs(found.eigenvectors[0]).argmax(axis=1)[:, None], axis=1) > 0).all()  # fmt: skip
    np.testing.assert_allclose(found.mean[1], windows_at(y, [496], 5)[0], rtol=1e-12)
    assert np.isnan(found.covariance[1:]).all() and np.isnan(found.mean[2]).all() and not found.significant[1:].any()
    assert found.filters(4).shape == (0, 5, 2)


def test_a_complex_cell_shows_its_two_filters_and_its_average_none():
    pair = quadrature()
    x = np.random.default_rng(0).standard_normal(60_000)
    spikes = {"complex": energy_neuron(x, pair, 0.1), "simple": linear_neuron(x, biphasic(), 0.1)}
    found = spike_triggered_covariance(x, spikes, (-19, 1), n_surrogates=99)
    filters = found.filters("complex")
    assert filters.shape == (2, 20, 1)
    assert np.linalg.svd(filters[:, :, 0] @ pair.T)[1].min() > 0.95  # cosines between the two planes
    assert (found.eigenvalues[found.unit_ids == "complex", :2] > 0.5).all()
    complex_mean, simple_mean = (found.mean[found.unit_ids == name][0] for name in spikes)
    assert np.linalg.norm(complex_mean) < 0.1 * np.linalg.norm(simple_mean)
    with pytest.raises(lp.ConfigError, match="unit: 'other' is none of the 2 units"):
        found.filters("other")


def test_whitening_finds_the_filters_of_a_complex_cell_in_correlated_noise():
    pair = quadrature()
    x = coloured(60_000, reach=3)
    spikes = energy_neuron(x, pair, 0.1)
    found = spike_triggered_covariance(x, spikes, (-19, 1), n_surrogates=99, whiten=True)
    filters = found.filters(0)[:2, :, 0]
    np.testing.assert_allclose(np.linalg.norm(filters, axis=1), 1)
    assert np.linalg.svd(np.linalg.qr(filters.T)[0].T @ pair.T)[1].min() > 0.9
    unit = np.eye(20)
    np.testing.assert_allclose(found.whitening @ found.prior_covariance @ found.whitening, unit, atol=1e-8)


def test_units_without_tuning_have_no_significant_directions():
    n, n_units = 20_000, 60
    rng = np.random.default_rng(7)
    spikes = {i: np.sort(rng.integers(0, n, 300)) for i in range(n_units)}
    found = spike_triggered_covariance(coloured(n), spikes, (-9, 1), n_surrogates=79, level=0.1)
    assert 1 <= found.significant.any(axis=1).sum() <= 13  # 6 expected of 60 at 10%


@pytest.mark.parametrize("reach", [0, 4], ids=["white", "correlated"])
def test_a_whitened_average_is_the_filter_of_a_linear_neuron(reach):
    w = biphasic()
    x = coloured(80_000, reach=reach) if reach else np.random.default_rng(0).standard_normal(80_000)
    spikes = {7: linear_neuron(x, w, 0.1), 8: np.empty(0, np.int64)}
    found = whitened_average(x, spikes, (-19, 1))
    assert cosine(found.filter[0], w) > (0.98 if reach else 0.99)
    assert (cosine(found.mean[0], w) < 0.9) == bool(reach)
    every, own = lagged(x, 20), lagged(x, 20)[spikes[7] - 19]
    np.testing.assert_allclose(found.mean[0, :, 0], own.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.prior_covariance, np.cov(every.T), atol=1e-12)
    prior = np.cov(every.T) + found.ridge[0] * np.trace(np.cov(every.T)) / 20 * np.eye(20)
    want = np.linalg.solve(prior, own.mean(axis=0) - every.mean(axis=0))
    np.testing.assert_allclose(found.filter[0, :, 0], want, rtol=1e-6, atol=1e-9)
    assert np.isnan(found.filter[1]).all() and np.isnan(found.ridge[1]) and found.n_used.tolist() == [len(own), 0]


def test_scores_are_the_error_of_held_out_time():
    w = biphasic(8)
    x = np.random.default_rng(0).integers(-30, 30, 3_001).astype(np.int16)
    spikes = linear_neuron(x / 30, w, 0.05)
    ridges = [1e-3, 1.0, 30.0]
    found = whitened_average(x, spikes, (-7, 1), ridge=ridges)
    every = lagged(x.astype(float), 8)
    y = np.bincount(spikes - 7, minlength=len(every))
    segment = np.searchsorted([3_001 * i // 5 for i in range(1, 5)], np.arange(7, 3_001), side="right")
    gained = np.zeros(3)
    for held in range(5):
        rest = segment != held
        prior, mean, rate = np.cov(every[rest].T), every[rest].mean(axis=0), y[rest].mean()
        target = every[rest].T @ y[rest] / rest.sum() - rate * mean
        for i, ridge in enumerate(ridges):
            filter = np.linalg.solve(prior + ridge * np.trace(prior) / 8 * np.eye(8), target)
            error = y[~rest] - rate - (every[~rest] - mean) @ filter
            gained[i] += ((y[~rest] - rate) ** 2).sum() - (error**2).sum()
    np.testing.assert_allclose(found.scores[0], gained / len(every) / y.mean(), rtol=1e-9)
    assert found.ridge[0] == ridges[np.argmax(gained)]


def test_missing_values_are_gaps():
    x = coloured(3_000)[:, None] + np.zeros(2)
    x[:, 1] = np.random.default_rng(1).normal(size=3_000)
    spikes = np.sort(np.random.default_rng(3).integers(0, 3_000, 500))
    holes = x.copy()
    holes[[0, 800, 801, 2_100], [0, 1, 1, 0]] = np.nan
    options = {"n_surrogates": 40}
    found = spike_triggered_covariance(holes, spikes, (-4, 1), nan="omit", **options)
    want = spike_triggered_covariance(x, spikes, (-4, 1), exclude=[(0, 1), (800, 802), (2_100, 2_101)], **options)
    for name in ("prior_covariance", "covariance", "eigenvalues", "significant", "n_used"):
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
    # A window that begins within what is excluded is early there, and here it holds a NaN.
    early = (spikes < 4).sum()
    assert found.n_dropped["nan"][0] == want.n_dropped["gap"][0] + want.n_dropped["edge"][0] - early
    np.testing.assert_array_equal(
        whitened_average(holes, spikes, (-4, 1), nan="omit").filter,
        whitened_average(x, spikes, (-4, 1), exclude=[(0, 1), (800, 802), (2_100, 2_101)]).filter,
    )
    with pytest.raises(lp.DataError, match="NaN at sample 0, channel 0"):
        spike_triggered_covariance(holes, spikes, (-4, 1), **options)
    with pytest.raises(lp.DataError, match="NaN at sample 800, channel 1"):
        whitened_average(holes, spikes, (-4, 1), channels=[1])


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("covariance") / "x.npy"
    rng = np.random.default_rng(5)
    x = rng.standard_normal((60_000, 3)).cumsum(axis=1).astype(np.float32)
    np.save(path, x)
    return path, {i: np.sort(rng.integers(0, 60_000, 400)) for i in range(3)}


def test_every_engine_and_budget_gives_the_same(on_disk, serial_engine, cluster_engine):
    path, spikes = on_disk
    options = {"channels": [2, 0], "n_surrogates": 40, "whiten": True}
    first, second = (
        spike_triggered_covariance(path, spikes, (-9, 1), engine=engine, **options)
        for engine in (serial_engine, cluster_engine)
    )
    for name in ("prior_covariance", "covariance", "eigenvalues", "eigenvectors", "limits", "significant"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    one, other = (whitened_average(path, spikes, (-9, 1), engine=e) for e in (serial_engine, cluster_engine))
    for name in ("filter", "mean", "scores", "ridge"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_small_budget_takes_more_passes_and_finds_the_same(on_disk, serial_engine):
    path, spikes = on_disk
    spikes = {i: spikes[i] for i in (0, 1)}
    want = spike_triggered_covariance(path, spikes, (-39, 1), n_surrogates=100, engine=serial_engine)
    with lp.open_engine("serial", memory="20MiB") as small:
        found = spike_triggered_covariance(path, spikes, (-39, 1), n_surrogates=100, engine=small)
        assert found.plan.passes > want.plan.passes
        with pytest.raises(lp.MemoryPlanError, match=r"It fits in memory="):
            whitened_average(path, spikes, (-199, 1), engine=small)
    np.testing.assert_allclose(found.eigenvalues, want.eigenvalues, atol=1e-11)
    np.testing.assert_allclose(found.limits, want.limits, atol=1e-11)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (spike_triggered_covariance, {"n_surrogates": 0}, lp.ConfigError, "n_surrogates: 0 is no whole number"),
        (spike_triggered_covariance, {"n_surrogates": 38}, lp.ConfigError, "cannot show anything .* Use 39 or more"),
        (spike_triggered_covariance, {"level": 0}, lp.ConfigError, "level: 0 is not between"),
        (spike_triggered_covariance, {"edges": "nan"}, lp.ConfigError, "edges: 'nan' keeps windows in part"),
        (spike_triggered_covariance, {"channels": [0, 9]}, lp.ConfigError, "channels: 9 is no channel"),
        (spike_triggered_covariance, {"window": (-2_000, 1)}, lp.PlanError, r"2,001 lags x 3 channels are 6,003 dim"),
        (spike_triggered_covariance, {"ridge": -1.0}, lp.ConfigError, "ridge: -1.0 is not a number of 0 or more"),
        (spike_triggered_covariance, {"whiten": True}, lp.DataError, r"is singular.* Pass ridge=1e-3"),
        (whitened_average, {"ridge": -0.1}, lp.ConfigError, "ridge: -0.1 is not a number of 0 or more"),
        (whitened_average, {"ridge": []}, lp.ConfigError, "ridge: is empty"),
        (whitened_average, {"ridge": 0}, lp.DataError, r"is singular: the least of 12 eigenvalues .* ridge=1e-3"),
        (whitened_average, {"times": 0.0, "channels": [2]}, lp.DataError, "the chosen channels never change"),
        (whitened_average, {"window": (-3_000, 1)}, lp.PlanError, "4,096 are the most"),
        (whitened_average, {"nan": "propagate"}, lp.ConfigError, "nan: 'propagate' would spoil"),
        (whitened_average, {"exclude": [(0, 5_000)]}, lp.DataError, "no piece of it is 4 samples long"),
    ],
)
def test_what_makes_no_sense_is_refused(model, options, error, message):
    x = np.random.default_rng(0).standard_normal((5_000, 3))
    asked = {"window": (-3, 1), "times": 1.0} | options
    x[:, 2] = x[:, 0] * asked.pop("times")
    with pytest.raises(error, match=message):
        model(x, {0: np.arange(10, 400, 7)}, **asked)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the H1 recording in ../shared/data")
def test_h1_has_a_filter_and_two_directions_of_less_spread():
    source = SHARED / "fly_h1_stimulus.npy", SHARED / "fly_h1_spikes.npz"
    found = spike_triggered_covariance(*source, (-39, 1), n_surrogates=39)
    assert (found.eigenvalues[0, -2:] < found.limits[0, 0]).all() and found.significant[0, -2:].all()
    whitened = whitened_average(*source, (-39, 1))
    assert whitened.scores.max() > 0.09 and whitened.n_windows == 600_000 - 39


def test_all_windows_are_completed_in_two_matrices():
    length, k, n = 75, 16, 1_000
    statistic = WindowProducts(np.array([[0, n]]), np.zeros(1, int), 1, length, np.zeros(k), np.arange(k), "float32")
    x = np.random.default_rng(0).normal(size=(n + length - 1, k)).astype(np.float32)
    total = folded(statistic, x, [])
    ends = [Ends(x[: length - 1].astype(float), x[n : n + length - 1].astype(float))]
    tracemalloc.start()
    moments = statistic.completed(total, 0, ends)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2.2 * moments.products.nbytes
    windows = (
        np.lib.stride_tricks.sliding_window_view(x, length, axis=0).transpose(0, 2, 1).reshape(n, -1).astype(float)
    )
    np.testing.assert_allclose(moments.products, windows.T @ windows, atol=1e-9)
    np.testing.assert_array_equal(moments.products, moments.products.T)
