"""Grids of pictures: as wide as a page, with full last rows."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.figures import filters, samples, units


@pytest.mark.parametrize(("n", "columns", "rows"), [(50, 10, 5), (49, 7, 7), (64, 8, 8), (100, 10, 10), (7, 7, 1)])
def test_samples_and_filters_fill_their_last_row(n, columns, rows):
    images = np.random.default_rng(0).random((n, 12))
    for figure in (samples(images, (3, 4)), filters(images - 0.5, (3, 4))):
        shown = figure.axes[0].images[0].get_array()
        assert shown.shape == (rows * 3 + rows - 1, columns * 4 + columns - 1)  # a pixel between


@pytest.mark.parametrize(("n", "columns"), [(5, 3), (9, 3), (12, 4), (16, 4), (24, 6)])
def test_a_dozen_units_are_no_wider_than_a_page(serial_engine, n, columns):
    values = np.random.default_rng(0).normal(size=(400, 2))
    trains = {unit: np.arange(20 + unit, 380, 40) for unit in range(n)}
    figure = units(lp.spike_triggered_average(values, trains, (-3, 3), engine=serial_engine))
    assert len(figure.axes) == n
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns
    assert all(axes.title.get_fontsize() >= 8 for axes in figure.axes)


def test_names_of_a_heat_map_can_be_read(serial_engine):
    values = np.random.default_rng(0).normal(size=400)
    trains = {f"unit {i}": np.arange(20 + i, 380, 40) for i in range(20)}
    axes = units(lp.spike_triggered_average(values, trains, (-3, 3), engine=serial_engine)).axes[0]
    assert all(label.get_fontsize() >= 8 for label in axes.get_yticklabels())
