"""Perceptrons as people call them: what they learn, on which engine, and what they refuse."""

import numpy as np
import pytest
from scipy.special import log_softmax

import lazypipe as lp
from lazypipe.nets.mlp import MLP, plan_mlp

XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
RATES = {
    "gradient_descent": 0.5, "momentum": 0.2, "nesterov": 0.2, "adagrad": 0.3, "rmsprop": 0.03, "adam": 0.05,
    "curvature": 0.5,
}  # fmt: skip


def digits(n=300, seed=0):
    """Three overlapping clouds in 6 columns, as uint8."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    x = random.normal(128, 30, (n, 6)) + 60 * np.eye(3, 6)[y]
    return x.clip(0, 255).astype(np.uint8), np.array(["ant", "bee", "cow"])[y]


def small(**options):
    return MLP(**{"hidden": (8,), "epochs": 3, "batch_size": 32, "divide_by": 255, "threads": 1, **options})


@pytest.mark.parametrize("optimizer", RATES)
def test_xor_is_learned_by_a_2_3_1_network(optimizer):
    """One output, squared error, full batch; from the first of a few seeds that is not stuck, as XOR often is."""
    x, y = XOR
    errors = []
    for seed in range(4):
        model = MLP(
            (3,), loss="squared_error", activation="tanh", optimizer=optimizer, learning_rate=RATES[optimizer],
            curvature=1e-4, batch_size=None, epochs=600, seed=seed, threads=1,
        )  # fmt: skip
        with lp.open_engine("serial") as engine:
            errors.append(np.abs(model.fit(x, y, engine=engine).predict(x) - y).max())
        if errors[-1] < 0.1:
            return
    raise AssertionError(f"errors {errors}")


def test_predictions_are_those_of_numpy(serial_engine):
    x, y = digits()
    model = small(hidden=(8, 5), activation="tanh", learning_rate=0.05).fit(
        x, y, validation=digits(100, 1), engine=serial_engine
    )
    said = x / 255
    for i, (coef, intercept) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        said = said @ coef + intercept
        said = np.tanh(said) if i < 2 else said
    np.testing.assert_allclose(np.log(model.predict_proba(x)), log_softmax(said, axis=1), atol=1e-4)
    assert (model.predict(x) == np.array(["ant", "bee", "cow"])[said.argmax(1)]).all()
    assert model.score(x, y) == (model.predict(x) == y).mean() > 0.6
    assert model.score(*digits(100, 1)) == model.history_[model.best_epoch_ - 1]["validation_accuracy"]


def test_a_regression(serial_engine):
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 3)).astype(np.float32)
    y = np.sin(x[:, 0]) + x[:, 1]
    model = MLP((32,), loss="squared_error", epochs=30, batch_size=20, learning_rate=0.01, threads=1)
    model.fit(x[:300], y[:300], validation=(x[300:], y[300:]), engine=serial_engine)
    assert model.score(x[300:], y[300:]) > 0.95
    squares = ((y[300:] - y[300:].mean()) ** 2).mean()
    best = model.history_[model.best_epoch_ - 1]["validation_loss"]  # half the mean square
    assert model.score(x[300:], y[300:]) == pytest.approx(1 - 2 * best / squares, rel=1e-5)


def test_every_engine_gives_the_bits_of_serial(serial_engine, cluster_engine):
    x, y = digits()
    one, other = (small(dropout=0.2).fit(x, y, engine=engine) for engine in (serial_engine, cluster_engine))
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert (a == b).all()


def test_a_seed_fixes_the_bits(serial_engine):
    x, y = digits()
    one, same, other = (small(seed=seed).fit(x, y, engine=serial_engine) for seed in (4, 4, 5))
    assert (one.coefs_[0] == same.coefs_[0]).all()
    assert (one.coefs_[0] != other.coefs_[0]).any()


def test_saved_and_loaded(tmp_path, serial_engine):
    x, y = digits()
    model = small().fit(x, y, engine=serial_engine)
    model.save(tmp_path / "model.safetensors")
    again = MLP.load(tmp_path / "model.safetensors")
    assert (again.predict_proba(x) == model.predict_proba(x)).all()
    assert (again.predict(x) == model.predict(x)).all()


def test_resumed_from_its_state(tmp_path, serial_engine):
    x, y = digits()
    with pytest.raises(KeyboardInterrupt), lp.open_engine("serial") as engine:
        engine.progress.listeners.append(_interrupting)
        small().fit(x, y, engine=engine, state=tmp_path / "state")
    resumed = small().fit(x, y, engine=serial_engine, state=tmp_path / "state")
    whole = small().fit(x, y, engine=serial_engine)
    assert (resumed.coefs_[0] == whole.coefs_[0]).all()


def _interrupting(event):
    if getattr(event, "epoch", 0) == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": digits(300, 5)}, "was made with data"),
        ({"hidden": (9,)}, r"network .6-8-3, relu, cross_entropy., this run has .6-9-3"),
        ({"dropout": 0.5}, "was made with dropout"),
    ],
)
def test_a_state_of_other_data_or_architecture_is_refused(tmp_path, serial_engine, change, said):
    small().fit(*digits(), engine=serial_engine, state=tmp_path / "state")
    data = change.pop("data", digits())
    with pytest.raises(lp.DataError, match=f"{said}.*--restart"):
        small(**change).fit(*data, engine=serial_engine, state=tmp_path / "state")
    small(**change).fit(*data, engine=serial_engine, state=tmp_path / "state", restart=True)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"hidden": (0,)}, lp.ConfigError, "hidden: 0 is not a number of 1 or more"),
        ({"activation": "rellu"}, lp.ConfigError, "the nearest is 'relu'"),
        ({"optimizer": "adamm"}, lp.ConfigError, "the nearest is 'adam'"),
        ({"initial": "hee"}, lp.ConfigError, "the nearest is 'he'"),
        ({"loss": "hinge"}, lp.ConfigError, "loss: 'hinge' is not one of"),
        ({"loss": "squared_error"}, lp.DataError, "holds text, where a regression wants numbers"),
        ({"schedule": "cosin"}, lp.ConfigError, "the nearest is 'cosine'"),
        ({"dropout": 1.0}, lp.ConfigError, "dropout: 1.0 is not a number of 0 or more and below 1"),
        ({"learning_rate": -1}, lp.ConfigError, "learning_rate: -1 is not a number above 0"),
        ({"epochs": 0}, lp.ConfigError, "epochs: 0"),
        ({"precision": "float16"}, lp.ConfigError, "float32, bfloat16"),
        ({"patience": 2}, lp.ConfigError, "no validation rows"),
        ({"batch_size": 301}, lp.ConfigError, "batch_size: 301 is more than the 300 rows"),
        ({"optimizer": "curvature"}, lp.ConfigError, "relu"),
        ({"learning_rate": 1e30, "optimizer": "momentum"}, lp.DivergedError, r"loss is (nan|inf) at step \d+: batch"),
    ],
)
def test_refusals(options, error, said, serial_engine):
    with pytest.raises(error, match=said) as caught:
        small(**options).fit(*digits(), engine=serial_engine)
    assert "\n" not in str(caught.value)


def test_cuda_that_is_absent_is_said(serial_engine):
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA GPU")
    with pytest.raises(lp.ConfigError, match=r"device: cuda was asked for.*device='auto' or 'cpu'"):
        small(device="cuda").fit(*digits(), engine=serial_engine)


def test_labels_of_no_training_row_are_refused(serial_engine):
    x, y = digits()
    with pytest.raises(lp.DataError, match="class dog .* is of no training row"):
        small().fit(x, y, validation=(x[:2], ["ant", "dog"]), engine=serial_engine)


def test_rows_of_another_width_are_refused(serial_engine):
    model = small().fit(*digits(), engine=serial_engine)
    with pytest.raises(lp.DataError, match="5 columns, but the network has 6 inputs"):
        model.predict(digits()[0][:, :5])


def test_a_model_that_is_not_fitted_says_so():
    for ask in (small().predict, small().predict_proba):
        with pytest.raises(lp.NotFittedError, match="Call fit first"):
            ask(digits()[0])


def test_the_plan_tells_the_rule_of_thumb(serial_engine):
    x, y = digits()
    plan = plan_mlp(x, y, small(), engine=serial_engine)
    assert "3.61 rows a parameter; the rule of thumb asks for 10 (830 rows)" in "\n".join(plan.lines())


def test_a_budget_that_holds_no_batch_is_refused():
    x = np.zeros((4096, 6000), np.float32)
    with lp.open_engine("serial", memory="16MiB") as engine, pytest.raises(lp.MemoryPlanError, match="It fits in"):
        small(batch_size=2048).fit(x, np.arange(4096) % 2, engine=engine)


def test_peak_memory_stays_under_the_plan(tmp_path):
    """Rows that the budget does not hold, streamed; nothing of their size stays."""
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(20_000, 2000))  # 160 MB
    x[:] = np.random.default_rng(0).random((1, 2000), np.float32)
    x.flush()
    del x
    with lp.open_engine("serial", memory="48MiB") as engine:
        model = small(hidden=(64,), divide_by=1, epochs=1, batch_size=128, optimizer="gradient_descent")
        engine.reset_peak()
        model.fit(tmp_path / "x.npy", np.arange(20_000) % 2, engine=engine)
        assert engine.peak_memory() < model.plan_.peak_nbytes
        assert model.plan_.arrays_nbytes <= 48 * 2**20
