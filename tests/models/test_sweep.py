"""The sweep as a whole: its table, its laws, its records, and what it refuses."""

import json

import numpy as np
import pytest
from scipy import sparse

import lazypipe as lp
from lazypipe.io import open_matrix
from lazypipe.io.examples import Examples
from lazypipe.models.sweep import pruning
from lazypipe.models.sweep.cells import SCHEMA, TIMED, Cell, table_of
from lazypipe.models.sweep.rows import Prefix, shuffled

SIZES, STRENGTHS = [20, 60, 200], [1.0, 0.01]


def letters(n, seed=0, width=12, n_classes=3):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, width))
    y = random.integers(0, n_classes, n)
    return (centres[y] + random.normal(size=(n, width))).astype(np.float32), np.array(list("CAB"))[y]


@pytest.fixture(scope="module")
def train():
    return letters(300)


@pytest.fixture(scope="module")
def valid():
    return letters(150, seed=1)


def untimed(sweep):
    return sweep.table.drop_columns(list(TIMED))


def sweep_of(train, valid, engine, **options):
    return lp.regularization_sweep(
        train, valid, **({"sizes": SIZES, "strengths": STRENGTHS, "engine": engine} | options)
    )


@pytest.fixture(scope="module")
def swept(train, valid, serial_engine):
    return sweep_of(train, valid, serial_engine, seeds=[0, 1])


def test_a_row_a_cell(swept):
    table = swept.table
    assert table.schema == SCHEMA and len(table) == 12
    assert set(table["status"].to_pylist()) == {"done"} and all(table["converged"].to_pylist())
    cells = list(zip(*(table[name].to_pylist() for name in ("seed", "size", "C")), strict=True))
    assert cells == [(seed, size, C) for seed in (0, 1) for size in SIZES for C in STRENGTHS]
    assert max(table["gap"].to_pylist()) <= 5e-7
    assert swept.classes.tolist() == ["A", "B", "C"] and swept.n_features == 12


def test_accuracies_are_those_of_the_best_plane_by_hand(swept, train, valid):
    best = swept.best
    cell = best.cell
    order = shuffled(len(train[0]), cell["seed"])[: cell["size"]]
    for (X, y), column in (((train[0][order], train[1][order]), "train_accuracy"), (valid, "validation_accuracy")):
        said = swept.classes[best.present[(X @ best.coef.T + best.intercept).argmax(axis=1)]]
        assert (said == y).mean() == cell[column]
    assert np.trace(best.confusion) / best.confusion.sum() == cell["validation_accuracy"]
    assert best.confusion.sum(axis=1).tolist() == [(valid[1] == name).sum() for name in swept.classes]


def test_the_best_cell_has_the_highest_mean_over_seeds(swept):
    means = swept.table.group_by(["size", "C"]).aggregate([("validation_accuracy", "mean")]).to_pylist()
    highest = max(mean["validation_accuracy_mean"] for mean in means)
    cell = swept.best.cell
    assert any(
        (mean["size"], mean["C"]) == (cell["size"], cell["C"]) and mean["validation_accuracy_mean"] == highest
        for mean in means
    )


def test_scores_that_are_not_in_the_sweep(swept):
    assert swept.scores("logistic", 1.0).shape == (3, 2)
    with pytest.raises(lp.ConfigError, match=r"^strength: 0.5 is not in the sweep, which has 1.0, 0.01\.$"):
        swept.scores("logistic", 0.5)
    with pytest.raises(lp.ConfigError, match="^model: 'mlp' is not in the sweep, which has logistic"):
        swept.scores("mlp", 1.0)


def test_rows_as_given_are_prefixes_and_depend_on_nothing_behind_them(train, valid, serial_engine):
    X, y = train
    whole = sweep_of(train, valid, serial_engine, sizes=[20, 60])
    cut = sweep_of((X[:60], y[:60]), valid, serial_engine, sizes=[60])
    assert whole.table["seed"].null_count == 4
    by_hand = lp.regularization_sweep((X[:60].copy(), y[:60]), valid, strengths=STRENGTHS, engine=serial_engine)
    assert cut.sizes == (60,) and by_hand.sizes == (50,)
    for C in STRENGTHS:
        one, other = (
            sweep.table.filter((sweep.table["size"].to_numpy() == 60) & (sweep.table["C"].to_numpy() == C))
            for sweep in (whole, cut)
        )
        assert one["objective"][0].as_py() == pytest.approx(other["objective"][0].as_py(), rel=1e-6)


def test_larger_prefixes_of_a_seed_hold_the_smaller():
    small, large = set(shuffled(1000, 3)[:50].tolist()), set(shuffled(1000, 3)[:400].tolist())
    assert small < large and len(large) == 400 and large != set(shuffled(1000, 4)[:400].tolist())


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize("hold", [True, False])
def test_the_rows_of_a_prefix(tmp_path, seed, hold):
    X = (np.arange(90 * 7).reshape(90, 7) % 101).astype(np.uint8)
    np.save(tmp_path / "x.npy", X)
    examples = Examples(open_matrix(tmp_path / "x.npy"), np.arange(90, dtype=np.int32), divide_by=4.0)
    shift = np.linspace(0, 1, 7)
    prefix = Prefix(examples, 40, seed, shift, hold=hold, step=11)
    wanted = np.arange(40) if seed is None else np.sort(shuffled(90, seed)[:40])
    rows = np.vstack([values.copy() for _, values in prefix.blocks()])
    np.testing.assert_array_equal(prefix.targets, wanted)
    np.testing.assert_allclose(rows, X[wanted] / 4 - shift, atol=1e-6)
    some = [part for part, _ in prefix.blocks(every=2)]
    assert some == [slice(0, 11), slice(22, 33)]


def test_every_engine_has_the_bits_of_serial(swept, train, valid, cluster_engine):
    again = sweep_of(train, valid, cluster_engine, seeds=[0, 1])
    assert untimed(again).equals(untimed(swept))
    np.testing.assert_array_equal(again.best.coef, swept.best.coef)


def test_a_larger_grid_leaves_the_cells_of_other_sizes_as_they_were(swept, train, valid, serial_engine):
    more = sweep_of(train, valid, serial_engine, seeds=[0, 1], sizes=[20, 40, 60, 200])
    rows = [row for row in untimed(more).to_pylist() if row["size"] != 40]
    assert rows == untimed(swept).to_pylist()


def test_streamed_rows_come_to_the_same(train, valid, serial_engine):
    held = sweep_of(train, valid, serial_engine)
    with lp.open_engine("serial", memory="16MiB") as small:
        X, y = letters(20_000, width=80)
        sizes = [200, 20_000]
        one = sweep_of((X, y), letters(50, 2, 80), small, sizes=sizes)
        assert "read anew in every pass" in repr(one.plan_)
    other = sweep_of((X, y), letters(50, 2, 80), serial_engine, sizes=sizes)
    np.testing.assert_allclose(one.table["objective"], other.table["objective"], rtol=1e-6)
    assert held.best is not None


def test_sparse_rows_come_to_the_same_as_dense_ones(train, valid, serial_engine, tmp_path):
    X = np.where(np.abs(train[0]) > 1, train[0], 0)
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array(X))
    dense, other = (sweep_of((x, train[1]), valid, serial_engine) for x in (X, tmp_path / "x.npz"))
    assert "sparse rows are read as dense ones" in repr(other.plan_)
    np.testing.assert_allclose(other.table["objective"], dense.table["objective"], rtol=1e-6)


def test_rows_wider_than_memory(tmp_path):
    """No more rows than columns and none of them held: read by stripes."""
    X, y = letters(200, width=60_000)
    np.save(tmp_path / "x.npy", X)
    with lp.open_engine("serial", memory="120MiB") as small, lp.open_engine("serial", memory="2GiB") as large:
        one, other = (
            sweep_of((tmp_path / "x.npy", y), (X[:9], y[:9]), engine, sizes=[200], strengths=[0.1])
            for engine in (small, large)
        )
        assert "read anew" in repr(one.plan_) and "read anew" not in repr(other.plan_)
    assert untimed(one).equals(untimed(other)) and one.table["converged"][0].as_py()
    np.testing.assert_array_equal(one.best.coef, other.best.coef)


# Records


class Counting:
    """An engine that counts the tasks it is given."""

    def __init__(self, engine):
        self._engine, self.tasks = engine, []

    def map(self, function, tasks, plan):
        self.tasks += tasks
        return self._engine.map(function, tasks, plan)

    def __getattr__(self, name):
        return getattr(self._engine, name)


def test_finished_cells_are_taken_from_the_state_and_a_larger_grid_adds_to_them(train, valid, serial_engine, tmp_path):
    engine = Counting(serial_engine)
    options = {"state": tmp_path / "state", "seeds": [0]}
    first = sweep_of(train, valid, engine, **options)
    assert [(task.size, task.strengths) for task in engine.tasks] == [(n, (1.0, 0.01)) for n in (200, 60, 20)]
    engine.tasks.clear()
    again = sweep_of(train, valid, engine, **options)
    assert not engine.tasks and again.table.equals(first.table)
    np.testing.assert_array_equal(again.best.confusion, first.best.confusion)
    np.testing.assert_array_equal(again.best.coef, first.best.coef)
    more = sweep_of(train, valid, engine, **options, sizes=[*SIZES, 100], strengths=[1.0, 0.1, 0.01])
    assert {(task.size, task.strengths) for task in engine.tasks} == {
        (20, (0.1,)), (60, (0.1,)), (200, (0.1,)), (100, (1.0, 0.1, 0.01))
    }  # fmt: skip
    assert len(more.table) == 12
    engine.tasks.clear()
    fewer = sweep_of(train, valid, engine, **options, strengths=[0.1])
    assert len(fewer.table) == 3 and fewer.best.cell["C"] == 0.1 and fewer.best.coef is not None


def test_records_of_other_data_or_options_are_not_mixed_in(train, valid, serial_engine, tmp_path):
    engine = Counting(serial_engine)
    sweep_of(train, valid, engine, state=tmp_path)
    engine.tasks.clear()
    X, y = train
    for changed in (
        {"train": (X + 1, y)}, {"train": (X, y[::-1].copy())}, {"divide_by": 2.0}, {"tol": 1e-6}
    ):  # fmt: skip
        other = {"train": train, "valid": valid, "engine": engine, "state": tmp_path} | changed
        sweep_of(**other)
        assert len(engine.tasks) == 3
        engine.tasks.clear()
    sweep_of(train, valid, engine, state=tmp_path, restart=True)
    assert len(engine.tasks) == 3


def test_torn_records_are_computed_again(train, valid, serial_engine, tmp_path):
    engine = Counting(serial_engine)
    first = sweep_of(train, valid, engine, state=tmp_path)
    records = sorted(path for path in tmp_path.glob("*/*.json") if path.name != "identity.json")
    records[0].write_text(records[0].read_text()[:-40])
    records[1].with_suffix(".npz").unlink()
    engine.tasks.clear()
    again = sweep_of(train, valid, engine, state=tmp_path)
    assert len(engine.tasks) == 2 and untimed(again).equals(untimed(first))


def test_failed_cells_are_tried_again(train, valid, serial_engine, tmp_path):
    X, y = train
    order = np.argsort(y, kind="stable")
    engine = Counting(serial_engine)
    sweep = sweep_of((X[order], y[order]), valid, engine, state=tmp_path)
    status = dict(zip(sweep.table["size"].to_pylist(), sweep.table["status"].to_pylist(), strict=True))
    assert status == {20: "failed", 60: "failed", 200: "done"}
    failed = sweep.table.to_pylist()[0]
    assert failed["note"].startswith("all 20 rows are of class A") and failed["validation_accuracy"] is None
    assert sweep.table.to_pylist()[-1]["note"] == "no row of class C"
    assert sweep.table.to_pylist()[-1]["n_classes"] == 2 and sweep.best.coef.shape == (1, 12)
    engine.tasks.clear()
    sweep_of((X[order], y[order]), valid, engine, state=tmp_path)
    assert [task.size for task in engine.tasks] == [60, 20]


def test_what_is_recorded_is_what_the_table_says(swept, train, valid, serial_engine, tmp_path):
    sweep = sweep_of(train, valid, serial_engine, state=tmp_path, seeds=[0])
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*.json") if path.name != "identity.json"]
    cells = [Cell(**cell) for record in records for cell in record["cells"]]
    assert table_of(cells).equals(sweep.table)


# Early stopping


def test_only_strengths_that_regularize_too_little_are_given_up():
    def cell(size, C, score):
        return Cell("logistic", size, C, None, "done", validation_accuracy=score)

    cells = [cell(n, C, score) for n in (100, 200) for C, score in ((1.0, 0.5), (0.1, 0.8), (0.01, 0.3))]
    found = pruning.hopeless(cells, 200, 1000, ())
    assert list(found) == [("logistic", None, 1.0)] and "given up at 200 rows" in found["logistic", None, 1.0]
    assert not pruning.hopeless(cells[:3], 100, 1000, ())
    assert not pruning.hopeless(cells, 200, 10, ())


def test_stopped_cells_are_in_the_table(valid, serial_engine):
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 150)).astype(np.float32)
    y = (X[:, 0] + random.normal(size=600) > 0).astype(int)
    held_out = random.normal(size=(60_000, 150)).astype(np.float32)
    truth = (held_out[:, 0] + random.normal(size=60_000) > 0).astype(int)
    options = {"sizes": [300, 400, 600], "strengths": [100.0, 0.01]}
    full = sweep_of((X, y), (held_out, truth), serial_engine, **options)
    early = sweep_of((X, y), (held_out, truth), serial_engine, **options, early_stopping=True)
    status = early.table["status"].to_pylist()
    assert "stopped" in status and len(early.table) == len(full.table)
    for one, other in zip(early.table.to_pylist(), full.table.to_pylist(), strict=True):
        assert one["status"] == "stopped" or one["validation_accuracy"] == other["validation_accuracy"]
    assert early.best.cell["validation_accuracy"] == full.best.cell["validation_accuracy"]


# What is refused


def refused(message, train, valid, serial_engine, kind=lp.DataError, **options):
    with pytest.raises(kind, match=message) as error:
        sweep_of(train, valid, serial_engine, **options)
    assert "\n" not in str(error.value)


def test_one_class_only(train, valid, serial_engine):
    refused("all 300 rows .* are of class A", (train[0], np.full(300, "A")), valid, serial_engine)


def test_a_validation_class_never_seen(train, valid, serial_engine):
    y = valid[1].copy()
    y[7] = "Z"
    refused(r"y_valid: class Z \(first at row 7", train, (valid[0], y), serial_engine)
    refused("labels of kind int64", train, (valid[0], np.zeros(150, int)), serial_engine)


def test_labels_that_do_not_match_the_rows(train, valid, serial_engine):
    refused("299 labels", (train[0], train[1][:-1]), valid, serial_engine)


def test_columns_that_do_not_match(train, valid, serial_engine):
    refused("11 columns for validation", train, (valid[0][:, 1:], valid[1]), serial_engine)


def test_sizes_beyond_the_data(train, valid, serial_engine):
    refused("has 300 rows, too few for sizes 301, 1,000", train, valid, serial_engine, sizes=[50, 1000, 301])
    refused("Give smaller sizes", train, valid, serial_engine, sizes=[1000], allow_smaller=True)
    assert sweep_of(train, valid, serial_engine, sizes=[50, 1000], allow_smaller=True).sizes == (50,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": [1.0, 0.0]}, "C = 0 is no strength"),
        ({"strengths": [-1.0]}, "C = -1 is no strength"),
        ({"strengths": [float("nan")]}, "C = nan is no strength"),
        ({"strengths": []}, "strengths: is empty"),
        ({"strengths": [1.0, 1]}, "1.0 is there twice"),
        ({"sizes": [50, 50]}, "50 is there twice"),
        ({"sizes": [0]}, "0 is no number of rows"),
        ({"sizes": [50.5]}, "50.5 is not a whole number"),
        ({"seeds": [0, 0]}, "0 is there twice"),
        ({"seeds": [-1]}, "-1 is negative"),
        ({"model": "svm"}, "'svm' is not one of logistic"),
        ({"model": ["logistic", "ridge"]}, "Sweep them apart"),
        ({"divide_by": 0}, "divide_by: 0"),
        ({"tol": 0.0}, "tol: 0.0"),
        ({"max_passes": 0}, "max_passes: 0"),
        ({"restart": True}, "no state to forget"),
    ],
)
def test_a_grid_that_cannot_be(train, valid, serial_engine, options, message):
    refused(message, train, valid, serial_engine, lp.ConfigError, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("seeds", [None, [0]])
def test_values_that_are_not_finite_are_named(train, valid, serial_engine, value, seeds):
    X = train[0].copy()
    X[13, 4] = value
    where = "row 13, column 4"
    refused(where, (X, train[1]), valid, serial_engine, seeds=seeds, sizes=[300])
    other = valid[0].copy()
    other[149, 11] = value
    refused("row 149, column 11", train, (other, valid[1]), serial_engine, seeds=seeds)


def test_fractions_are_no_classes(train, valid, serial_engine):
    refused("are no classes", (train[0], np.random.default_rng(0).normal(size=300)), valid, serial_engine)


def test_a_budget_that_is_too_small_is_refused_with_the_one_that_does(valid):
    X, y = letters(30, width=150_000)
    with (
        lp.open_engine("serial", memory="16MiB") as engine,
        pytest.raises(lp.MemoryPlanError, match="It fits in memory"),
    ):
        sweep_of((X, y), (X, y), engine, sizes=[20])
