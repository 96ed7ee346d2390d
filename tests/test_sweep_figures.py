"""Pictures of a sweep: the right numbers, labelled, nothing over anything else, whatever cells there are."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import require_tidy, said

from lazypipe.errors import ConfigError
from lazypipe.figures.sweep import confusion, heat_map, learning_curves
from lazypipe.models.sweep.cells import Cell, table_of
from lazypipe.models.sweep.result import Best, RegularizationSweep

SIZES = (50, 200, 1000, 10_000, 200_000)


def made(
    models=("logistic", "mlp"), sizes=SIZES, strengths=(1.0, 0.1, 0.01), seeds=(0, 1, 2), classes=("a", "b", "c"),
    failed=lambda cell: False, score=None,
):  # fmt: skip
    """A sweep of smooth curves; C = 0.1 is best, "mlp" is better, seeds lie 0.01 apart."""
    cells = []
    for model in models:
        for size in sizes:
            for k, strength in enumerate(strengths):
                for seed in seeds:
                    cell = Cell(model, size, strength, seed, "failed", note="out of memory")
                    if not failed(cell):
                        lower = 0.05 * abs(k - 1) - 0.02 * (model == "mlp") + 0.01 * (seed or 0)
                        validation = score(cell) if score else 0.9 - size**-0.4 - lower
                        names = ("train_r2", "validation_r2")
                        names = names if classes is None else ("train_accuracy", "validation_accuracy")
                        scores = dict(zip(names, (0.95 - lower, validation), strict=True))
                        cell = Cell(model, size, strength, seed, "done", **scores)
                    cells.append(cell)
    table, best = table_of(cells), None
    done = [row for row in table.to_pylist() if row["status"] == "done"]
    if done:
        counts = None if classes is None else 90 * np.eye(len(classes), dtype=np.int64) + 3
        best = Best(max(done, key=lambda row: row["validation_accuracy"] or row["validation_r2"] or -9), counts)
    return RegularizationSweep(
        table, tuple(models), tuple(sizes), tuple(strengths), tuple(seeds),
        None if classes is None else np.array(classes), 784, 300_000, 1000, "x.zarr", best,
    )  # fmt: skip


ODD = {
    "usual": made(),
    "one cell": made(("logistic",), (1000,), (0.5,), (None,)),
    "one size": made(sizes=(60_000,)),
    "one strength": made(strengths=(1.0,)),
    "three models": made(("logistic", "sgd", "mlp"), (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000)),
    "seven models": made([f"model {i} with quite a long name" for i in range(7)]),
    "one model failed": made(failed=lambda cell: cell.model == "mlp"),
    "all failed": made(failed=lambda cell: True),
    "scores that are no number": made(score=lambda cell: np.nan if cell.C == 0.1 else 0.5),
    "perfect": made(score=lambda cell: 1.0),
    "regression": made(("ridge",), classes=None),
    "far below 0": made(("ridge",), classes=None, score=lambda cell: -1e6 if cell.size == 50 else 0.7),
    "all far below 0": made(("ridge",), classes=None, score=lambda cell: -10.0 - cell.C),
    "many strengths": made(strengths=tuple(np.geomspace(10, 1e-6, 20).tolist())),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ODD)
def test_every_sweep_has_tidy_pictures(name):
    sweep = ODD[name]
    for figure in (learning_curves(sweep), heat_map(sweep)):
        require_tidy(figure)
        panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
        assert len(panels) == len(sweep.models)
        assert panels[-1].get_xlabel() == "training rows"
        assert figure.get_supylabel()
        assert ("failed" in said(figure)) == ("failed" in name)
    if sweep.best is not None and sweep.classes is not None:
        require_tidy(confusion(sweep))


def test_curves_are_means_over_seeds_between_their_extremes():
    sweep = made()
    figure = learning_curves(sweep)
    for axes, model in zip(figure.axes, sweep.models, strict=True):
        for i, strength in enumerate(sweep.strengths):
            for which, line in zip(("train", "validation"), axes.lines[2 * i : 2 * i + 2], strict=True):
                scores = sweep.scores(model, strength, which)
                np.testing.assert_allclose(line.get_ydata(), scores.mean(axis=1))
                assert list(line.get_xdata()) == list(SIZES)
                assert line.get_linestyle() == ("-" if which == "train" else "--")
            band = axes.collections[2 * i + 1].get_paths()[0].vertices[:, 1]
            assert (band.min(), band.max()) == (scores.min(), scores.max())
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "200", "1k", "10k", "200k"]
    assert figure.get_supylabel() == "accuracy (share of rows)"
    assert "mean of 3 seeds, band: lowest to highest" in said(figure)


def test_the_legend_names_strengths_styles_and_the_best():
    sweep = made()
    figure = learning_curves(sweep)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.texts if text.get_text().strip()]
    assert names == ["C = 1", "C = 0.1", "C = 0.01", "training", "validation", "best: 0.902"]
    star = figure.axes[1].lines[-1]
    assert (star.get_xdata()[0], star.get_marker()) == (200_000, "*")
    assert star.get_ydata()[0] == pytest.approx(sweep.scores("mlp", 0.1)[-1].mean())
    colours = [line.get_color() for line in legend.legend_handles[:3]]
    lightness = [np.dot(colour[:3], (0.3, 0.6, 0.1)) for colour in colours]
    assert lightness == sorted(lightness)  # the order of C can be seen


def test_of_many_strengths_the_ends_and_the_best_are_drawn_and_the_rest_is_told():
    strengths = tuple(np.geomspace(1e-6, 10, 20).tolist())
    sweep = made(strengths=strengths)  # the best is the second of the grid
    figure = learning_curves(sweep)
    assert "8 of 20 strengths C drawn" in said(figure)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert {f"C = {strengths[k]:.3g}" for k in (0, 1, 19)} <= set(names)
    assert sum(name.startswith("C = ") for name in names) == 8


def test_failed_cells_are_gaps_and_counted():
    sweep = made(failed=lambda cell: cell.size == 1000 and cell.C == 0.1)
    figure = learning_curves(sweep)
    assert np.isnan(figure.axes[0].lines[3].get_ydata()).tolist() == [False, False, True, False, False]
    assert "of 90 cells 6 failed" in said(figure)
    hot = heat_map(sweep)
    assert "of 90 cells 6 failed" in said(hot) and "no score" in said(hot)
    assert sum(patch.get_hatch() is not None for patch in hot.axes[0].patches) == 1


def test_stopped_cells_are_counted_too():
    sweep = made(("logistic",), seeds=(None,))
    rows = sweep.table.to_pylist()
    rows[0] |= {"status": "stopped", "train_accuracy": None, "validation_accuracy": None}
    stopped = RegularizationSweep(**{**vars(sweep), "table": sweep.table.from_pylist(rows, sweep.table.schema)})
    assert "of 15 cells 1 stopped" in said(learning_curves(stopped))


def test_some_seeds_of_a_cell_may_fail():
    sweep = made(("logistic",), failed=lambda cell: cell.seed == 2)
    line = learning_curves(sweep).axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), sweep.scores("logistic", 1.0)[:, :2].mean(axis=1))


def test_a_heat_map_shows_means_and_frames_the_best():
    sweep = made()
    figure = heat_map(sweep)
    axes = figure.axes[1]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    means = np.array([sweep.scores("mlp", strength).mean(axis=1) for strength in (0.01, 0.1, 1.0)])
    np.testing.assert_allclose(shown, means)
    assert [label.get_text() for label in axes.get_yticklabels()] == [] or not axes.yaxis.get_tick_params()["labelleft"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0.01", "0.1", "1"]
    assert {text.get_text() for text in axes.texts} == {f"{value:.3f}" for value in means.flat}
    (frame,) = axes.patches
    assert frame.get_xy() == (3.5, 0.5)
    assert "best: 0.902" in said(figure)
    assert "validation accuracy" in figure.axes[-1].get_ylabel()


def test_many_cells_are_colours_only_but_the_best_is_told():
    sizes = tuple(np.unique(np.geomspace(50, 200_000, 25).astype(int)).tolist())
    sweep = made(sizes=sizes, strengths=tuple(np.geomspace(10, 1e-8, 40).tolist()), seeds=tuple(range(5)))
    assert sweep.table.num_rows == 10_000
    figure = heat_map(sweep)
    require_tidy(figure)
    require_tidy(learning_curves(sweep))
    assert not figure.axes[0].texts and "best: 0." in said(figure)


def test_scores_of_a_regression_far_below_0_leave_room_for_the_others():
    figure = learning_curves(ODD["far below 0"])
    assert figure.axes[0].get_ylim()[0] == -0.2
    assert "3 means below −0.2 are not shown" in said(figure)
    assert figure.get_supylabel() == "R² (share of the variance)"
    assert heat_map(ODD["far below 0"]).axes[0].images[0].norm.vmin == -0.2


def test_confusion_counts_rows_and_colours_shares():
    sweep = made()
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 12_345]])
    figure = confusion(RegularizationSweep(**{**vars(sweep), "best": Best(sweep.best.cell, counts)}))
    axes = figure.axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[0.8, 0.2, 0], [np.nan] * 3, [1 / 12_346, 0, 12_345 / 12_346]])
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "1", "0", "12.3k"]
    assert axes.get_ylabel() == "true class" and axes.get_xlabel() == "predicted class"
    assert "mlp, C = 0.1, 200,000 training rows, seed 0" in said(figure)
    assert "12,353 of 12,356 validation rows right (100.0%)" in said(figure)
    require_tidy(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("classes", "first"),
    [
        ([False, True], "False"),
        ([0.5, 1.0], "0.5"),
        ([b"cat", b"dog"], "cat"),
        (["a name of a class that goes on and on", "$x^2$", "two\nlines", "_"], "a name of a class…"),
        ([f"class {i}" for i in range(15)], "class 0"),
        ([f"class name {i}" for i in range(40)], "class name 0"),
        (range(300), "0"),
    ],
)
def test_confusion_of_any_classes(classes, first):
    figure = confusion(made(("logistic",), (50,), classes=list(classes)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == first and len(labels) <= 40
    assert ("one in 8 named" in said(figure)) == (len(classes) == 300)
    assert bool(figure.axes[0].texts) == (len(classes) <= 15)
    require_tidy(figure)


def test_confusion_needs_classes():
    with pytest.raises(ConfigError, match="a regression has no classes"):
        confusion(ODD["regression"])
    with pytest.raises(ConfigError, match="the best cell could not be fitted again"):
        confusion(replace(made(), best=None))
    with pytest.raises(ConfigError, match="every cell failed"):
        confusion(ODD["all failed"])
