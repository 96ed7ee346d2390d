"""Pictures of networks: the right numbers, labelled, tidy, whatever history and weights there are."""

import numpy as np
import pytest
from drawn import require_tidy, said

from lazypipe.errors import ConfigError
from lazypipe.figures import (
    accuracy_by_labels,
    code_errors,
    confusion_matrix,
    filters,
    image_rows,
    samples,
    training_curves,
)

RNG = np.random.default_rng(0)


def history(n, stage="", measures=("loss", "accuracy"), kinds=("train", "validation"), value=lambda epoch: 1 / epoch):
    return [
        {"stage": stage, "epoch": e, "step": 10 * e, "seconds": 1.0, "samples_per_second": 1e4}
        | {f"{kind}_{measure}": value(e) for kind in kinds for measure in measures}
        for e in range(1, n + 1)
    ]


RBM = ("reconstruction_error", "pseudo_likelihood", "free_energy")
DBN = [*history(5, "rbm 1", RBM), *history(5, "rbm 2", RBM), *history(9, "fine-tuning")]
HISTORIES = {
    "usual": history(20),
    "one epoch": history(1),
    "a thousand epochs": history(1000),
    "no validation": history(5, kinds=("train",)),
    "no accuracy": history(5, measures=("loss",)),
    "diverged": history(5, value=lambda e: float("nan") if e > 2 else 1e30**e),
    "nothing finite": history(5, value=lambda e: float("inf")),
    "constant": history(5, value=lambda e: 0.5),
    "a dbn": DBN,
    "a deep dbn": [epoch for i in range(9) for epoch in history(3, f"rbm {i}", RBM)],
    "nothing measured": [{"stage": "", "epoch": 1}],
    "None": [{"epoch": 1, "train_loss": 0.3, "validation_loss": None}],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", HISTORIES)
def test_every_history_has_tidy_curves(name):
    figure = training_curves(HISTORIES[name])
    require_tidy(figure)
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert figure.axes[-1].get_xlabel() == "epoch"


def test_curves_are_training_and_validation_with_a_star_at_the_best_epoch():
    epochs = history(6)
    for epoch, loss in zip(epochs, (0.9, 0.5, 0.3, 0.2, 0.4, 0.5), strict=True):
        epoch["validation_loss"] = loss
    loss, accuracy = training_curves(epochs, best_epoch=3).axes
    train, star, validation, other = loss.lines
    np.testing.assert_array_equal(train.get_ydata(), [epoch["train_loss"] for epoch in epochs])
    np.testing.assert_array_equal(validation.get_ydata(), [0.9, 0.5, 0.3, 0.2, 0.4, 0.5])
    assert (star.get_xdata()[0], other.get_xdata()[0], other.get_ydata()[0]) == (3, 3, 0.3)
    assert (train.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert accuracy.get_ylabel() == "accuracy (share of rows)"
    assert "best epoch: 3" in said(training_curves(epochs, best_epoch=3))
    by_loss = [{key: value for key, value in epoch.items() if "accuracy" not in key} for epoch in epochs]
    assert "best epoch: 4" in said(training_curves(by_loss))


def test_without_a_best_epoch_that_of_highest_accuracy_is_marked_and_none_without_validation():
    epochs = history(4)
    epochs[2]["validation_accuracy"] = 1.5
    assert "best epoch: 3" in said(training_curves(epochs))
    assert "best epoch" not in said(training_curves(HISTORIES["no validation"]))


def test_stages_are_rows_of_panels_and_only_the_last_has_the_given_best_epoch():
    figure = training_curves(DBN, best_epoch=2)
    assert len(figure.axes) == 3 + 3 + 2
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")] == [
        "rbm 1", "rbm 2", "fine-tuning",
    ]  # fmt: skip
    stars = [sum(line.get_marker() == "*" for line in axes.lines) for axes in figure.axes]
    assert stars == [0] * 6 + [2, 2]
    assert "pseudo-likelihood\n(nats)" in said(figure)
    assert "the last 6 of 9 stages" in said(training_curves(HISTORIES["a deep dbn"]))


def test_losses_that_span_much_lie_on_a_logarithmic_axis():
    assert training_curves(history(20)).axes[0].get_yscale() == "log"
    assert training_curves(history(3)).axes[0].get_yscale() == "linear"
    assert training_curves(history(20, value=lambda e: -1.0 / e)).axes[0].get_yscale() == "linear"


def test_no_history_is_refused():
    with pytest.raises(ConfigError, match="the history has no epoch"):
        training_curves([])


WEIGHTS = RNG.normal(size=(130, 36)) * np.arange(1, 131)[:, None]  # the last is the largest


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "weights",
    [
        WEIGHTS, WEIGHTS[:1], WEIGHTS[:5, :35], WEIGHTS[:, :7], np.zeros((3, 16)), np.full((2, 9), np.nan),
        RNG.normal(size=(60, 2503)), RNG.normal(size=(2, 400 * 400)), np.ones((3, 1)),
    ],
    ids=["many", "one", "no images", "few inputs", "zeros", "NaN", "wide", "large images", "one input"],
)  # fmt: skip
def test_all_weights_have_a_tidy_picture(weights):
    require_tidy(filters(weights))
    require_tidy(filters(weights, common_scale=True))


def test_filters_are_the_largest_each_on_its_own_scale():
    figure = filters(WEIGHTS)
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    first = WEIGHTS[np.argmax(np.linalg.norm(WEIGHTS, axis=1))].reshape(6, 6)
    np.testing.assert_allclose(shown[:6, :6], first / abs(first).max())
    assert shown.shape == (10 * 7 - 1, 10 * 7 - 1)
    assert "the 100 of 130 hidden units of largest norm, largest first" in said(figure)
    assert "share" in figure.axes[1].get_ylabel()
    common = filters(WEIGHTS[:4], (4, 9), common_scale=True)
    largest = WEIGHTS[np.argmax(np.linalg.norm(WEIGHTS[:4], axis=1))].reshape(4, 9)
    np.testing.assert_array_equal(common.axes[0].images[0].get_array()[:4, :9], largest)
    assert common.axes[0].images[0].norm.vmax == abs(WEIGHTS[:4]).max()
    assert "4 hidden units" in said(common)


def test_weights_that_are_no_images_are_lines_and_very_many_inputs_are_thinned_out():
    axes = filters(WEIGHTS[:5, :35]).axes[0]
    assert axes.images[0].get_array().shape == (5, 35)
    assert axes.get_xlabel() == "input" and axes.get_ylabel() == "hidden unit"
    wide = np.zeros((2, 2501))
    wide[:, 7], wide[0, 1300] = 0.5, -1.0
    figure = filters(wide)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape[1] <= 1000 and shown.min() == -1 and shown[1].max() == 1
    assert "largest weight of each 3 neighbours" in said(figure)


def test_a_shape_that_entries_do_not_fill_is_refused():
    for make in (filters, samples):
        with pytest.raises(ConfigError, match=r"36 entries are no image of that shape"):
            make(WEIGHTS[:3], (5, 7))
    with pytest.raises(ConfigError, match="Give .height, width. of product 35"):
        samples(WEIGHTS[:3, :35])
    with pytest.raises(ConfigError, match="needs an array of two axes"):
        filters(WEIGHTS[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 3, 10, 200])
def test_reconstructions_stand_below_their_originals(n):
    original = RNG.random((n, 36))
    groups = {"original": original, "autoencoder": original / 2, "PCA": original - 9}
    figure = image_rows(groups)
    require_tidy(figure)
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown[:6, :6], original[0].reshape(6, 6))
    np.testing.assert_allclose(shown[7:13, :6], original[0].reshape(6, 6) / 2)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:3] == ["original", "autoencoder", "PCA"]
    assert figure.axes[0].images[0].norm.vmin == original[:30].min()  # of the originals
    assert ("30 of 200" in said(figure)) == (n == 200)


def test_groups_of_different_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"groups are a \(3, 36\), b \(2, 36\)"):
        image_rows({"a": WEIGHTS[:3], "b": WEIGHTS[:2]})
    with pytest.raises(ConfigError, match="groups are none"):
        image_rows({})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 7, 150])
def test_samples_are_a_grid(n):
    images = RNG.random((n, 12))
    figure = samples(images, (3, 4))
    require_tidy(figure)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[:3, :4], images[0].reshape(3, 4))
    assert ("100 of 150" in said(figure)) == (n == 150)


def test_errors_of_codes_are_a_named_line_a_method():
    table = [{"n_components": k, "autoencoder": 0.5 / k, "PCA": 1.0 / k} for k in (30, 2, 10)]
    figure = code_errors(table)
    require_tidy(figure)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["autoencoder", "PCA"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [1 / 2, 1 / 10, 1 / 30])
    assert list(axes.lines[0].get_xdata()) == [2, 10, 30]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() and "reconstruction error" in axes.get_ylabel()
    assert len({line.get_marker() for line in axes.lines}) == 2


def test_accuracies_are_means_and_ranges_over_seeds():
    table = [
        {"n_labels": n, "seed": seed, "pre-trained": 0.9 + seed / 100, "from random weights": 0.8 + seed / 50}
        for n in (100, 1000) for seed in range(3)
    ]  # fmt: skip
    table[-1] |= {"pre-trained": None}
    figure = accuracy_by_labels(table)
    require_tidy(figure)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.91, 0.905])
    ends = axes.collections[0].get_paths()[0].vertices
    assert (ends[ends[:, 0] == 100, 1].min(), ends[ends[:, 0] == 100, 1].max()) == (0.9, 0.92)
    assert "mean of up to 3 seeds, band: lowest to highest" in said(figure)
    assert "accuracy (share of test rows)" in said(figure)


@pytest.mark.parametrize(
    "table", [[], [{"n_labels": 3}], [{"accuracy": 0.5}], [{"n_labels": 3} | {f"m{i}": 0.5 for i in range(7)}]]
)
def test_tables_without_methods_or_with_too_many_are_refused(table):
    with pytest.raises(ConfigError, match="^table: "):
        accuracy_by_labels(table)


def test_one_number_and_missing_values_can_be_drawn():
    require_tidy(code_errors([{"n_components": 30, "autoencoder": 0.004, "PCA": float("nan")}]))
    require_tidy(code_errors([{"n_components": 30, "autoencoder": 0.0, "PCA": None}]))


def test_a_confusion_matrix_names_its_rows_and_needs_as_many_classes():
    figure = confusion_matrix([[8, 2], [1, 9]], ["a", "b"], "Confusions of the mlp", rows="test rows")
    require_tidy(figure)
    assert "17 of 20 test rows right (85.0%)" in said(figure) and "Confusions of the mlp" in said(figure)
    with pytest.raises(ConfigError, match=r"counts have shape \(2, 2\) for 3 classes"):
        confusion_matrix(np.eye(2), [1, 2, 3])
