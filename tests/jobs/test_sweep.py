"""The job of sweeps: what it reads, saves, prints, logs and refuses."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import matplotlib.image
import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs import _sweep
from jobs._cli import parse
from jobs.sweep import SweepConfig, best_line, main
from lazypipe.models.sweep.verdict import verdict_of

QUIET = ("--tracking.enabled", "false", "--engine.kind", "serial")
GRID = ("--sizes", "20,60", "--strengths", "1,0.1,0.01", "--seeds", "0,1")
HELD = ("--source", "x.npy", "--labels", "y.npy", "--hold-out", "40")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``x.npy`` (160, 5) and ``y.npy`` of three classes; the first 120 rows, the others; the current folder."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160) * 10
    rows = (rng.normal(size=(160, 5)) + 2 * np.eye(3, 5)[labels // 10]).astype(np.float32)
    for name, part in {"": slice(None), "train_": slice(0, 120), "test_": slice(120, None)}.items():
        np.save(tmp_path / f"{name}x.npy", rows[part])
        np.save(tmp_path / f"{name}y.npy", labels[part])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(**options):
    train, test = (("train_x.npy", "train_y.npy"), ("test_x.npy", "test_y.npy"))
    with lp.open_engine("serial") as engine:
        options = {"sizes": [20, 60], "strengths": [1, 0.1, 0.01], "seeds": [0, 1]} | options
        return lp.regularization_sweep(train, test, engine=engine, **options)


def cells(out):
    with open(f"{out}/cells.csv", newline="") as file:
        return list(csv.DictReader(file))


def figures_of(out):
    with open(f"{out}/result.json") as file:
        return json.load(file)


def config_of(*arguments):
    return parse("sweep", SweepConfig, ["--source", "a", "--labels", "b", *arguments])


def test_a_tracked_run_saves_what_the_library_finds(jobs, folder):
    given = ("--source", "train_x.npy", "--labels", "train_y.npy", "--validation", "test_x.npy")
    said = jobs.ok(
        "sweep", *given, "--validation-labels", "test_y.npy", *GRID, "--out", "out", "--engine.kind", "serial"
    )
    expected, found = swept(), jobs.result("out")
    for name in ("confusion", "coef", "intercept"):
        np.testing.assert_array_equal(found[name], getattr(expected.best, name))
    assert (found["confusion"].sum(), found["coef"].shape, found["classes"]) == (40, (3, 5), [0, 10, 20])
    rows = cells("out")
    assert list(rows[0]) == expected.table.column_names
    for name in ("model", "size", "C", "seed", "status", "validation_accuracy", "passes"):
        assert [row[name] for row in rows] == [str(value) for value in expected.table[name].to_pylist()]
    assert found["n_cells"] == found["cells"]["done"] == len(rows) == 12
    assert (found["sizes"], found["strengths"], found["seeds"]) == ([20, 60], [1, 0.1, 0.01], [0, 1])
    assert found["passes"] == max(expected.table["passes"].to_pylist())
    assert found["verdict_lines"] == (lines := verdict_of(expected).lines())
    assert json.loads(json.dumps(verdict_of(expected).to_dict())) == found["verdict"]
    assert 0 < found["peak_memory_bytes"] <= found["plan"]["peak_bytes"]
    pictures = {"learning_curves", "heat_map", "confusion"}
    assert all(matplotlib.image.imread(f"out/{name}.png").std() > 0.02 for name in pictures)

    words = " ".join(said.split())
    assert words.startswith(" ".join(lines))
    best = expected.best.cell
    assert f"best logistic, C = {best['C']:g}, {best['size']} rows, seed {best['seed']}: accuracy" in words
    assert "cells 12 of 12 done; " in words and "result out" in words and "browse mlflow ui" in words

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    run = mlflow.get_run(re.search(r"run (\w{32})", said)[1])
    client = mlflow.MlflowClient()
    assert lines[0] in run.data.tags["mlflow.note.content"]
    assert run.data.params["sizes"] == "[20, 60]"
    assert run.data.metrics["best_validation_accuracy"] == best["validation_accuracy"]
    history = client.get_metric_history(run.info.run_id, "by_size/validation_accuracy")
    assert [point.step for point in history] == [20, 60]
    assert history[1].value == pytest.approx(expected.cube()[0, :, 1].mean(axis=1).max())
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"result.json", "cells.csv", *(f"{name}.png" for name in pictures)}

    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert [child.info.run_name for child in below] == ["size 20", "size 60"]
    child = below[1]
    assert (child.data.params["size"], child.data.params["strengths"]) == ("60", "0.01, 0.1, 1")
    points = client.get_metric_history(child.info.run_id, "validation_accuracy")
    assert [point.step for point in points] == [0, 1, 2]
    np.testing.assert_allclose([point.value for point in points], expected.cube()[0, ::-1, 1].mean(axis=1))
    assert [point.value for point in client.get_metric_history(child.info.run_id, "C")] == [0.01, 0.1, 1]
    assert "0: C = 0.01, 1: C = 0.1" in child.data.tags["mlflow.note.content"]
    table = mlflow.artifacts.load_text(f"runs:/{child.info.run_id}/cells.csv").splitlines()
    assert table[0].startswith("C,seed,validation_accuracy,train_accuracy,status") and len(table) == 7


def test_help_teaches_with_examples(jobs):
    said = jobs.ok("sweep", "--help")
    assert "\n  python -m jobs sweep --source data/train.npy --labels data/train.labels.npy --hold-out 0.2\n" in said
    assert "--sizes INT [INT ...]" in said
    assert "1, 0.1, 0.01 and 0.001, and with deep or dbn 1000, 100, 10 and 1" in " ".join(said.split())
    assert "{logistic,sgd,mlp,deep,dbn,ridge}" in said
    words = " ".join(said.split())
    assert "fewer than 1,000 steps" in words and "Not for ridge" in words and "in the order of the file" in words


def test_plan_tells_and_does_nothing(jobs, folder):
    before = sorted(folder.rglob("*"))
    said = jobs.ok("plan", "sweep", *HELD, *GRID, "--state", "state", *QUIET)
    assert "120 rows x 5 columns, float32" in said and "12 of 12 cells to do" in said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("share", ["40", "0.25"])
def test_the_last_rows_may_be_held_out(folder, share):
    assert main(["--source", "x.npy", "--labels", "y.npy", "--hold-out", share, *GRID, *QUIET, "--out", "out"]) == 0
    expected = swept()
    accuracies = [float(row["validation_accuracy"]) for row in cells("out")]
    assert accuracies == expected.table["validation_accuracy"].to_pylist()
    np.testing.assert_array_equal(np.load("out/coef.npy"), expected.best.coef)
    found = figures_of("out")
    assert found["source"]["shape"] == [160, 5] and (found["n_rows"], found["n_validation"]) == (120, 40)
    assert found["validation"]["uri"].endswith("x.npy[120:]")


def test_several_models_have_sections_of_their_own(folder, capsys):
    options = ("--model", "logistic,sgd", "--epochs", "2", "--engine.kind", "serial", "--tracking.uri")
    assert main([*HELD, *GRID, "--out", "out", *options, f"sqlite:///{folder}/own.db"]) == 0
    said = capsys.readouterr().out
    assert "Models: " in said and re.search(r" 60 +sgd +", said)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/own.db")
    below = mlflow.search_runs(experiment_names=["sweep"], output_format="list")
    children = [run for run in below if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 2
    assert {"logistic/validation_accuracy", "sgd/train_accuracy", "sgd/best_C"} <= set(children[0].data.metrics)


def test_a_regression_is_told_in_r2(folder, capsys):
    rows = np.load("x.npy")
    np.save("y.npy", rows @ np.arange(5.0) + np.random.default_rng(0).normal(size=len(rows)))
    assert main([*HELD, "--sizes", "20,60,120", "--model", "ridge", *QUIET, "--out", "out"]) == 0
    found = figures_of("out")
    assert (found["score"], found["classes"], found["best_classes"]) == ("R²", None, None)
    assert ": R² 0.9" in capsys.readouterr().out
    assert np.load("out/coef.npy").shape == (1, 5)
    assert not (folder / "out" / "confusion.npy").exists() and not (folder / "out" / "confusion.png").exists()


def test_rows_of_one_value_have_no_training_score(folder, capsys):
    np.save("y.npy", np.r_[np.ones(30), np.arange(130.0)])
    assert main([*HELD, "--sizes", "30", "--model", "ridge", *QUIET, "--out", "out"]) == 0
    assert figures_of("out")["best_by_size"][0]["train"] is None
    assert re.search(r" 30 +ridge +\S+ +- ", capsys.readouterr().out)


def test_a_second_run_takes_all_from_the_state_and_a_larger_grid_what_it_has(folder, capsys):
    given = [*HELD, "--state", "state", *QUIET, "--strengths", "1,0.1", "--seeds", "0,1", "--sizes"]
    assert main([*given, "20,60", "--out", "first"]) == 0
    records = {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*.*")}
    assert len(records) == 1 + 2 * 4
    assert main([*given, "20,60", "--out", "second"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*.*")} == records
    assert cells("first") == cells("second"), "seconds too: they are those of the first run"
    assert main([*given, "20,60,100", "--out", "third"]) == 0
    assert [row for row in cells("third") if row["size"] != "100"] == cells("first")
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert main([*given, "20,60", "--restart", "--out", "fourth"]) == 0
    assert not [row for row in cells("fourth") if row in cells("first")]


def test_ctrl_c_keeps_what_is_done(folder):
    """Of many tasks some are recorded when the signal comes; the next run goes on from there."""
    sizes = ",".join(map(str, range(110, 10, -1)))
    options = [*HELD, "--seeds", "0,1,2,3,4,5", *QUIET, "--state", "state", "--out", "out", "--sizes"]
    command = [sys.executable, "-m", "jobs", "sweep", *options, sizes]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while len(list(folder.glob("state/*/*.json"))) < 5:
            assert time.monotonic() < deadline and job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=30)
    assert (job.returncode, out) == (130, "")
    assert err.endswith("Interrupted.\nWhat was done is kept: the same command goes on from there.\n")
    assert not (folder / "out").exists()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("state/*/*.json")}
    assert 5 <= len(kept) < 600
    assert main([*options, "109,110"]) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_what_stopped_or_failed_is_counted(folder, capsys):
    rng = np.random.default_rng(1)  # noise beside two columns that tell: little regularization is far behind
    labels = np.repeat([0, 1], 400)[rng.permutation(800)]
    labels[:20] = 0
    np.save("x.npy", np.hstack([labels[:, None] + rng.normal(size=(800, 2)), 3 * rng.normal(size=(800, 60))]))
    np.save("y.npy", labels)
    options = ("--sizes", "10,60,80,120", "--strengths", "100,0.001", "--early-stopping", *QUIET, "--out", "out")
    assert main(["--source", "x.npy", "--labels", "y.npy", "--hold-out", "400", *options]) == 0
    counts = figures_of("out")["cells"]
    assert counts["failed"] == 2 and counts["done"] + counts["stopped"] == 6 and figures_of("out")["failure"] == ""
    said = " ".join(capsys.readouterr().out.split())
    assert "2 failed (all 10 rows are of class 0" in said and f"{counts['done']} of 8 done, 2 failed" in said


def test_where_every_cell_failed_the_job_fails_and_leaves_its_result(folder, capsys):
    np.save("y.npy", np.r_[np.zeros(119), np.ones(41)])
    uri = f"sqlite:///{folder}/own.db"
    options = ("--sizes", "20,60", "--engine.kind", "serial", "--tracking.uri", uri, "--out", "out")
    assert main([*HELD, *options]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("No cell has a score") and "best      none: no cell has a score" in said.out
    assert re.fullmatch(
        r"DataError: all 8 cells failed; the first \(logistic, C = 1, 20 rows\) says: all 20 rows are of class 0.*\. "
        r"What each of them said is in out/cells\.csv\.\n",
        said.err,
    )
    assert figures_of("out")["best"] is None and figures_of("out")["failure"].startswith("all 8 cells failed")
    assert {row["status"] for row in cells("out")} == {"failed"}
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=["sweep"], output_format="list")
    states = {run.info.run_name: run.info.status for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert states == {"size 20": "FAILED", "size 60": "FAILED"}
    (failed,) = [run for run in runs if run.info.run_name == "size 20"]
    assert failed.data.tags["error"].startswith("all cells failed: all 20 rows are of class 0")


def test_rows_that_also_validate_are_told(folder, capsys):
    given = ("--source", "x.npy", "--labels", "y.npy", "--validation", "x.npy", "--validation-labels", "y.npy")
    assert main([*given, "--sizes", "20", *QUIET, "--out", "out"]) == 0
    assert re.fullmatch(r"Warning: \S+x.npy: is also what validates: .*\n", capsys.readouterr().err)


def test_sizes_beyond_the_data_may_be_left_out(folder, capsys):
    assert main([*HELD, "--sizes", "60,5000", "--allow-smaller", *QUIET, "--out", "out"]) == 0
    assert figures_of("out")["sizes"] == [60]
    assert main([*HELD, *QUIET, "--out", "default"]) == 0
    assert figures_of("default")["sizes"] == [50]


def test_many_sizes_have_runs_for_some(monkeypatch, folder):
    monkeypatch.setattr(_sweep, "MOST_CHILDREN", 3)
    sweep = swept(sizes=range(20, 30), strengths=[1], seeds=None)
    names = [child.name for child in _sweep.children(sweep, _sweep.means_of(sweep))]
    wanted = {20, 24, 29, sweep.best.cell["size"]}
    assert names == [f"size {size}" for size in sorted(wanted)]


def test_parameters_of_a_run_below_are_cut_as_those_of_its_parent(folder):
    sweep = replace(swept(sizes=[20], strengths=[1], seeds=[0]), seeds=tuple(range(1000)))
    (child,) = _sweep.children(sweep, _sweep.means_of(sweep))
    assert len(child.parameters["seeds"]) == 500 and child.parameters["seeds"].startswith("0, 1, 2")


def test_a_best_cell_that_could_not_be_fitted_again_is_told():
    assert best_line({"best": None, "best_by_size": []}) == "none: no cell has a score"
    assert best_line({"best": None, "best_by_size": [{}]}).startswith("not saved: it could not be fitted again")


def test_lists_may_be_written_in_many_ways():
    config = config_of(
        "--hold-out", "5", "--sizes", "200", "50", "--strengths", "1e-2,1", "--seeds=3", "--model", "mlp",
        "--hidden", "500,500", "2000",
    )  # fmt: skip
    assert config.hidden == (500, 500, 2000) and config_of("--hold-out", "5", "--hidden", "64").hidden == (64,)
    assert (config.sizes, config.strengths, config.seeds, config.model) == ((50, 200), (1, 0.01), (3,), ("mlp",))
    values = {"source": "a", "labels": "b", "hold_out": 0.5, "sizes": 50, "strengths": [1, 2], "model": "sgd"}
    config = SweepConfig.model_validate(values)
    assert (config.sizes, config.strengths, config.seeds, config.model) == ((50,), (2, 1), None, ("sgd",))
    assert SweepConfig.model_validate(config.model_dump(mode="json")) == config


VALIDATION = {"--hold-out": None, "--validation": "test_x.npy", "--validation-labels": "test_y.npy"}
REFUSED = {
    "no labels": ({"--labels": None}, "--labels: is missing; pass it"),
    "nothing to validate on": ({"--hold-out": None}, "--hold-out: is missing: there is nothing to validate on"),
    "both": (VALIDATION | {"--hold-out": "40"}, "--hold-out: goes without validation; give one of the two"),
    "half a validation": (
        VALIDATION | {"--validation-labels": None},
        "--validation-labels: is missing; give the labels",
    ),
    "the other half": ({"--validation-labels": "test_y.npy"}, "--validation-labels: has no validation"),
    "all held out": (
        {"--hold-out": "160"},
        "hold_out: 160 of the 160 rows of {folder}/x.npy leaves none to learn from",
    ),
    "more held out": ({"--hold-out": "1000"}, "leaves none to learn from. Give 1 to 159"),
    "none held out": ({"--hold-out": "0"}, "--hold-out: 0 is neither a number of rows nor a share of them"),
    "nan held out": ({"--hold-out": "nan"}, "--hold-out: nan is neither a number of rows nor a share of them"),
    "inf held out": ({"--hold-out": "inf"}, "--hold-out: inf is neither a number of rows nor a share of them"),
    "more than can be": ({"--hold-out": "1" + 400 * "0"}, "--hold-out: 10000000000000000000 is neither"),
    "C beyond a float": ({"--strengths": "1" + 400 * "0"}, "--strengths: a whole number of more than 308 digits"),
    "no whole rows": ({"--hold-out": "1.5"}, "--hold-out: 1.5 is neither a number of rows nor a share of them"),
    "a share of no row": ({"--hold-out": "0.001"}, "leaves none to validate on"),
    "missing source": ({"--source": "no.npy"}, "no.npy: no such file or directory"),
    "missing labels": ({"--labels": "no.npy"}, "no.npy: no such file or directory"),
    "missing validation": (VALIDATION | {"--validation": "no.npy"}, "no.npy: no such file or directory"),
    "missing labels of it": (VALIDATION | {"--validation-labels": "no.npy"}, "no.npy: no such file or directory"),
    "other rows": ({"--labels": "test_y.npy"}, "test_y.npy: "),
    "other rows of it": (VALIDATION | {"--validation-labels": "y.npy"}, "y.npy: "),
    "other columns": (VALIDATION | {"--validation": "narrow.npy"}, "narrow.npy: 4 columns for validation, but"),
    "one class": ({"--labels": "one.npy"}, "are of class 0.0. Give two classes."),
    "unseen class": (
        {"--labels": "unseen.npy"},
        "class 7 (first at row 5 of {folder}/x.npy[120:]) is of no training row",
    ),
    "no classes": ({"--labels": "fractions.npy"}, "different numbers with fractions are no classes"),
    "size beyond": ({"--sizes": "60,500"}, "x.npy[:120]: has 120 rows, too few for sizes 500. Allow smaller ones"),
    "sizes beyond": ({"--sizes": "500", "--allow-smaller": "true"}, "too few for sizes 500. Give smaller sizes."),
    "size 0": ({"--sizes": "0,60"}, "--sizes: 0 is no number of rows"),
    "half a size": ({"--sizes": "60.5"}, "--sizes: 60.5 is not a whole number"),
    "size twice": ({"--sizes": "60,20,60"}, "--sizes: 60 is there twice. Give each once."),
    "C 0": ({"--strengths": "1,0"}, "--strengths: C = 0 is no strength. Give numbers above 0; less regularizes more"),
    "C below 0": ({"--strengths": "-1"}, "--strengths: C = -1 is no strength"),
    "C without end": ({"--strengths": "inf"}, "--strengths: C = inf is no strength"),
    "C no number": ({"--strengths": "1,x"}, "--strengths: 'x' is no number"),
    "C twice": ({"--strengths": "1,1.0"}, "--strengths: 1.0 is there twice"),
    "seed twice": ({"--seeds": "0,0"}, "--seeds: 0 is there twice"),
    "seed below 0": ({"--seeds": "-1"}, "--seeds: -1 is negative"),
    "no such model": ({"--model": "logistic,svm"}, "--model: 'svm' is not one of logistic, sgd, mlp, deep, dbn, ridge"),
    "model twice": ({"--model": "sgd,sgd"}, "--model: sgd is there twice"),
    "two kinds": ({"--model": "logistic,ridge"}, "--model: ridge is a regression, the others sort into classes"),
    "divide by 0": ({"--divide-by": "0"}, "--divide-by: '0': input should be greater than 0"),
    "restart what": ({"--restart": "true"}, "--restart: there is no state to forget"),
    "state in the result": ({"--state": "new/out/state"}, "new/out/state lies in the result folder new/out"),
    "labels in the result": ({"--labels": "new/out/y.npy"}, "y.npy"),
    "no stack": ({"--model": "dbn"}, "dbn: there is no stack to start from. Give pretrained= (--pretrained)"),
    "no units": ({"--model": "mlp", "--hidden": "64,0"}, "--hidden: 0 is not a number of 1 or more"),
    "no epochs": ({"--epochs": "0"}, "--epochs: '0': input should be greater than or equal to 1"),
    "budget": ({"--engine.memory": "1MiB"}, "memory: 1MiB is too small"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_a_line_and_leave_nothing(folder, refused, case):
    labels, fractions = np.load("y.npy"), np.linspace(0, 1, 160)
    np.save("one.npy", np.zeros(160))
    np.save("fractions.npy", fractions)
    np.save("narrow.npy", np.load("test_x.npy")[:, :4])
    labels[125] = 7
    np.save("unseen.npy", labels)
    changed, said = REFUSED[case]
    given = {"--source": "x.npy", "--labels": "y.npy", "--hold-out": "40", "--sizes": "20,60"} | changed
    if "--validation" in changed:
        given |= {"--source": "train_x.npy", "--labels": "train_y.npy"}
    assert said.format(folder=folder) in refused(main, given, "--out", "new/out", *QUIET)


@pytest.mark.parametrize(
    ("row", "named"), [(17, r"x\.npy\[:120\]: NaN at row 17"), (130, r"x\.npy\[120:\]: NaN at row 10")]
)
def test_a_nan_is_named_by_row_and_column(folder, capsys, row, named):
    values = np.load("x.npy")
    values[row, 3] = np.nan
    np.save("x.npy", values)
    assert main([*HELD, "--sizes", "60", "--out", "new/out", *QUIET]) == 2
    told = capsys.readouterr().err
    assert re.search(named + ", column 3", told) and told.count("\n") == 1
    assert not (folder / "new").exists()


def test_a_failed_sweep_is_tracked_as_failed(folder, capsys):
    np.save("x.npy", np.where(np.arange(800).reshape(160, 5) == 33, np.nan, np.load("x.npy")))
    uri = f"sqlite:///{folder}/own.db"
    assert main([*HELD, "--sizes", "60", "--out", "out", "--engine.kind", "serial", "--tracking.uri", uri]) == 2
    mlflow.set_tracking_uri(uri)
    (run,) = mlflow.search_runs(experiment_names=["sweep"], output_format="list")
    assert run.info.status == "FAILED" and "NaN at row 6, column 3" in run.data.tags["error"]
