"""The jobs of Boltzmann machines and of deep belief networks: what they read, save, print, log and refuse."""

import inspect
import json
from types import SimpleNamespace

import matplotlib.image
import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs import dbn, predict, rbm
from jobs._training import FineTuningConfig, MachineConfig
from jobs.dbn import DBNConfig
from jobs.rbm import RBMConfig

QUIET = ("--engine.kind", "serial", "--threads", "1", "--tracking.enabled", "false")
ROWS = ("--source", "x.npy", "--hold-out", "40", "--divide-by", "255")
LABELLED = (*ROWS, "--labels", "y.npy", "--hidden", "6,4", "--pretraining.epochs", "2", "--fine-tuning.epochs", "2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``x.npy`` (160, 9) as bytes and ``y.npy`` of three classes; the current folder."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    rows = (rng.normal(size=(160, 9)) * 10 + 90 * np.eye(3, 9)[labels] + 100).clip(0, 255).astype(np.uint8)
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "y.npy", labels * 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures_of(out):
    with open(f"{out}/result.json") as file:
        return json.load(file)


def weights_of(model):
    return np.concatenate([values.ravel() for values in (*model.coefs_, *model.intercepts_)])


def test_a_machine_is_that_of_the_library(folder, capsys):
    options = ("--n-hidden", "6", "--epochs", "3", "--batch-size", "20", "--sample-steps", "20")
    assert rbm.main([*ROWS, *options, *QUIET, "--out", "out"]) == 0
    x = np.load("x.npy")
    expected = lp.RBM(6, epochs=3, batch_size=20, divide_by=255, threads=1)
    with lp.open_engine("serial") as engine:
        expected.fit(x[:120], validation=x[120:], engine=engine)
    found, loaded = figures_of("out"), lp.RBM.load("out/model.safetensors")
    np.testing.assert_array_equal(loaded.components_, expected.components_)
    for name in ("train_reconstruction_error", "validation_pseudo_likelihood", "validation_free_energy"):
        assert [epoch[name] for epoch in found["history"]] == [epoch[name] for epoch in expected.history_]
    assert (found["units"], found["n_parameters"], found["n_validation"]) == ([9, 6], 69, 40)
    assert 0 < found["peak_memory_bytes"] <= found["plan"]["peak_bytes"]
    pictures = ("training_curves", "filters", "reconstructions", "samples")
    assert all(matplotlib.image.imread(f"out/{name}.png").std() > 0.02 for name in pictures)
    said = capsys.readouterr().out
    assert "machine   9-6, bernoulli visible units: 69 parameters" in said and "steps     18 of 20 rows" in said


def test_rows_that_are_no_images_have_no_pictures_of_them(folder):
    np.save("x.npy", np.load("x.npy")[:, :8] - 128.0)
    options = ("--source", "x.npy", "--visible", "gaussian", "--n-hidden", "4", "--epochs", "1", "--batch-size", "20")
    uri = f"sqlite:///{folder}/own.db"
    assert rbm.main([*options, *QUIET[:4], "--tracking.uri", uri, "--out", "out"]) == 0
    assert {path.name for path in (folder / "out").glob("*.png")} == {"training_curves.png", "filters.png"}
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(f"runs:/{figures_of('out')['mlflow']['run_id']}/model")
    x = np.load("x.npy")
    wanted = lp.RBM.load("out/model.safetensors").transform(x)
    np.testing.assert_allclose(model.predict(x), wanted, atol=1e-4)  # standardised by its weights


def test_a_belief_network_is_that_of_the_library_and_its_stack_is_used_again(folder, capsys):
    options = ("--fine-tuning.batch-size", "20", "--pretraining.batch-size", "20")
    assert dbn.main([*LABELLED, *options, *QUIET, "--state", "state", "--out", "out"]) == 0
    said = capsys.readouterr().out
    x, y = np.load("x.npy"), np.load("y.npy")
    both = {"epochs": 2, "batch_size": 20}
    expected = lp.DBN((6, 4), pretraining=both, fine_tuning=both, divide_by=255, threads=1)
    with lp.open_engine("serial") as engine:
        expected.fit(x[:120], y[:120], validation=(x[120:], y[120:]), engine=engine)
    found, loaded = figures_of("out"), lp.MLP.load("out/model.safetensors")
    np.testing.assert_array_equal(weights_of(loaded), weights_of(expected.network_))
    assert [epoch["stage"] for epoch in found["history"]] == 2 * ["rbm 1"] + 2 * ["rbm 2"] + 2 * ["fine-tuning"]
    assert found["units"] == [9, 6, 4, 3] and found["kept"]["stage"] == "fine-tuning"
    assert np.load("out/confusion.npy").sum() == 40
    assert "rbm 2     2 epochs; reconstruction error " in said and "of 2, the best: validation accuracy" in said
    assert "steps     12 of 20 rows" in said

    assert dbn.main([*LABELLED, "--stack", "out/stack.safetensors", *options, *QUIET, "--out", "again"]) == 0
    assert [epoch["stage"] for epoch in figures_of("again")["history"]] == 2 * ["fine-tuning"]
    np.testing.assert_array_equal(weights_of(lp.MLP.load("again/model.safetensors")), weights_of(loaded))
    assert dbn.main([*LABELLED, "--pretrain", "false", *options, *QUIET, "--out", "random"]) == 0
    assert not (folder / "random" / "stack.safetensors").exists()


def test_the_options_are_those_of_the_library():
    machine = inspect.signature(lp.RBM).parameters
    for name, parameter in machine.items():
        assert RBMConfig.model_fields[name].default == parameter.default, name
    for name, field in MachineConfig.model_fields.items():
        assert field.default == machine[name].default, name
    network = inspect.signature(lp.MLP).parameters
    for name, field in FineTuningConfig.model_fields.items():
        assert field.default == lp.DBN.FINE_TUNING.get(name, network[name].default), name
    for name, parameter in inspect.signature(lp.DBN).parameters.items():
        if name not in ("pretraining", "fine_tuning"):
            assert DBNConfig.model_fields[name].default == parameter.default, name


REFUSED = {
    "out of range": (rbm, {"--divide-by": "1"}, "x.npy"),
    "persistent processes": (rbm, {"--persistent": "true", "--processes": "2"}, "chains stay in one process"),
    "both": (rbm, {"--validation": "x.npy"}, "--hold-out: goes without validation"),
    "no such option": (dbn, {"--pretraining.hidden": "3"}, "--pretraining.hidden: unknown option"),
    "a rate": (dbn, {"--pretraining.learning-rate": "0"}, "--pretraining.learning-rate: '0': input should be greater"),
    "patience": (dbn, {"--hold-out": None, "--fine-tuning.patience": "3"}, "there are no validation rows to be"),
    "no layers": (dbn, {"--hidden": "none"}, "--hidden: "),
    "no stack": (dbn, {"--stack": "no.safetensors"}, "no.safetensors"),
    "two starts": (dbn, {"--stack": "x.npy", "--pretrain": "false"}, "--pretrain: false goes without a stack"),
    "other columns": (dbn, {"--unlabelled": "narrow.npy"}, "narrow.npy: 8 columns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_a_line_and_leave_nothing(folder, refused, case):
    np.save("narrow.npy", np.load("x.npy")[:, :8])
    job, changed, said = REFUSED[case]
    given = {"--source": "x.npy", "--hold-out": "40", "--divide-by": "255"}
    given |= {"--labels": "y.npy", "--hidden": "6,4"} if job is dbn else {"--n-hidden": "4", "--batch-size": "20"}
    assert said in refused(job.main, given | changed, "--out", "new/out", *QUIET)


def test_reports_of_the_flows(folder):
    from flows.dbn import table as of_dbn
    from flows.rbm import table as of_rbm

    assert rbm.main([*ROWS, "--n-hidden", "4", "--epochs", "1", *QUIET, "--out", "rbm"]) == 0
    assert dbn.main([*LABELLED, "--fine-tuning.batch-size", "20", *QUIET, "--out", "dbn"]) == 0
    lines = of_rbm(SimpleNamespace(figures=figures_of("rbm")))
    assert lines[0].startswith("- machine: 9-4") and any(line.startswith("| epoch | reconstruction") for line in lines)
    lines = of_dbn(SimpleNamespace(figures=figures_of("dbn")))
    assert lines[0].startswith("- rbm 1: 2 epochs") and any(line.startswith("| epoch | loss |") for line in lines)


def test_features_of_a_machine_and_codes_of_a_network_from_the_command_line(folder, capsys):
    assert rbm.main([*ROWS, "--n-hidden", "5", "--epochs", "1", "--batch-size", "20", *QUIET, "--out", "machine"]) == 0
    given = ["--model", "machine", "--source", "x.npy", "--out", "features.npy"]
    assert predict.main(given) == 0
    expected = lp.RBM.load("machine/model.safetensors").transform("x.npy")
    np.testing.assert_array_equal(np.load("features.npy"), expected)
    assert predict.main([*given, "--probabilities", "true"]) == 2
    options = ("--fine-tuning.batch-size", "20", "--pretraining.batch-size", "20", "--codes", "2,1")
    assert dbn.main([*LABELLED, *options, *QUIET, "--out", "deep", "--state", "states/"]) == 0
    table = (folder / "deep" / "codes.csv").read_text().splitlines()
    assert table[0] == "n_components,autoencoder,PCA" and len(table) == 3
    assert matplotlib.image.imread("deep/codes.png").std() > 0.02
    said = capsys.readouterr().out
    assert "1 codes" in said and "of as many principal components" in said
    again = [*LABELLED, *options, *QUIET, "--out", "again", "--state", "states/"]
    assert dbn.main(again) == 0
    assert (folder / "again" / "codes.csv").read_text().splitlines() == table
    for wrong, said in (("10", "codes: 10. Give 1 to 9"), ("0", "codes")):
        assert dbn.main([*LABELLED, "--codes", wrong, *QUIET, "--out", "no"]) == 2
        assert said in capsys.readouterr().err
