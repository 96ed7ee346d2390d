"""Pictures of principal components: components as images, and the passes of several methods beside each other."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawn import said

from lazypipe.errors import ConfigError
from lazypipe.figures import components, convergence, scree
from lazypipe.progress import PassDone

RNG = np.random.default_rng(0)


def fitted(n, n_columns, scale=1.0):
    variance = scale / np.arange(1.0, n + 1)
    return SimpleNamespace(
        components_=RNG.normal(size=(n, n_columns)), explained_variance_=variance,
        explained_variance_ratio_=variance / variance.sum() / 2,
    )  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "shown"), [(1, 1), (5, 5), (10, 10), (24, 24), (50, 24)])
def test_components_are_images_that_name_their_share(n, shown):
    pca = fitted(n, 35)
    figure = components(pca, (5, 7))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == shown
    assert panels[0].get_title() == f"1: {pca.explained_variance_ratio_[0]:.1%}"
    image = panels[-1].images[0]
    largest = abs(pca.components_[shown - 1]).max()
    np.testing.assert_allclose(image.get_array(), pca.components_[shown - 1].reshape(5, 7) / largest)
    assert (image.norm.vmin, image.norm.vmax) == (-1, 1)
    assert ("the first 24 of 50" in said(figure)) == (n == 50)
    assert "share of\nthe component's largest" in said(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(2, 200), (200, 2), (400, 400)])
def test_components_of_long_and_of_large_images_can_be_drawn(shape):
    figure = components(fitted(3, shape[0] * shape[1]), shape)
    figure.draw_without_rendering()
    assert max(figure.get_size_inches()) < 12


def test_components_that_are_no_images_are_refused():
    assert components(fitted(2, 36)).axes[0].images[0].get_array().shape == (6, 6)
    with pytest.raises(ConfigError, match=r"components: 35 entries are no image .* product 35"):
        components(fitted(2, 35))
    with pytest.raises(ConfigError, match="components: 36 entries"):
        components(fitted(2, 36), (5, 7))


def test_components_of_zeros_or_nan_can_be_drawn():
    pca = fitted(2, 36)
    pca.components_[0], pca.components_[1] = 0.0, np.nan
    components(pca).draw_without_rendering()


def test_methods_beside_each_other_are_a_named_line_each():
    quick = [{"pass": 2, "residual": 0.1, "explained_variance": []}, {"pass": 3, "residual": 0.0}]
    slow = [PassDone(i, 1 / i) for i in range(1, 101)]
    figure = convergence({"block": quick, "one at a time": slow}, 1e-6)
    (axes,) = figure.axes
    block, one, tolerance = axes.lines
    assert list(block.get_xdata()) == [2, 3] and block.get_ydata()[0] == 0.1
    np.testing.assert_allclose(one.get_ydata(), 1 / np.arange(1, 101))
    assert (block.get_label(), one.get_label()) == ("block: 3 passes", "one at a time: 100 passes")
    assert (block.get_marker(), one.get_marker()) == ("o", "")
    assert block.get_color() != one.get_color() != tolerance.get_color()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    figure.draw_without_rendering()
    assert "100" in [label.get_text() for label in axes.get_xticklabels()]


def test_methods_of_about_as_many_passes_lie_on_a_linear_axis():
    passes = [PassDone(i, 1 / i) for i in range(1, 9)]
    assert convergence({"a": passes, "b": passes[:4]}, 1e-6).axes[0].get_xscale() == "linear"
    assert convergence(passes, 1e-6).axes[0].lines[0].get_label() == "largest residual"


def test_more_methods_than_can_be_told_apart_are_refused():
    with pytest.raises(ConfigError, match="has 4 methods; at most 3"):
        convergence({name: [PassDone(1, 0.1)] for name in "abcd"}, 1e-6)


@pytest.mark.parametrize(("scale", "label"), [(5e4, "50,000"), (2.0, "0.25")])
def test_large_variances_are_written_out(scale, label):
    figure = scree(fitted(5, 36, scale))
    figure.draw_without_rendering()
    assert label in [text.get_text() for text in figure.axes[0].get_yticklabels()]
