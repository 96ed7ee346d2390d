"""The job of perceptrons: what it reads, saves, prints, logs and refuses."""

import csv
import inspect
import json
import re
import signal
import subprocess
import sys
import time
from typing import get_args

import matplotlib.image
import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs._cli import parse
from jobs._trained import epochs_table, unheard
from jobs.mlp import MLPConfig, main
from jobs.predict import main as predict
from lazypipe.nets.activations import ACTIVATIONS
from lazypipe.nets.device import DEVICES, MATMUL_PRECISIONS
from lazypipe.nets.initial import INITIALS
from lazypipe.nets.network import LOSSES, PRECISIONS
from lazypipe.nets.optimizers import DEFAULT_RATES, OPTIMIZERS
from lazypipe.nets.options import KEEPS
from lazypipe.nets.schedules import SCHEDULES
from lazypipe.progress import EpochDone

SERIAL = ("--engine.kind", "serial", "--threads", "1")
QUIET = (*SERIAL, "--tracking.enabled", "false")
SMALL = ("--hidden", "6", "--epochs", "3", "--batch-size", "20", "--divide-by", "10")
HELD = ("--source", "x.npy", "--labels", "y.npy", "--hold-out", "40")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``x.npy`` (160, 9) as bytes and ``y.npy`` of three classes; the current folder."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    rows = (rng.normal(size=(160, 9)) * 10 + 60 * np.eye(3, 9)[labels] + 100).clip(0, 255).astype(np.uint8)
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "y.npy", labels * 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(**options):
    x, y = np.load("x.npy"), np.load("y.npy")
    given = {"hidden": (6,), "epochs": 3, "batch_size": 20, "divide_by": 10, "threads": 1} | options
    with lp.open_engine("serial") as engine:
        return lp.MLP(**given).fit(x[:120], y[:120], validation=(x[120:], y[120:]), engine=engine)


def figures_of(out):
    with open(f"{out}/result.json") as file:
        return json.load(file)


def weights_of(out):
    model = lp.MLP.load(f"{out}/model.safetensors")
    return np.concatenate([values.ravel() for values in (*model.coefs_, *model.intercepts_)])


def test_a_tracked_run_saves_what_the_library_finds(jobs, folder):
    done = jobs("mlp", *HELD, *SMALL, *SERIAL, "--out", "out")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    expected, found = trained(), jobs.result("out")
    x, y = np.load("x.npy"), np.load("y.npy")
    loaded = lp.MLP.load("out/model.safetensors")
    for a, b in zip(loaded.coefs_ + loaded.intercepts_, expected.coefs_ + expected.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (loaded.predict(x) == expected.predict(x)).all()
    truth, predicted = y[120:] // 10, expected.predict(x[120:]) // 10
    np.testing.assert_array_equal(found["confusion"], np.histogram2d(truth, predicted, bins=range(4))[0])
    with open("out/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("epoch", "step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert [float(row[name]) for row in rows] == [epoch[name] for epoch in expected.history_]
        assert [epoch[name] for epoch in found["history"]] == [epoch[name] for epoch in expected.history_]
    assert (found["units"], found["classes"], found["n_validation"]) == ([9, 6, 3], [0, 10, 20], 40)
    assert (found["passes"], found["n_steps"], found["best_epoch"]) == (3, 18, expected.best_epoch_)
    assert found["samples_per_parameter"] == pytest.approx(120 / (9 * 6 + 6 + 6 * 3 + 3))
    assert found["kept"]["epoch"] == found["best_epoch"]
    assert 0 < found["peak_memory_bytes"] <= found["plan"]["peak_bytes"]
    pictures = {"training_curves", "filters", "confusion"}
    assert all(matplotlib.image.imread(f"out/{name}.png").std() > 0.02 for name in pictures)

    words = " ".join(said.split())
    assert "network 9-6-3, relu, cross_entropy: 81 parameters" in words
    assert f"kept epoch {expected.best_epoch_} of 3, the best: validation accuracy" in words
    assert "rows 120: 1.48 rows a parameter; the rule of thumb asks for 10 (810 rows)" in words
    assert "steps 18 of 20 rows, " in words and "cpu (1 threads), float32" in words

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    run = mlflow.get_run(re.search(r"run (\w{32})", said)[1])
    assert "9-6-3, relu, cross_entropy" in run.data.tags["mlflow.note.content"]
    assert (run.data.params["hidden"], run.data.params["matmul_precision"]) == ("[6]", "highest")
    assert run.data.metrics["samples_per_parameter"] == pytest.approx(120 / 81)
    assert run.data.metrics["kept_validation_accuracy"] == found["kept"]["validation_accuracy"]
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    wanted = [(epoch["step"], epoch["validation_loss"]) for epoch in expected.history_]
    assert [(point.step, point.value) for point in history] == wanted
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"result.json", "history.csv", *(f"{name}.png" for name in pictures)}
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert (model.predict(x) == expected.predict(x)).all()
    said = model.predict(x, params={"probabilities": True})
    np.testing.assert_allclose(said, expected.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(model.input_example, x[:3])


def test_the_options_are_those_of_the_library():
    given = inspect.signature(lp.MLP).parameters
    fields = MLPConfig.model_fields
    for name, parameter in given.items():
        wanted = parameter.default
        assert fields[name].default == ("all" if name == "batch_size" and wanted is None else wanted), name
    known = {
        "activation": set(ACTIVATIONS) - {"linear"},
        "loss": set(LOSSES) - {"binary_cross_entropy"},
        "initial": ("auto", *INITIALS),
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "keep": KEEPS,
        "device": DEVICES,
        "precision": PRECISIONS,
        "matmul_precision": MATMUL_PRECISIONS,
    }
    for name, values in known.items():
        assert set(get_args(fields[name].annotation)) == set(values), name
    told = fields["learning_rate"].description
    for rate in set(DEFAULT_RATES.values()):
        names = ", ".join(name for name, value in DEFAULT_RATES.items() if value == rate)
        assert f"{rate:g} ({names})" in told


def test_help_needs_no_torch_and_the_job_says_what_to_install(folder):
    program = "import sys; sys.modules['torch'] = None; from jobs.__main__ import main; sys.exit(main(sys.argv[1:]))"

    def call(*arguments):
        return subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)

    said = call("mlp", "--help")
    assert said.returncode == 0 and "\n  python -m jobs mlp --source data/train.npy" in said.stdout
    for job in (("mlp", *HELD, *QUIET), ("plan", "mlp", *HELD), ("devices",)):
        refused = call(*job)
        line = "ConfigError: networks need torch, not installed here. Run pip install 'lazypipe[nets]'.\n"
        assert (refused.returncode, refused.stderr, refused.stdout) == (2, line, "")
    assert not (folder / "results").exists()


def test_plan_tells_and_does_nothing(folder, capsys):
    from jobs.plan import main as plan

    before = sorted(folder.rglob("*"))
    assert plan(["mlp", *HELD, *SMALL, *QUIET, "--state", "state"]) == 0
    said = capsys.readouterr().out
    assert "120 rows x 9 columns, uint8" in said and "passes    3 expected" in said
    assert "network 9-6-3, relu, cross_entropy: 81 parameters" in said and "1.48 rows a parameter" in said
    assert sorted(folder.rglob("*")) == before


def test_without_validation_rows_it_says_so(folder, capsys):
    assert main(["--source", "x.npy", "--labels", "y.npy", *SMALL, *QUIET, "--out", "out"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "kept epoch 3, the last; training accuracy" in said and "nothing was validated" in said
    found = figures_of("out")
    assert (found["validation"], found["n_validation"], found["best_epoch"]) == (None, 0, None)
    assert not (folder / "out" / "confusion.npy").exists() and not (folder / "out" / "confusion.png").exists()


def test_rows_that_also_validate_are_told(folder, capsys):
    given = ("--source", "x.npy", "--labels", "y.npy", "--validation", "x.npy", "--validation-labels", "y.npy")
    assert main([*given, *SMALL, *QUIET, "--out", "out"]) == 0
    assert re.fullmatch(r"Warning: \S+x.npy: is also what validates: .*\n", capsys.readouterr().err)


def test_a_regression_is_told_in_r2(folder, capsys):
    rows = np.load("x.npy") / 100
    np.save("y.npy", rows @ np.arange(9.0))
    options = ("--loss", "squared_error", "--epochs", "200", "--batch-size", "20", "--hidden", "none", "--divide-by")
    assert main([*HELD, *options, "100", "--learning-rate", "0.1", *QUIET, "--out", "out"]) == 0
    found = figures_of("out")
    assert found["classes"] is None and found["units"] == [9, 1]
    said = capsys.readouterr().out
    assert found["kept"]["validation_r2"] > 0.5 and f"validation R² {found['kept']['validation_r2']:.4g}, loss" in said


def test_the_last_epoch_may_be_kept(folder, capsys):
    options = ("--learning-rate", "0.3", "--keep", "last")
    assert main([*HELD, *SMALL, *options, "--epochs", "8", "--patience", "2", *QUIET, "--out", "out"]) == 0
    found = figures_of("out")
    assert found["stopped_early"] and found["passes"] == found["best_epoch"] + 2 == found["kept"]["epoch"]
    assert (
        f"kept      epoch {found['passes']} of {found['passes']}, the last, stopped early: " in capsys.readouterr().out
    )


def test_a_resumed_run_ends_with_the_same_bits_and_has_the_metrics_of_all_epochs(folder):
    given = [*HELD, *SMALL, "--dropout", "0.2", *SERIAL]
    assert main([*given, "--epochs", "5", "--tracking.enabled", "false", "--out", "whole"]) == 0
    state, uri = (*given, "--state", "state"), f"sqlite:///{folder}/own.db"
    assert main([*state, "--epochs", "2", "--tracking.enabled", "false", "--out", "first"]) == 0
    assert main([*state, "--epochs", "5", "--tracking.uri", uri, "--out", "second"]) == 0
    np.testing.assert_array_equal(weights_of("whole"), weights_of("second"))
    found = figures_of("second")
    mlflow.set_tracking_uri(uri)
    history = mlflow.MlflowClient().get_metric_history(found["mlflow"]["run_id"], "train_loss")
    wanted = [(epoch["step"], epoch["train_loss"]) for epoch in found["history"]]
    assert sorted((point.step, point.value) for point in history) == wanted
    assert main([*given, "--state", "state", "--restart", "--epochs", "1", *QUIET, "--out", "third"]) == 0
    assert figures_of("third")["passes"] == 1


def test_ctrl_c_keeps_what_is_done(folder):
    options = [*HELD, *SMALL, *QUIET, "--epochs", "100000", "--state", "state", "--out", "out"]
    command = [sys.executable, "-m", "jobs", "mlp", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while not list(folder.glob("state/*last.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        assert job.wait(20) == 130
        told = job.stderr.read()
    assert told.endswith("Interrupted.\nWhat was done is kept: the same command goes on from there.\n")
    assert not (folder / "out").exists()


def test_lists_may_be_written_in_many_ways():
    def config_of(*arguments):
        return parse("mlp", MLPConfig, ["--source", "a", "--labels", "b", *arguments])

    config = config_of("--hidden", "8,4", "--image-shape", "3,3", "--batch-size", "all")
    assert (config.hidden, config.image_shape, config.batch_size) == ((8, 4), (3, 3), "all")
    config = config_of("--hidden", "8", "4", "--image-shape", "3", "4", "--batch-size=7")
    assert (config.hidden, config.image_shape, config.batch_size) == ((8, 4), (3, 4), 7)
    assert config_of("--hidden", "none").hidden == () and config_of("--hidden", "8").hidden == (8,)
    values = {"source": "a", "labels": "b", "hidden": 5, "batch_size": "all"}
    config = MLPConfig.model_validate(values)
    assert config.hidden == (5,)
    assert MLPConfig.model_validate(config.model_dump(mode="json")) == config


def test_predictions_are_those_of_the_library(folder, capsys):
    assert main([*HELD, *SMALL, *QUIET, "--out", "out"]) == 0
    model, x = lp.MLP.load("out/model.safetensors"), np.load("x.npy")
    given = ("--model", "out", "--source", "x.npy", "--out")
    assert predict([*given, "said.npy"]) == 0
    assert "wrote     said.npy: 160 int64\n" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load("said.npy"), model.predict(x))
    assert predict([*given, "p.npy", "--probabilities"]) == 0
    np.testing.assert_array_equal(np.load("p.npy"), model.predict_proba(x))
    capsys.readouterr()
    for wrong, said in (
        (("said.npy",), "said.npy: exists."),
        (("said.csv",), "--out: 'said.csv' does not end in .npy"),
        (("new.npy", "--model", "nowhere"), "nowhere"),
        (("new.npy", "--source", "y.npy"), "y.npy"),
    ):
        assert predict([*given, *wrong]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert not (folder / "new.npy").exists()


def test_a_long_history_is_shown_in_part():
    epochs = [{"epoch": i, "train_loss": 1 / i, "samples_per_second": 1000.0} for i in range(1, 101)]
    head, *rows = epochs_table(epochs, 33)
    assert head == ("epoch", "loss", "samples/s") and len(rows) <= 13
    assert (rows[0][0], rows[-1][0]) == ("1", "100") and "*33" in [row[0] for row in rows]


def test_what_mlflow_has_not_heard_of_is_sent_at_the_end():
    history = [{"stage": "", "epoch": i, "step": 10 * i, "train_loss": 1 / i, "seconds": 1.0} for i in (1, 2)]
    assert unheard(history, [EpochDone("", 2, 2, 20, {})]) == [("train_loss", 1.0, 10), ("epoch_seconds", 1.0, 10)]


REFUSED = {
    "no labels": ({"--labels": None}, "--labels: is missing; pass it"),
    "more held out": ({"--hold-out": "1000"}, "leaves none to learn from. Give 1 to 159"),
    "one class": ({"--labels": "one.npy"}, "are of class 0.0. Give two classes."),
    "unseen class": ({"--labels": "unseen.npy"}, "class 7 (first at row 5 of {folder}/x.npy[120:]) is of no training"),
    "other rows": ({"--labels": "short.npy"}, "short.npy: "),
    "fractions": ({"--labels": "fractions.npy"}, "different numbers with fractions are no classes"),
    "text in a regression": ({"--labels": "text.npy", "--loss": "squared_error"}, "holds text, where a regression"),
    "no such units": ({"--hidden": "0"}, "--hidden: 0: input should be greater than or equal to 1"),
    "units": ({"--hidden": "many"}, "--hidden: 'many' is no number"),
    "batch": ({"--batch-size": "some"}, "--batch-size: 'some' is no number"),
    "batch of 0": ({"--batch-size": "0"}, "--batch-size: '0' is no number of rows; give 1 or more, or all"),
    "a large batch": ({"--batch-size": "5000"}, "batch_size: 5,000 is more than the 120 rows of"),
    "optimizer": ({"--optimizer": "lbfgs"}, "--optimizer: 'lbfgs' is not one of gradient_descent, momentum"),
    "dropout": ({"--dropout": "1"}, "--dropout: '1': input should be less than 1"),
    "curvature of relu": ({"--optimizer": "curvature"}, "Give activation='tanh'"),
    "patience": ({"--hold-out": None, "--patience": "3"}, "--patience: there are no validation rows to be patient"),
    "image": ({"--image-shape": "4,4"}, "image_shape: 4,4 has 16 pixels, but {folder}/x.npy has 9 columns"),
    "half an image": ({"--image-shape": "4"}, "--image-shape: give two numbers"),
    "no image": ({"--image-shape": "0,9"}, "--image-shape: give height and width in pixels"),
    "restart what": ({"--restart": "true"}, "--restart: there is no state to forget"),
    "state in the result": ({"--state": "new/out/state"}, "new/out/state lies in the result folder new/out"),
    "budget": ({"--engine.memory": "16MiB", "--hidden": "9000,9000"}, "It fits in memory="),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_a_line_and_leave_nothing(folder, refused, case):
    labels = np.load("y.npy")
    np.save("one.npy", np.zeros(160))
    np.save("fractions.npy", np.linspace(0, 1, 160))
    np.save("short.npy", labels[:-1])
    np.save("text.npy", labels.astype(str))
    labels[125] = 7
    np.save("unseen.npy", labels)
    changed, said = REFUSED[case]
    given = {"--source": "x.npy", "--labels": "y.npy", "--hold-out": "40", "--hidden": "6", "--batch-size": "20"}
    assert said.format(folder=folder) in refused(main, given | changed, "--out", "new/out", *QUIET)


def test_cuda_where_there_is_none_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([*HELD, *SMALL, "--device", "cuda", *QUIET, "--out", "new/out"]) == 2
    told = capsys.readouterr().err
    assert "device: cuda was asked for, but torch" in told and told.count("\n") == 1
    assert not (folder / "new").exists()


def test_a_loss_that_is_no_number_ends_the_run(folder, capsys):
    options = ("--optimizer", "gradient_descent", "--learning-rate", "1e38")
    assert main([*HELD, *SMALL, *options, *QUIET, "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"DivergedError: loss is (nan|inf) at step \d+: .*Use a smaller learning_rate.*\n", told)
    assert not (folder / "out").exists()


def test_a_nan_is_named_by_row_and_column(folder, capsys):
    values = np.load("x.npy").astype(np.float32)
    values[17, 3] = np.nan
    np.save("x.npy", values)
    assert main([*HELD, *SMALL, *QUIET, "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert re.search(r"x\.npy\[:120\]: NaN at row 17, column 3", told) and told.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("7",), 'was made with network "9-6-3, relu, cross_entropy", this run has "9-7-3, relu'),
        (("6", "--labels", "other.npy"), "was made with labels"),
        (("6", "--source", "other_x.npy"), "was made with data"),
        (("6", "--learning-rate", "0.5"), "was made with learning_rate 0.001, this run has 0.5"),
    ],
)
def test_a_state_of_something_else_is_refused(folder, capsys, changed, said):
    given = [*HELD, "--epochs", "1", "--batch-size", "20", *QUIET, "--state", "state", "--hidden"]
    assert main([*given, "6", "--out", "first"]) == 0
    np.save("other.npy", np.roll(np.load("y.npy"), 1))
    np.save("other_x.npy", np.roll(np.load("x.npy"), 1))
    capsys.readouterr()
    assert main([*given, *changed, "--out", "second"]) == 2
    told = capsys.readouterr().err
    assert said in told and "--restart" in told and told.count("\n") == 1
    assert not (folder / "second").exists()
