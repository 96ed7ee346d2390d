"""The verdict: its intervals hold the truth as often as they say, and each statement is right where it is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from jobs import _sweep
from lazypipe.models.sweep.cells import Cell, table_of
from lazypipe.models.sweep.result import Best, RegularizationSweep, best_place_of
from lazypipe.models.sweep.verdict import verdict_of

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def made(
    error, train=lambda cell: 0.0, *, models=("logistic",), sizes=SIZES, strengths=(1.0,), seeds=(None,),
    n_validation=10_000, classes=10, done=lambda cell: {}, failed=lambda cell: "", best=None,
):  # fmt: skip
    """A sweep whose errors are ``error(cell)`` and ``train(cell)``; a regression where ``classes`` is 0."""
    names = ("train_accuracy", "validation_accuracy") if classes else ("train_r2", "validation_r2")
    cells = []
    for model in models:
        for size in sizes:
            for strength in strengths:
                for seed in seeds:
                    cell = Cell(
                        model, size, strength, seed, "failed", note=failed(Cell(model, size, strength, seed, "done"))
                    )
                    if not cell.note:
                        scores = dict(zip(names, (1 - train(cell), 1 - error(cell)), strict=True))
                        cell = Cell(model, size, strength, seed, "done", **scores, **done(cell))
                    cells.append(cell)
    return RegularizationSweep(
        table_of(cells), tuple(models), tuple(sizes), tuple(strengths), tuple(seeds),
        np.arange(classes) if classes else None, 50, 10**6, n_validation, "x.zarr", best,
    )  # fmt: skip


def test_the_best_place_is_one_rule_for_all():
    """Among places with the most seeds the highest mean, of equal ones fewest rows, then the smallest C."""
    scores = {(100, 1.0): (0.7, 0.8, 0.9), (100, 0.1): (0.9, 0.7, 0.8), (200, 1.0): (0.8, 0.8, 0.8)}  # equal means
    sweep = made(
        lambda cell: 1 - scores.get((cell.size, cell.C), (0.99, 0.99, 0.0))[cell.seed],
        sizes=(100, 200), strengths=(1.0, 0.1), seeds=(0, 1, 2),
        failed=lambda cell: "lost" if (cell.size, cell.C, cell.seed) == (200, 0.1, 2) else "",
    )  # fmt: skip
    assert sweep.best_place() == (0, 1, 0) == best_place_of(sweep.cube(), sweep.sizes, sweep.strengths)
    np.testing.assert_allclose(sweep.means()[0], [[0.8, 0.8], [0.8, 0.99]])
    np.testing.assert_allclose(sweep.means("train"), 1)
    best = verdict_of(sweep).best
    assert (best.size, best.C, best.n_seeds) == (100, 0.1, 3)
    found = _sweep.best_of_each_size(sweep, _sweep.means_of(sweep))
    assert [(mean.size, mean.C, mean.n_seeds) for mean in found] == [(100, 0.1, 3), (200, 1.0, 3)]


def test_without_a_score_there_is_no_best_place():
    sweep = made(lambda cell: 0.1, failed=lambda cell: "no memory", seeds=(0, 1))
    assert sweep.best_place() is None and np.isnan(sweep.means()).all()


def power_law(a, b, c):
    return lambda cell: a + b * cell.size**-c


def line(sweep, start):
    (found,) = (text for text in verdict_of(sweep).lines() if text.startswith(start))
    return found


@pytest.mark.parametrize("law", [(0.05, 1.0, 0.5), (0.0, 1.5, 0.35), (0.1, 3.0, 0.7), (0.08, 0.0, 0.5)])
@pytest.mark.parametrize(("n_seeds", "common"), [(1, False), (1, True), (3, True)])
def test_intervals_hold_the_truth_as_often_as_they_say(law, n_seeds, common):
    """Of 80 sweeps; ``common``: half of what makes a validation row hard is the same for all models."""
    a, b, c = law
    rng = np.random.default_rng(n_seeds + common)
    truth = {
        "score": 1 - a - b * 40_000**-c,
        "gain": b * (20_000**-c - 40_000**-c),
        "limit": a,
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(80):
        hard = rng.standard_normal(1000)

        def error(cell, hard=hard):
            expected = power_law(a, b, c)(cell)
            if not common:
                return rng.binomial(1000, expected) / 1000
            return np.mean(ndtr((hard + rng.standard_normal(1000)) / math.sqrt(2)) < expected)

        seeds = (None,) if n_seeds == 1 else tuple(range(n_seeds))
        more = verdict_of(made(error, sizes=SIZES[::2] + SIZES[-1:], n_validation=1000, seeds=seeds)).more_data
        assert more.size == 40_000
        for name, (low, high) in zip(truth, (more.interval, more.gain_interval, more.limit_interval), strict=True):
            held[name] += low - 1e-12 <= truth[name] <= high + 1e-12
        assert np.ptp(more.interval) < 7 * 1.96 * math.sqrt(truth["score"] * (1 - truth["score"]) / 1000)
    assert min(held.values()) >= 70, held  # 95% of 80 are 76, with a standard deviation of 2


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 2.0, 0.5), (0.0, 1.0, 0.3), (0.1, 3.0, 1.0)])
def test_without_noise_the_law_is_found(a, b, c):
    more = verdict_of(made(power_law(a, b, c), n_validation=10**6)).more_data
    assert (more.a, more.c) == (pytest.approx(a, abs=2e-3), pytest.approx(c, abs=0.02))
    assert more.b == pytest.approx(b, rel=0.1)
    assert more.expected == pytest.approx(1 - a - b * 40_000**-c, abs=1e-4)
    assert more.gain == pytest.approx(b * (20_000**-c - 40_000**-c), abs=1e-4)
    assert more.sizes == SIZES


def test_sizes_before_the_power_law_are_left_out():
    plateau = made(lambda cell: min(0.6, 20 * cell.size**-0.6))  # at chance up to 350 rows
    more = verdict_of(plateau).more_data
    assert more.sizes[0] >= 500 and more.c == pytest.approx(0.6, abs=0.1)
    assert more.interval[0] < 1 - 20 * 40_000**-0.6 < more.interval[1]


def test_the_best_cell_is_a_mean_over_seeds_with_its_standard_error():
    error = {(1.0, 0): 0.1, (1.0, 1): 0.5, (0.1, 0): 0.2, (0.1, 1): 0.24}
    sweep = made(
        lambda cell: error[cell.C, cell.seed], lambda cell: 0.07, strengths=(1.0, 0.1), seeds=(0, 1), sizes=(1000,)
    )
    best = verdict_of(sweep).best
    assert (best.model, best.C, best.size, best.n_seeds) == ("logistic", 0.1, 1000, 2)  # not the lucky seed of C = 1
    assert best.validation == pytest.approx(0.78) and best.train == pytest.approx(0.93)
    assert best.standard_error == pytest.approx(math.sqrt(0.22 * 0.78 / 10_000), rel=1e-3)
    assert best.seed_sd == pytest.approx(np.std([0.2, 0.24], ddof=1))
    said = line(sweep, "Best")
    assert "C = 0.1, 1,000 rows: validation accuracy 0.7800 ± 0.0041" in said and "2 seeds, SD 0.0283" in said


def test_rows_a_feature_and_a_weight():
    sweep = made(power_law(0.05, 1, 0.5), best=Best({"model": "logistic"}, None, np.zeros((10, 50)), np.zeros(10)))
    found = verdict_of(sweep)
    assert found.rows_per_feature == 400
    assert found.rows_per_weight == pytest.approx(20_000 / 510)
    assert line(sweep, "Rows") == "Rows: 400 a feature at the largest size (50 features), 39.2 a weight."
    assert verdict_of(made(power_law(0.05, 1, 0.5))).rows_per_weight is None


@pytest.mark.parametrize(
    ("strength_costs", "from_size", "said"),
    [
        (lambda n: 0.1, None, "still matters at 20,000 rows"),
        (lambda n: 10 / n, 2000, "stops mattering at 2,000 rows"),  # the noise is ± 0.0049 or so
        (lambda n: 0.001, 100, "matters at no size"),
        (lambda n: 0.1 if n in (100, 5000) else 0.0, 10_000, "stops mattering at 10,000 rows"),
    ],
)
def test_where_regularization_stops_mattering(strength_costs, from_size, said):
    sweep = made(
        lambda cell: 0.07 + cell.size**-0.5 + strength_costs(cell.size) * (cell.C != 0.1), strengths=(1.0, 0.1, 0.01)
    )
    found = verdict_of(sweep).regularization
    assert found.irrelevant_from == from_size
    assert found.spread == pytest.approx([strength_costs(n) for n in SIZES])
    assert said in line(sweep, "Regularization")


def test_strengths_without_a_score_are_told_where_the_others_are_compared():
    sweep = made(
        lambda cell: 0.1 + 0.3 * (cell.C == 0.01), strengths=(1.0, 0.1, 0.01),
        failed=lambda cell: "hopeless" * (cell.C == 0.01 and cell.size > 1000),
    )  # fmt: skip
    assert verdict_of(sweep).regularization.n_strengths == (3, 3, 3, 3, 2, 2, 2, 2)
    assert "stops mattering at 2,000 rows: the 2 strengths left are 0.0000 apart" in line(sweep, "Regularization")


def test_of_equal_cells_the_best_is_that_of_fewest_rows_then_the_most_regularized():
    best = verdict_of(made(lambda cell: 0.1 + 0.1 * (cell.size == 100), strengths=(1.0, 0.1))).best
    assert (best.size, best.C) == (200, 0.1)


def test_noise_between_strengths_is_of_pairs_where_there_are_seeds():
    luck = {0: 0.1, 1: -0.05, 2: -0.05}  # of a draw of rows, the same for all strengths
    found = verdict_of(
        made(lambda cell: 0.3 + luck[cell.seed] + 0.05 * (cell.C == 0.1), strengths=(1.0, 0.1), seeds=(0, 1, 2))
    ).regularization
    assert found.irrelevant_from is None
    assert found.noise[0] == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 10_000), rel=1e-2)


def test_the_best_strength_at_either_end_and_on_the_edge_of_the_grid():
    grid = (1.0, 0.1, 0.01)
    wanted = {size: 0.01 if size < 1000 else 1.0 for size in SIZES}
    sweep = made(lambda cell: 0.1 + 0.05 * abs(math.log10(cell.C / wanted[cell.size])), strengths=grid)
    found = verdict_of(sweep).regularization
    assert (found.best[0], found.best[-1]) == (0.01, 1.0)
    assert found.edges == ("smallest", "largest") and found.extend == (True, True)
    said = line(sweep, "Regularization")
    assert "0.01 at 100 rows (smallest of the grid: extend it)" in said
    assert "1 at 20,000 rows (largest of the grid: extend it)" in said

    inside = verdict_of(made(lambda cell: 0.1 + 0.05 * (cell.C != 0.1), strengths=grid)).regularization
    assert inside.edges == (None, None) and inside.over_weakest == pytest.approx(0.05)
    level = made(lambda cell: 0.1 + 0.2 * (cell.C == 0.01) - 0.001 * (cell.C == 1), strengths=grid)
    assert verdict_of(level).regularization.extend == (False, False)
    assert "largest of the grid: its neighbour is as good" in line(level, "Regularization")


@pytest.mark.parametrize(
    ("error", "train", "kind", "more"),
    [
        (power_law(0.1, 1, 0.9), power_law(0.099, -1, 0.9), "model", False),  # both level off at 0.1
        (power_law(0.0, 2, 0.3), lambda cell: 0.0, "data", True),  # 0.1 at 20,000 and falling
        (lambda cell: 0.1, lambda cell: 0.0, "regularization", False),  # learnt by heart, and flat
        (power_law(0.06, 2, 0.4), lambda cell: 0.06, "both", True),
        (lambda cell: 0.0, lambda cell: 0.0, "nothing", False),
        (power_law(0.05, 2, 0.4), lambda cell: math.nan, "unknown", True),
        (power_law(0.0, 2, 0.3), power_law(0.0, 1.9, 0.3), "both", True),  # small gap, but rows do help
    ],
)
def test_what_limits(error, train, kind, more):
    sweep = made(error, train)
    found = verdict_of(sweep)
    assert found.limit.kind == kind
    assert found.more_data.helps is more
    assert ("More rows: they help." in line(sweep, "More rows")) == more
    assert 4 <= len(found.lines()) <= 7


def test_the_words_have_the_numbers():
    sweep = made(power_law(0.1, 1, 0.5), lambda cell: 0.09, n_validation=10**6)
    more, said = verdict_of(sweep).more_data, line(sweep, "More rows")
    assert f"40,000 would give {more.expected:.4f} (95% interval {more.interval[0]:.4f} to" in said
    assert "fitted to 8 sizes from 100 rows on" in said
    limit = line(sweep, "Limit")
    assert "Training 0.9100, validation 0.8929 at 20,000 rows (C = 1): +0.0171" in limit
    assert f"infinitely many rows would leave {more.a:.4f}" in limit


@pytest.mark.parametrize(
    ("worse", "said"),
    [(0.04, "the bigger one helps"), (-0.04, "the bigger one is worse"), (0.002, "cannot be told")],
)
def test_whether_a_bigger_model_helps(worse, said):
    worse_by = {"logistic": worse, "sgd": worse + 0.01, "mlp": 0.0}
    sweep = made(lambda cell: 0.1 + worse_by[cell.model], models=tuple(worse_by))
    text = line(sweep, "Models")
    assert said in text and f"mlp − logistic = {worse:+.4f} ± " in text and "unpaired" in text
    logistic, mlp = (next(m for m in verdict_of(sweep).models if m.model == name) for name in ("logistic", "mlp"))
    assert mlp.standard_error == pytest.approx(math.sqrt(0.1 * 0.9 / 10_000), rel=1e-3)
    error = math.hypot(mlp.standard_error, logistic.standard_error)
    assert f"± {error:.4f} (standard error" in text


@pytest.mark.parametrize("network", ["deep", "dbn"])
def test_every_network_is_a_bigger_model(network):
    sweep = made(lambda cell: 0.1 + 0.04 * (cell.model == "sgd"), models=("sgd", network))
    assert "the bigger one helps" in line(sweep, "Models")


def test_models_are_compared_at_a_size_that_all_have():
    sweep = made(
        lambda cell: 0.1 + 50 / cell.size, models=("logistic", "mlp"),
        failed=lambda cell: "no memory" * (cell.model == "mlp" and cell.size > 1000),
    )  # fmt: skip
    assert [m.size for m in verdict_of(sweep).models] == [1000, 1000]
    assert "no bigger one" in line(made(lambda cell: 0.1, models=("logistic", "sgd")), "Models")


def test_cells_that_failed_or_are_to_be_mistrusted_are_told():
    sweep = made(
        power_law(0.05, 1, 0.5), strengths=(1.0, 0.1),
        failed=lambda cell: "out of memory" * (cell.size > 5000 and cell.C == 1),
        done=lambda cell: {"converged": cell.size > 200, "n_classes": 8 if cell.size == 100 else 10},
    )  # fmt: skip
    assert verdict_of(sweep).lines()[-1] == (
        "Of 16 cells: 2 failed (out of memory); 4 did not converge; 2 lack classes in their training rows."
    )
    rows = sweep.table.to_pylist()
    rows[-1] |= {"status": "stopped", "validation_accuracy": None, "converged": None}
    stopped = verdict_of(replace(sweep, table=sweep.table.from_pylist(rows, sweep.table.schema)))
    assert (stopped.cells.n_failed, stopped.cells.n_stopped, stopped.cells.n_without_score) == (2, 1, 0)
    assert "1 were stopped" in stopped.lines()[-1]
    assert not any(text.startswith("Of ") for text in verdict_of(made(power_law(0.05, 1, 0.5))).lines())


def test_of_fewer_than_four_sizes_no_curve_is_told():
    sweep = made(power_law(0.05, 1, 0.5), sizes=(100, 1000, 10_000))
    assert verdict_of(sweep).more_data is None
    assert line(sweep, "More rows") == "More rows: cannot be told from 3 sizes; 4 are needed."


def test_one_cell():
    sweep = made(lambda cell: 0.1, sizes=(1000,), strengths=(0.5,))
    assert "one strength only" in line(sweep, "Regularization")
    assert "cannot be told from 1 size;" in line(sweep, "More rows")
    assert verdict_of(sweep).limit.kind == "data"


def test_perfect_scores_are_not_certain():
    found = verdict_of(made(lambda cell: 0.0, n_validation=200))
    assert found.best.standard_error == pytest.approx(math.sqrt(2 / 204 * 202 / 204 / 204))
    assert found.more_data.expected == 1.0 and found.more_data.interval[1] == 1.0
    assert 0.96 < found.more_data.interval[0] < 1
    assert found.limit.kind == "nothing"


def test_curves_that_rise_and_fall_are_flat_laws_or_wide_ones():
    hump = verdict_of(made(lambda cell: 0.2 + 0.1 * (cell.size == 5000))).more_data
    assert hump.misfit > 3 and np.ptp(hump.interval) > 0.1
    worse = verdict_of(made(lambda cell: 0.1 + 1e-6 * cell.size)).more_data
    assert worse.gain == 0 and worse.helps is not True


def test_a_regression():
    rng = np.random.default_rng(0)
    noise = {size: 1 + math.sqrt(2 / 10_000) * rng.standard_normal() for size in SIZES}
    law = power_law(0.2, 3, 0.5)
    sweep = made(lambda cell: law(cell) * noise[cell.size], lambda cell: 0.19, models=("ridge",), classes=0)
    found = verdict_of(sweep)
    assert found.score == "R²" and "validation R²" in line(sweep, "Best")
    assert found.best.standard_error == pytest.approx((1 - found.best.validation) * math.sqrt(2 / 10_000))
    assert found.more_data.interval[0] < 1 - 0.2 - 3 * 40_000**-0.5 < found.more_data.interval[1]
    awful = verdict_of(made(lambda cell: 1e6 / cell.size**2, classes=0, models=("ridge",)))
    assert awful.more_data.interval[1] <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sweep",
    [
        made(lambda cell: 0.1, failed=lambda cell: "no memory"),
        made(lambda cell: math.nan),
        made(lambda cell: math.nan if cell.C == 1 else 0.1, strengths=(1.0, 0.1)),
        made(lambda cell: 0.1, failed=lambda cell: "no memory" * (cell.seed == 1), seeds=(0, 1)),
        made(lambda cell: 0.1, failed=lambda cell: "no memory" * (cell.size > 1000), seeds=(0, 1, 2)),
        made(lambda cell: 0.1, sizes=(20_000, 100, 3000, 500, 1000), strengths=(0.1, 1.0, 0.5)),
        made(lambda cell: 1.0, lambda cell: 1.0),
        made(lambda cell: 0.0, classes=0, models=("ridge",)),
        made(lambda cell: math.inf, classes=0, models=("ridge",)),
    ],
)
def test_whatever_cells_there_are_a_verdict_is_words_and_json(sweep):
    found = verdict_of(sweep)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["n_validation"] == 10_000
    assert all(text.endswith(".") and "nan" not in text for text in found.lines())
    if found.best is None:
        assert found.lines()[0] == "No cell has a score: nothing can be told."
