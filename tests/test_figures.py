"""Figures: labelled axes with units, the right data, and no state of matplotlib left behind."""

from types import SimpleNamespace

import numpy as np
import pytest

from lazypipe.figures import convergence, scree
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


def test_figures_can_be_written(pca, tmp_path):
    scree(pca).savefig(tmp_path / "scree.png")
    convergence([PassDone(1, 0.1)], 1e-6).savefig(tmp_path / "convergence.png")
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())
