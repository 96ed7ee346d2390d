"""Figures: labelled axes with units, the right data, and no state of matplotlib left behind."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawn import said
from scipy import stats

import lazypipe as lp
from lazypipe.figures import coefficients, convergence, scree, spike_triggered, units
from lazypipe.models.spike_triggered.significance import spike_triggered_significance
from lazypipe.progress import PassDone


@pytest.fixture
def pca():
    variance = 100 / np.arange(1, 6)
    return SimpleNamespace(explained_variance_=variance, explained_variance_ratio_=variance / 300)


def test_scree_shows_variances_and_their_cumulated_share(pca):
    left, right = scree(pca).axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx(pca.explained_variance_)
    assert right.lines[0].get_ydata() == pytest.approx(100 * np.cumsum(pca.explained_variance_ratio_))
    assert "squared units" in left.get_ylabel()
    assert "%" in right.get_ylabel()
    assert left.get_xlabel() == "component"


def test_scree_of_one_component(pca):
    one = SimpleNamespace(explained_variance_=np.ones(1), explained_variance_ratio_=np.ones(1))
    assert len(scree(one).axes[0].patches) == 1


def test_convergence_shows_residuals_and_tolerance():
    (axes,) = convergence([PassDone(1, 0.1), PassDone(2, 0.0)], 1e-6).axes
    residuals, tolerance = axes.lines
    assert list(residuals.get_xdata()) == [1, 2]
    assert residuals.get_ydata()[0] == 0.1
    assert residuals.get_ydata()[1] > 0  # an exact answer has a place on the axis, too
    assert tolerance.get_ydata()[0] == 1e-6
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() and axes.get_ylabel()


def regression(n):
    coef = np.arange(1.0, n + 1)
    t_values = coef / 10
    return SimpleNamespace(
        coef_=coef, standard_errors_=np.full(n, 10.0), t_values_=t_values, p_values_=2 * stats.t.sf(t_values, 20),
        columns_=np.arange(n) + 100, n_rows_=n + 21, ddof_=n + 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 45])
def test_coefficients_shows_the_strongest_with_their_intervals(n):
    (axes,) = coefficients(regression(n)).axes
    dots = np.concatenate([bars.lines[0].get_xdata() for bars in axes.containers])
    assert sorted(dots) == list(range(max(1, n - 29), n + 1))
    assert axes.get_yticklabels()[0].get_text() == str(99 + n)
    reach = axes.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(reach[:, 0], n + 10 * stats.t.ppf([0.025, 0.975], 20))
    assert "units of y" in axes.get_xlabel() and "column" in axes.get_ylabel()


def test_coefficients_without_a_spread_can_be_drawn(tmp_path):
    model = regression(3)
    model.standard_errors_, model.t_values_, model.p_values_ = np.full((3, 3), np.nan)
    model.ddof_ = 24.0
    coefficients(model).savefig(tmp_path / "coefficients.png")


def test_figures_can_be_written(pca, tmp_path):
    scree(pca).savefig(tmp_path / "scree.png")
    convergence([PassDone(1, 0.1)], 1e-6).savefig(tmp_path / "convergence.png")
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())


def recorded(n_units=3, shape=(2,), rate=1000.0, unit="µV", dtype=np.float64):
    """A recording of noise with a bump 2 samples before the spikes of each unit, on channel unit % n; its spikes.

    The last unit has none.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, *shape))
    flat = values.reshape(600, -1)
    trains = {}
    for i in range(n_units):
        trains[10 + i] = np.sort(rng.choice(np.arange(20, 580), 0 if i == n_units - 1 else 30 + i, replace=False))
        flat[trains[10 + i] - 2, i % flat.shape[1]] += 9
    return lp.open_recording(values.astype(dtype), sampling_rate=rate, unit=unit), lp.read_spikes(trains)


def average(serial_engine, *asked, window=(-8, 5), **options):
    return lp.spike_triggered_average(*asked, window, engine=serial_engine, **options)


def test_spike_triggered_shows_the_unit_of_most_spikes_on_its_best_channel(serial_engine):
    sta = average(serial_engine, *recorded())
    figure = spike_triggered(sta)
    (axes,) = figure.axes
    mean = next(line for line in axes.lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_ydata(), sta.mean[1, :, 1])
    np.testing.assert_allclose(mean.get_xdata(), sta.lags)  # at 1 kHz a lag is a millisecond
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((sta.mean + 1.96 * sta.sem)[1, :, 1].max())
    assert axes.get_xlabel() == "time from the spike (ms)"
    assert axes.get_ylabel() == "mean (µV)"
    assert axes.get_title() == "Unit 11, channel 1, where it moves most of 2 channels: n = 31 spikes"
    assert "± 1.96 standard errors" in said(figure)


def test_spike_triggered_without_a_rate_or_a_unit_of_the_values(serial_engine):
    (axes,) = spike_triggered(average(serial_engine, *recorded(rate=None, unit=None, shape=(1,)), spread=False)).axes
    assert axes.get_xlabel() == "time from the spike (samples)"
    assert axes.get_ylabel() == "mean (units of the data)"
    assert axes.get_title() == "Unit 11: n = 31 spikes"
    assert not axes.collections


def test_spike_triggered_of_a_unit_by_name_also_of_one_without_spikes(serial_engine):
    sta = average(serial_engine, *recorded())
    assert spike_triggered(sta, unit=10).axes[0].get_title().startswith("Unit 10, channel 0")
    empty = spike_triggered(sta, unit=12)
    assert "no spikes" in said(empty) and "n = 0" in said(empty)
    assert empty.axes[0].get_xlabel() and empty.axes[0].get_ylabel()
    with pytest.raises(lp.ConfigError, match="unit: there is no 7. Name one of 10, 11, 12."):
        spike_triggered(sta, unit=7)


def test_significance_gives_the_band_and_marks_lags(serial_engine):
    asked = recorded()
    sta, found = average(serial_engine, *asked), spike_triggered_significance(*asked, (-8, 5), n_bootstrap=50)
    figure = spike_triggered(sta, found)
    assert "95% of bootstrap means" in said(figure) and "significant (false discoveries ≤ 5%)" in said(figure)
    (bars,) = (c for c in figure.axes[0].collections if str(c.get_label()).startswith("significant"))
    (bar,) = bars.get_paths()
    assert (bar.vertices[:, 0].min(), bar.vertices[:, 0].max()) == pytest.approx((-2.5, -1.5))
    assert "bars: significant lags" in said(units(sta, found))


@pytest.mark.parametrize("n_units", [1, 3, 7, 26])
def test_units_of_several_channels_are_panels_that_name_their_channel(serial_engine, n_units):
    figure = units(average(serial_engine, *recorded(n_units)))
    told = said(figure)
    assert len(figure.axes) == min(n_units, 24)
    assert f"unit {9 + n_units}\nn = 0" in told or n_units > 24
    assert ("no spikes" in told) == (n_units <= 24)
    if n_units > 1:
        assert "channel 1, n = 31" in told or n_units > 24
        assert "µV" in told and "time from the spike (ms)" in told
        assert any(text.get_text().endswith(" µV") for text in figure.axes[-2].texts)  # the scale bar
    assert ("(24 of 26 units; 2 left out, those of fewest spikes)" in told) == (n_units == 26)


def test_many_units_of_one_channel_are_a_heat_map(serial_engine):
    sta = average(serial_engine, *recorded(9, shape=(1,)))
    axes, bar = units(sta).axes
    (image,) = axes.images
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(shown, sta.mean[:, :, 0] - np.median(sta.mean[:, :, 0], axis=1, keepdims=True))
    assert image.norm.vmin == -image.norm.vmax
    assert (image.get_extent()[0], image.get_extent()[1]) == (-8.5, 4.5)
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["10 (30)", "11 (31)"]
    assert "µV" in bar.get_ylabel() and axes.get_xlabel() == "time from the spike (ms)"
    assert "no spikes" in said(axes)


def test_a_movie_is_shown_as_frames_at_the_lag_where_units_move_most(serial_engine):
    sta = average(serial_engine, *recorded(4, shape=(3, 5), unit=None))
    figure = units(sta)
    frame = np.ma.filled(figure.axes[1].images[0].get_array(), np.nan)
    assert frame.shape == (3, 5)
    assert np.unravel_index(np.abs(frame).argmax(), (3, 5)) == (0, 1) and abs(frame).max() == 1
    told = said(figure)
    assert "−2 ms" in told and "units of the data" in told and "no spikes" in told
    assert "pixel (0, 2), where it moves most of 15 pixels" in said(spike_triggered(sta))


def test_spike_triggered_figures_of_odd_shapes_can_be_written(serial_engine, tmp_path):
    recording, spikes = recorded()
    for i, options in enumerate(({"window": (0, 1)}, {"window": (-600, -500), "edges": "nan"}, {"edges": "nan"})):
        sta = average(serial_engine, recording, spikes, **options)
        spike_triggered(sta).savefig(tmp_path / f"sta{i}.png")
        units(sta).savefig(tmp_path / f"units{i}.png")
    constant = lp.open_recording(np.ones((50, 1)))
    sta = average(serial_engine, constant, {unit: [20, 30] for unit in range(8)})
    units(sta).savefig(tmp_path / "constant.png")
    units(average(serial_engine, constant, {0: [20]})).savefig(tmp_path / "one.png")
