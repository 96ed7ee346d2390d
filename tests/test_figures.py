"""Figures: labelled axes with units, the right data, and no state of matplotlib left behind."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from lazypipe.figures import coefficients, convergence, scree
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
