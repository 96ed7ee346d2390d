"""Networks in a sweep as a whole: stacks, records, engines, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.errors import ConfigError, DataError
from lazypipe.models.sweep.cells import TIMED
from lazypipe.models.sweep.grid import grid_of
from lazypipe.nets.stack import Stack, save_stack

GIVEN = {"sizes": [20, 60], "strengths": [10.0], "epochs": 2, "hidden": [6, 5]}


def letters(n, seed=0, width=12, n_classes=3):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, width))
    y = random.integers(0, n_classes, n)
    return (centres[y] + random.normal(size=(n, width))).astype(np.float32), np.array(list("CAB"))[y]


@pytest.fixture(scope="module")
def pairs():
    return letters(80), letters(50, seed=1)


@pytest.fixture
def stack(tmp_path):
    return written(tmp_path / "stack")


def written(path, units=(12, 8, 7), divide_by=1.0, seed=0):
    random = np.random.default_rng(seed)
    weights = [random.normal(size=shape).astype(np.float32) for shape in zip(units[1:], units, strict=False)]
    save_stack(path, Stack(units, tuple(weights), tuple(w[:, 0].copy() for w in weights), divide_by))
    return path


def sweep(pairs, engine, **options):
    return lp.regularization_sweep(*pairs, engine=engine, **(GIVEN | options))


def untimed(found):
    return found.table.drop_columns(list(TIMED))


def test_every_engine_has_the_bits_of_serial(pairs, stack, serial_engine, cluster_engine):
    one, other = (
        sweep(pairs, engine, model=["mlp", "deep", "dbn"], pretrained=stack)
        for engine in (serial_engine, cluster_engine)
    )
    assert set(one.table["status"].to_pylist()) == {"done"} and one.table.num_rows == 6
    assert untimed(one).equals(untimed(other))
    assert one.best.coef is None and one.best.confusion.sum() == 50


def test_deep_has_the_layers_of_the_stack_and_its_own_without(pairs, stack, serial_engine):
    given, hidden, other = (
        sweep(pairs, serial_engine, model="deep", **options)
        for options in ({"pretrained": stack}, {"hidden": (8, 7)}, {})
    )
    assert untimed(given).equals(untimed(hidden))
    assert not untimed(given).equals(untimed(other))


def test_cells_are_of_one_stack(pairs, stack, serial_engine, tmp_path):
    options = {"model": ["deep", "dbn"], "state": tmp_path / "state"}
    first = sweep(pairs, serial_engine, pretrained=stack, **options)
    again = sweep(pairs, serial_engine, pretrained=str(stack), **options)
    other = sweep(pairs, serial_engine, pretrained=written(tmp_path / "other", seed=1), **options)
    more = sweep(pairs, serial_engine, pretrained=stack, momentum=0.5, **options)
    assert (first.n_recorded, again.n_recorded, other.n_recorded, more.n_recorded) == (0, 4, 2, 0)
    assert untimed(first).equals(untimed(again))
    changed = np.array(first.table["objective"].to_pylist()) != np.array(other.table["objective"].to_pylist())
    assert changed.tolist() == [model == "dbn" for model in first.table["model"].to_pylist()]


def test_strengths_are_larger_where_stacks_are_penalised():
    for model, strengths in (("logistic", (1, 0.1, 0.01, 0.001)), (["sgd", "deep"], (1000, 100, 10, 1))):
        assert grid_of(model, None, None, None).strengths == strengths


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "dbn"}, r"^dbn: there is no stack to start from. Give pretrained= \(--pretrained\)"),
        ({"model": "mlp", "pretrained": ()}, "^pretrained: no model starts from it. Leave it out, or sweep deep or"),
        ({"model": "dbn", "pretrained": {"units": (13, 8)}}, "the stack has 13 inputs, but the rows 12 columns"),
        ({"model": "deep", "pretrained": {"divide_by": 255.0}}, "entries divided by 255, and these are divided by 1"),
        ({"model": "mlp", "hidden": 0}, "^hidden: 0 is not a number of 1 or more"),
        ({"model": "mlp", "hidden": [4, 2.5]}, "^hidden: 2.5 is not"),
        ({"model": "mlp", "hidden": "8"}, "^hidden: '8' is not"),
        ({"model": "deep", "momentum": 1}, "^momentum: 1 is not a number of 0 or more and below 1"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(pairs, serial_engine, tmp_path, options, said):
    if "pretrained" in options:
        options = options | {"pretrained": written(tmp_path / "stack", **dict(options["pretrained"]))}
    for call in (sweep, lambda *given, **more: lp.plan_regularization_sweep(*given[0], **(GIVEN | more))):
        with pytest.raises(ConfigError, match=said) as caught:
            call(pairs, serial_engine, **options)
        assert "\n" not in str(caught.value)


def test_a_stack_that_is_not_there(pairs, serial_engine, tmp_path):
    with pytest.raises(DataError, match="none: cannot be read as safetensors"):
        sweep(pairs, serial_engine, model="dbn", pretrained=tmp_path / "none")


def test_other_models_need_no_torch():
    code = """
import sys
import numpy as np
import lazypipe as lp
x, y = np.eye(6, 3), np.arange(6) % 2
with lp.open_engine("serial") as engine:
    given = {"sizes": [6], "strengths": [1.0], "epochs": 1, "engine": engine}
    lp.regularization_sweep((x, y), (x, y), model=["logistic", "sgd"], **given)
    assert "torch" not in sys.modules and "lazypipe.nets" not in sys.modules
    sys.modules["torch"] = None  # as where it is missing
    try:
        lp.regularization_sweep((x, y), (x, y), model=["logistic", "mlp"], **given)
    except lp.ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "networks need torch, not installed here. Run pip install 'lazypipe[nets]'.\n"
