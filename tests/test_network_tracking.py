"""Networks in MLflow: metrics by step in few calls, and models that need numpy alone."""

import subprocess
import sys
from itertools import pairwise

import clocks
import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import lazypipe as lp
from lazypipe import tracking
from lazypipe.progress import EpochDone, PassDone, StepsDone
from lazypipe.tracking import Record
from lazypipe.tracking.training import next_sending

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 16), dtype=np.uint8)


def layers(*units):
    """Made layers (weights, biases) of so many units, inputs first."""
    rng = np.random.default_rng(sum(units))
    return [
        (rng.normal(size=(b, a)).astype(np.float32), rng.normal(size=b).astype(np.float32)) for a, b in pairwise(units)
    ]


def reference(rows, layers, hidden, last):
    values = np.asarray(rows, np.float64)
    for i, (weight, bias) in enumerate(layers):
        values = (last if i == len(layers) - 1 else hidden)(values @ weight.T.astype(np.float64) + bias)
    return values


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.maximum(z, 0)


def same(z):
    return z


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    np.save(folder / "rows.npy", PIXELS)
    return folder


def open_run(store):
    return tracking.tracked_run(f"sqlite:///{store}/mlflow.db", "mlp", {}, lp.open_matrix(store / "rows.npy"))


def log_network(run, given, **options):
    tracking.log_network(run.uri, run.run_id, given, **options)


CLASSIFIER = layers(16, 12, 3)
RBMS = layers(16, 8, 5)


@pytest.fixture(scope="module")
def run(store):
    """A run with four models."""
    with open_run(store) as run:
        log_network(
            run,
            CLASSIFIER,
            classes=np.array(["cat", "dog", "emu"], object),
            divide_by=255,
            example=PIXELS,
            name="classifier",
        )
        log_network(run, CLASSIFIER, classes=[7, 8, 9], name="numbers")
        log_network(run, RBMS, activation="sigmoid", output="sigmoid", divide_by=255, name="features")
        log_network(run, layers(16, 4), output="linear", activation="tanh", name="values")
    return run


def load(run, name):
    mlflow.set_tracking_uri(run.uri)
    return mlflow.pyfunc.load_model(f"runs:/{run.run_id}/{name}")


@pytest.mark.parametrize(
    "given",
    [
        PIXELS, PIXELS.astype(np.float64), PIXELS.astype(np.float32), pd.DataFrame(PIXELS),
        pd.DataFrame(PIXELS.astype(float), columns=[f"p{i}" for i in range(16)]), scipy.sparse.csr_matrix(PIXELS),
        pd.DataFrame(PIXELS, dtype=object),
    ],
    ids=["uint8", "float64", "float32", "DataFrame", "named columns", "CSR", "objects"],
)  # fmt: skip
def test_a_classifier_comes_back_with_classes_and_probabilities(run, given):
    model = load(run, "classifier")
    wanted = reference(PIXELS / 255, CLASSIFIER, relu, softmax)
    np.testing.assert_allclose(model.predict(given, params={"probabilities": True}), wanted, rtol=1e-4, atol=1e-6)
    assert model.predict(given).tolist() == np.array(["cat", "dog", "emu"])[wanted.argmax(axis=1)].tolist()


def test_features_of_a_stack_of_rbms_and_linear_values(run):
    features = load(run, "features").predict(PIXELS)
    np.testing.assert_allclose(features, reference(PIXELS / 255, RBMS, sigmoid, sigmoid), rtol=1e-4, atol=1e-6)
    values = load(run, "values").predict(PIXELS)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, reference(PIXELS, layers(16, 4), None, same), rtol=1e-4, atol=1e-3)


def test_rows_beyond_a_block_and_none_at_all(run):
    model = load(run, "numbers")
    many = np.random.default_rng(1).normal(size=(5000, 16))
    wanted = reference(many, CLASSIFIER, relu, softmax)
    found = model.predict(many, params={"probabilities": True})
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
    assert set(model.predict(many).tolist()) <= {7, 8, 9}
    assert model.predict(many[:0]).shape == (0,)


def test_what_cannot_be_predicted_from_is_told(run):
    model = load(run, "numbers")
    with pytest.raises(ValueError, match=r"^rows have shape \(9, 15\); expected \(n, 16\)\.$"):
        model.predict(PIXELS[:, :15])
    with pytest.raises(ValueError, match=r"^rows have shape \(16,\); expected \(n, 16\)\.$"):
        model.predict(PIXELS[0])
    rows = np.zeros((5000, 16))
    rows[4500, 3] = np.nan
    with pytest.raises(ValueError, match=r"^row 4500: NaN, or a number too large"):
        model.predict(rows)


def test_the_model_tells_what_it_takes_and_gives(run):
    model = load(run, "classifier")
    assert model.metadata.signature.params.params[0].name == "probabilities"
    assert model.metadata.metadata["n_inputs"] == 16
    np.testing.assert_array_equal(model.input_example, PIXELS[:3])
    assert not load(run, "numbers").metadata.saved_input_example_info
    assert run.client.get_run(run.run_id).data.params == {}  # a model adds none to those of the run


def test_a_wide_network_is_logged_without_an_example(store):
    with open_run(store) as run:
        log_network(run, layers(5000, 2), classes=[0, 1], example=np.zeros((3, 5000)))
    model = load(run, "model")
    assert "left out" in model.metadata.metadata["input_example"]
    assert model.predict(np.zeros((2, 5000))).shape == (2,)


def test_the_code_of_a_model_needs_neither_lazypipe_nor_torch(store, run):
    program = (
        "import sys; sys.modules['lazypipe'] = sys.modules['torch'] = None; import mlflow; "
        f"mlflow.set_tracking_uri({run.uri!r}); model = mlflow.pyfunc.load_model('runs:/{run.run_id}/values'); "
        "import numpy as np; print(model.predict(np.ones((2, 16))).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=store, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 4)"


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (layers(4, 2), {"activation": "gelu"}, "activation 'gelu' is none of relu"),
        (layers(4, 2), {"output": "probit"}, "output 'probit' is none of softmax"),
        (layers(4, 2) + layers(3, 2), {}, r"layer 1 has weights \(2, 3\) and biases \(2,\) on 2 units"),
        (layers(4, 2), {"classes": [1, 2, 3]}, r"\(3,\) classes of int64 for 2 units of softmax"),
        (layers(4, 2), {"classes": [1, 2], "output": "linear"}, "of linear outputs"),
    ],
)
def test_layers_that_make_no_network_are_refused(given, options, said):
    with pytest.raises(lp.ConfigError, match=said):
        tracking.log_network("", "", given, **options)


def test_no_layers_are_refused():
    with pytest.raises(lp.ConfigError, match="log_network: there is no layer"):
        tracking.log_network("", "", [])


@pytest.fixture
def clock(monkeypatch):
    """Move the clock of the tracking by hand."""
    now = clocks.by_hand(monkeypatch, "lazypipe.tracking.run")

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def counted(run, monkeypatch, meanwhile=lambda: None):
    """How many metrics each call of log_batch had."""
    calls, log_batch = [], run.client.log_batch

    def count(*args, **kwargs):
        calls.append(len(kwargs["metrics"]))
        meanwhile()
        return log_batch(*args, **kwargs)

    monkeypatch.setattr(run.client, "log_batch", count)
    return calls


def history(run, name):
    return [(m.step, m.value) for m in run.client.get_metric_history(run.run_id, name)]


def test_steps_and_epochs_are_metrics_by_step(store):
    with open_run(store) as run:
        run(StepsDone("rbm 1", 10, {"reconstruction_error": 3.0}))
        run(StepsDone("", 20, {"loss": 0.5, "learning_rate": 0.1}))
        run(EpochDone("", 1, 2, 40, {"train_loss": 0.4, "validation_loss": float("nan"), "seconds": 2.5}))
        record = Record()
        record.add_metrics({"seconds": 60.0})
        assert run.finish(record, store) is None
    assert history(run, "rbm 1/reconstruction_error") == [(10, 3.0)]
    assert history(run, "loss") == [(20, 0.5)]
    assert history(run, "train_loss") == [(40, 0.4)]
    assert history(run, "epoch_seconds") == [(40, 2.5)] and history(run, "seconds") == [(0, 60.0)]
    ((step, value),) = history(run, "validation_loss")
    assert step == 40 and np.isnan(value)


def test_metrics_are_sent_together_every_two_seconds_and_at_the_end(store, clock, monkeypatch):
    with open_run(store) as run:
        calls = counted(run, monkeypatch)
        for step in range(1, 11):
            run(StepsDone("", step, {"loss": 1 / step, "accuracy": 0.5}))
            clock(0.5)
        assert calls == [2, 8, 8]
    assert calls == [2, 8, 8, 2]
    assert history(run, "loss") == [(step, 1 / step) for step in range(1, 11)]


def test_an_interrupted_run_keeps_what_was_not_yet_sent(store, clock):
    with pytest.raises(KeyboardInterrupt), open_run(store) as run:
        for step in (1, 2, 3):
            run(StepsDone("", step, {"loss": 1.0}))
        raise KeyboardInterrupt
    assert history(run, "loss") == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert run.client.get_run(run.run_id).info.status == "KILLED"


def test_a_store_that_is_slow_takes_a_twentieth_of_the_time(store, clock, monkeypatch):
    assert next_sending(100.0, 0.01) == 102.0 and next_sending(100.0, 8.0) == 260.0
    with open_run(store) as run:
        calls = counted(run, monkeypatch, lambda: clock(8.0))
        for step in range(400):
            run(StepsDone("", step, {"loss": 1.0}))
            clock(1.0)
        assert calls == [1, 160, 160]


def test_a_store_that_is_away_costs_no_training_and_hides_no_failure(store, clock, monkeypatch):
    monkeypatch.setattr("lazypipe.tracking.run.KEPT", 50)
    away = []

    def gone(*args, **kwargs):
        away.append(1)
        clock(30.0)
        raise OSError("no route to host")

    with pytest.raises(lp.DataError, match="NaN"), open_run(store) as run:
        for verb in ("log_batch", "set_tag", "set_terminated"):
            monkeypatch.setattr(run.client, verb, gone)
        for step in range(1200):
            run(StepsDone("", step, {"loss": 1.0}))
            clock(1.0)
        assert len(away) == 2
        raise lp.DataError("NaN at row 3.")


def test_what_waited_for_a_store_is_sent_when_it_is_back(store, clock, monkeypatch):
    with open_run(store) as run:
        log_batch = run.client.log_batch
        monkeypatch.setattr(run.client, "log_batch", lambda *args, **kwargs: 1 / 0)
        run(StepsDone("", 1, {"loss": 1.0}))
        monkeypatch.setattr(run.client, "log_batch", log_batch)
        clock(60.0)
        run(PassDone(1, 0.5))  # sent with what waits
        assert history(run, "loss") == [(1, 1.0)] and history(run, "residual") == [(1, 0.5)]
