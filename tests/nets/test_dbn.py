"""Deep belief networks and autoencoders: what they start from, what they reuse, how they resume."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.nets.autoencoder import Autoencoder
from lazypipe.nets.belief import started
from lazypipe.nets.dbn import DBN, plan_dbn
from lazypipe.nets.layers import Below
from lazypipe.nets.mlp import MLP
from lazypipe.nets.network import Network, Shape
from lazypipe.nets.stack import load_stack, save_stack

torch = pytest.importorskip("torch", reason="needs torch")


def digits(n=300, seed=0):
    """Bars at one of three places, in noise, as uint8."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    x = random.random((n, 12)) < 0.1
    x |= np.repeat(np.eye(3, dtype=bool), 4, axis=1)[y]
    return (255 * x).astype(np.uint8), y


def small(kind=DBN, hidden=(10, 6), **options):
    given = {
        "pretraining": {"epochs": 3, "batch_size": 20},
        "fine_tuning": {"epochs": 4, "batch_size": 20, "learning_rate": 0.3},
        "divide_by": 255, "threads": 1,
    }  # fmt: skip
    return kind(hidden, **{**given, **options})


def test_pretraining_is_layer_by_layer(serial_engine):
    """The second machine is one trained on the features of the first."""
    from lazypipe.nets.rbm import RBM

    x, _ = digits()
    deep = small().pretrain(x, engine=serial_engine)
    options = {"epochs": 3, "batch_size": 20, "threads": 1}
    first = RBM(10, divide_by=255, **options).fit(x, engine=serial_engine)
    np.testing.assert_array_equal(deep.stack_.weights[0], first.components_)
    features = first.transform(x)
    order = [stage["stage"] for stage in deep.history_]
    assert order == ["rbm 1"] * 3 + ["rbm 2"] * 3
    below = Below(deep.stack_.layers(1), torch.device("cpu"))
    np.testing.assert_allclose(below(torch.from_numpy(x / np.float32(255))).numpy(), features, atol=1e-6)


def test_fine_tuning_starts_from_the_stack(serial_engine):
    """The hidden layers say what the stack says; all classes are as likely."""
    random = np.random.default_rng(0)
    x = random.random((200, 12)).astype(np.float32)
    for visible in ("bernoulli", "gaussian"):
        deep = small(pretraining={"epochs": 1, "visible": visible}, divide_by=1.0).pretrain(x, engine=serial_engine)
        shape = Shape((12, 10, 6, 3), "sigmoid", "cross_entropy")
        network = Network(shape, torch.Generator())
        network.parameters.vector.copy_(torch.from_numpy(started(deep.stack_, shape, 0)))
        rows = torch.from_numpy(x)
        hidden = network.forward(rows)[2].t()
        torch.testing.assert_close(hidden, Below(deep.stack_, torch.device("cpu"))(rows), rtol=1e-4, atol=1e-5)
        assert (network.outputs(rows) == 0).all()


def test_it_learns_and_predicts(serial_engine):
    x, y = digits()
    tuned = {"optimizer": "adam", "learning_rate": 0.02, "epochs": 40, "batch_size": 20}
    deep = small(hidden=(20, 16), pretraining={"epochs": 10, "batch_size": 20}, fine_tuning=tuned)
    deep.fit(x, y, validation=digits(100, 1), engine=serial_engine)
    assert deep.score(*digits(100, 2)) > 0.9
    assert {one["stage"] for one in deep.history_} == {"rbm 1", "rbm 2", "fine-tuning"}
    np.testing.assert_array_equal(deep.predict(x), deep.classes_[deep.predict_proba(x).argmax(1)])


def test_a_stack_is_reused_and_pretraining_skipped(tmp_path, serial_engine):
    x, y = digits()
    deep = small().pretrain(x, engine=serial_engine)
    save_stack(tmp_path / "stack.safetensors", deep.stack_)
    one, other = (small().fit(x[:60], y[:60], stack=stack, engine=serial_engine)
                  for stack in (deep.stack_, tmp_path / "stack.safetensors"))  # fmt: skip
    np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(x))
    assert [stage["stage"] for stage in one.history_] == ["fine-tuning"] * 4
    again = deep.fit(x[:60], y[:60], engine=serial_engine)  # goes on with its own
    np.testing.assert_array_equal(again.predict_proba(x), one.predict_proba(x))
    skipped = small().fit(x[:60], y[:60], pretrain=False, engine=serial_engine)
    plain = MLP(
        (10, 6), activation="sigmoid",
        **{**DBN.FINE_TUNING, "learning_rate": 0.3, "epochs": 4, "batch_size": 20, "divide_by": 255, "threads": 1},
    ).fit(x[:60], y[:60], engine=serial_engine)  # fmt: skip
    np.testing.assert_array_equal(skipped.predict_proba(x), plain.predict_proba(x))


def test_a_lower_stack_is_grown(serial_engine):
    x, _ = digits()
    low = small(hidden=(10,)).pretrain(x, engine=serial_engine)
    high = small().pretrain(x, stack=low.stack_, engine=serial_engine)
    whole = small().pretrain(x, engine=serial_engine)
    assert [stage["stage"] for stage in high.history_] == ["rbm 2"] * 3
    np.testing.assert_array_equal(high.stack_.weights[1], whole.stack_.weights[1])


@pytest.mark.parametrize("stage", ["rbm 1", "rbm 2", "fine-tuning"])
def test_resumed_in_any_stage_with_the_same_bits(stage, tmp_path, serial_engine):
    x, y = digits()
    whole = small(checkpoint_steps=4).fit(x, y, validation=digits(60, 1), engine=serial_engine)

    def interrupting(event):
        if getattr(event, "epoch", 0) == 2 and event.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lp.open_engine("serial") as engine:
        engine.progress.listeners.append(interrupting)
        small(checkpoint_steps=4).fit(x, y, validation=digits(60, 1), engine=engine, state=tmp_path / "state")
    again = small(checkpoint_steps=4)
    again.fit(x, y, validation=digits(60, 1), engine=serial_engine, state=tmp_path / "state")
    np.testing.assert_array_equal(again.predict_proba(x), whole.predict_proba(x))


def test_an_autoencoder_begins_as_its_stack(serial_engine):
    """Unrolled: up, codes by the tangent of the sigmoid, and down by the transposed weights."""
    x, _ = digits()
    deep = small(hidden=(10, 4)).pretrain(x, engine=serial_engine)
    shape = Shape((12, 10, 4, 10, 12), "sigmoid", "binary_cross_entropy", code=2)
    network = Network(shape, torch.Generator())
    network.parameters.vector.copy_(torch.from_numpy(started(deep.stack_, shape, 0)))
    rows, stack = torch.from_numpy(x / np.float32(255)), deep.stack_
    up = 1 / (1 + np.exp(-(rows.numpy() @ stack.weights[0].T + stack.biases[0])))
    codes = 0.5 + (up @ stack.weights[1].T + stack.biases[1]) / 4
    np.testing.assert_allclose(network.codes(rows).numpy(), codes, atol=1e-5)
    down = 1 / (1 + np.exp(-(codes @ stack.weights[1] + stack.visible_biases[1])))
    said = down @ stack.weights[0] + stack.visible_biases[0]
    np.testing.assert_allclose(network.outputs(rows).numpy(), said, rtol=1e-3, atol=1e-4)


def test_an_autoencoder_gives_rows_back(tmp_path, serial_engine):
    x, _ = digits(600)
    model = small(Autoencoder, hidden=(10, 3), fine_tuning={"epochs": 60, "optimizer": "adam", "learning_rate": 0.01})
    model.fit(x, validation=digits(100, 1)[0], engine=serial_engine)
    other = digits(200, 2)[0]
    back = model.reconstruct(other)
    assert model.reconstruction_error(other) == pytest.approx(((back - other) ** 2).mean() / 255**2, rel=1e-4)
    assert model.reconstruction_error(other) < 0.75 * (other / 255).var(0).mean()
    codes = model.transform(other)
    assert codes.shape == (200, 3)
    np.testing.assert_allclose(model.inverse_transform(codes), back, atol=0.05)
    assert model.transform(other, out=tmp_path / "codes.npy").exists()


def test_gaussian_rows_are_given_back_in_their_units(serial_engine):
    random = np.random.default_rng(0)
    z = random.standard_normal((500, 1))
    x = (np.hstack([100 + 5 * z, -3 + 2 * z, 4 * z]) + 0.1 * random.standard_normal((500, 3))).astype(np.float32)
    model = small(
        Autoencoder, hidden=(8, 1), divide_by=1.0, pretraining={"visible": "gaussian", "epochs": 5},
        fine_tuning={"epochs": 40, "optimizer": "adam", "learning_rate": 0.01},
    ).fit(x, engine=serial_engine)  # fmt: skip
    assert ((model.reconstruct(x) - x) ** 2).mean() < 0.2 * x.var(0).mean()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fine_tuning": {"epoch": 3}}, "fine_tuning: 'epoch' is not one of"),
        ({"pretraining": {"n_hidden": 3}}, "pretraining: 'n_hidden' is not one of"),
        ({"hidden": ()}, "one layer at least"),
        ({"hidden": 2.5}, "hidden: 2.5 is not"),
        ({"pretraining": {"visible": "gausian"}}, r"^pretraining\.visible: 'gausian' is not one of .* nearest is 'gau"),
        ({"fine_tuning": {"batch_size": 301}}, r"^fine_tuning\.batch_size: 301 is more than the 300 rows"),
        ({"pretraining": {"batch_size": 301}}, r"^pretraining\.batch_size: 301 is more than the 300 rows"),
        ({"fine_tuning": {"epochs": 0}}, r"^fine_tuning\.epochs: 0"),
        ({"fine_tuning": {"dropout": 1.5}}, r"^fine_tuning\.dropout: 1.5"),
        ({"pretraining": {"k": 0}}, r"^pretraining\.k: 0"),
        ({"pretraining": {"persistent": True}, "processes": 2}, r"^pretraining\.persistent: chains stay"),
        ({"seed": -1}, "^seed: -1"),
        ({"hidden": (11, 6)}, "stack: has units 12-10-6, the network 12-11-6"),
        ({"divide_by": 1.0}, "divide_by: the stack was trained on entries divided by 255"),
    ],
)
def test_refusals(options, said, serial_engine):
    x, y = digits()
    stack = small().pretrain(x, engine=serial_engine).stack_ if "stack" in said else None
    with pytest.raises(lp.ConfigError, match=said):
        small(**options).fit(x, y, stack=stack, engine=serial_engine)


def test_a_stack_of_other_visible_units_is_refused(serial_engine):
    x, y = digits()
    stack = small(pretraining={"visible": "gaussian", "epochs": 1}).pretrain(x, engine=serial_engine).stack_
    for model in (small(), small(Autoencoder)):
        with pytest.raises(lp.ConfigError, match="has gaussian visible units, asked for are bernoulli"):
            model.fit(x, y, stack=stack, engine=serial_engine)


def test_a_second_fit_trains_its_own_stack(serial_engine):
    x, y = digits()
    deep = small().fit(x, y, engine=serial_engine)
    deep.fit(*digits(300, 7), engine=serial_engine)
    assert [one["stage"] for one in deep.history_][:1] == ["rbm 1"]
    deep.fit(x, y, pretrain=False, engine=serial_engine)
    assert not hasattr(deep, "stack_")


def test_a_stack_that_is_gone_is_not_gone_on_with(serial_engine):
    x, y = digits()
    deep = small(hidden=6).pretrain(x, engine=serial_engine)  # one layer may be given as a number
    deep.fit(x, y, pretrain=False, engine=serial_engine)
    deep.fit(x, y, engine=serial_engine)
    assert [one["stage"] for one in deep.history_] == ["rbm 1"] * 3 + ["fine-tuning"] * 4


def test_an_autoencoder_is_saved_and_refuses_what_is_no_probability(tmp_path, serial_engine):
    x, _ = digits()
    model = small(Autoencoder, hidden=(10, 3)).fit(x, engine=serial_engine)
    model.save(tmp_path / "codes.safetensors")
    again = Autoencoder.load(tmp_path / "codes.safetensors")
    np.testing.assert_array_equal(again.reconstruct(x), model.reconstruct(x))
    with pytest.raises(lp.DataError, match="is no network with outputs"):
        MLP.load(tmp_path / "codes.safetensors")
    with pytest.raises(lp.DataError, match="Bernoulli units take 0 to 1"):
        small(Autoencoder, divide_by=1.0).fit(x, pretrain=False, engine=serial_engine)
    for wrong, said in (
        ({"fine_tuning": {"initial": "he"}}, "'initial' is not one of"),
        ({"hidden": ()}, "hidden: an autoencoder has one layer at least"),
        ({"pretraining": {"visible": "gausian"}}, r"^pretraining\.visible: 'gausian' is not one of .* nearest is 'gau"),
        ({"fine_tuning": {"batch_size": 301}}, r"^fine_tuning\.batch_size: 301 is more"),
    ):
        with pytest.raises(lp.ConfigError, match=said):
            small(Autoencoder, **wrong).fit(x, pretrain=False, engine=serial_engine)


def test_patience_without_validation_rows_is_refused_before_anything_is_trained(serial_engine):
    x, y = digits()
    for model, rows in (
        (small(fine_tuning={"patience": 2}), (x, y)),
        (small(Autoencoder, fine_tuning={"patience": 2}), (x,)),
    ):
        with pytest.raises(lp.ConfigError, match="no validation rows"):
            model.fit(*rows, engine=serial_engine)
        assert not hasattr(model, "history_")


def test_a_file_of_something_else_is_no_stack(tmp_path, serial_engine):
    x, y = digits()
    model = small().fit(x, y, pretrain=False, engine=serial_engine)
    model.save(tmp_path / "network.safetensors")
    with pytest.raises(lp.DataError, match="where a pre-trained stack is wanted"):
        load_stack(tmp_path / "network.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "network.safetensors").read_bytes()[:-8])
    with pytest.raises(lp.DataError, match="cannot be read as safetensors"):
        MLP.load(tmp_path / "torn.safetensors")


def test_the_plan_tells_what_it_starts_from(serial_engine):
    x, y = digits()
    lines = "\n".join(plan_dbn(x, y, small(), engine=serial_engine).lines())
    assert "starts from 2 machines that are trained first" in lines
    assert "passes    12 expected" in lines
