"""Records of a sweep: what is torn is computed again, and the same data and options have the same identity."""

import json

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.errors import ConfigError, DataError
from lazypipe.io import array
from lazypipe.io.array import from_array
from lazypipe.io.examples import problem_of
from lazypipe.io.row_range import row_range
from lazypipe.models.sweep import records
from lazypipe.models.sweep.grid import checked_options, grid_of
from lazypipe.models.sweep.result import Best
from lazypipe.models.sweep.task import Done, Task

OPTIONS = {
    "epochs": 20, "batch_size": 128, "learning_rate": 0.5, "hidden": 1024, "momentum": 0.9, "pretrained": None,
    "tol": 0.25, "max_passes": 1000,
}  # fmt: skip
ROWS = np.arange(12.0).reshape(6, 2)


def problem(y=("a", "b") * 3, y_valid=("b", "a"), divide_by=1.0, rows=ROWS):
    return problem_of((rows, list(y)), (ROWS[:2], list(y_valid)), divide_by, regression=False)


@pytest.fixture
def kept(tmp_path):
    """Records of one task with a best cell, and the path of its arrays."""
    cell = records.Cell("logistic", 6, 1.0, None, "done", validation_accuracy=0.5)
    found = records.Records(tmp_path, {"logistic": {"data": 1}})
    found.begin(False)
    found.write(Task("logistic", None, 6, (1.0,)), Done((cell,), Best(vars(cell), coef=np.arange(500.0))))
    (path,) = tmp_path.glob("*/*.npz")
    return found, path


def test_a_whole_record_is_read(kept):
    ((_, best),) = kept[0].read()
    np.testing.assert_array_equal(best.coef, np.arange(500.0))


def spoil(path, start):
    np.savez_compressed(path, coef=np.random.default_rng(0).normal(size=5000))
    whole = bytearray(path.read_bytes())
    whole[start : start + 1000] = bytes(1000)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "tear",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b""),
        lambda path: spoil(path, 200),
        lambda path: spoil(path, 20_000),
        lambda path: path.write_bytes(b"PK\x03\x04"),
        lambda path: path.unlink(),
    ],
    ids=["cut", "empty", "damaged head", "damaged", "head only", "gone"],
)
def test_torn_arrays_are_as_no_record(kept, tear):
    tear(kept[1])
    assert list(kept[0].read()) == []


@pytest.mark.parametrize("other", [255, np.uint8(255), np.int64(255), np.float32(255)])
def test_kinds_of_a_number_have_one_identity(other):
    assert json.dumps(problem(divide_by=other).identity()) == json.dumps(problem(divide_by=255.0).identity())


def test_options_of_numpy_are_those_of_python():
    expected = checked_options(**OPTIONS)
    kinds = {"epochs": np.uint8, "max_passes": np.int64, "learning_rate": np.float32, "tol": np.float64}
    found = checked_options(**(OPTIONS | {name: kind(OPTIONS[name]) for name, kind in kinds.items()}))
    assert json.dumps(vars(found)) == json.dumps(vars(expected))
    assert json.dumps(vars(checked_options(**(OPTIONS | {"tol": 1})))) == json.dumps(
        vars(checked_options(**(OPTIONS | {"tol": np.float32(1.0)})))
    )


def test_numbers_of_numpy_go_with_a_state(tmp_path):
    with lp.open_engine("serial") as engine:
        given = {"sizes": [np.int64(6)], "strengths": [np.float32(1)], "seeds": [np.uint8(0)], "state": tmp_path}
        lp.regularization_sweep(
            (ROWS, [0, 1] * 3), (ROWS, [0, 1] * 3), engine=engine, divide_by=np.uint8(12), max_passes=np.int64(50),
            tol=np.float32(0.1), **given,
        )  # fmt: skip
    assert len(list(tmp_path.glob("*/0*.json"))) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: grid_of("logistic", None, [10**400], None),
        lambda: checked_options(**(OPTIONS | {"tol": 10**400})),
        lambda: problem(divide_by=10**400),
    ],
    ids=["strengths", "tol", "divide_by"],
)
def test_numbers_beyond_a_float_are_refused(call):
    with pytest.raises(ConfigError, match="more than 308 digits. Give a smaller one"):
        call()


def test_all_of_an_array_tells_it_from_others(monkeypatch):
    monkeypatch.setattr(array, "HASHED_NBYTES", 64)
    rows = np.zeros((5000, 3))
    assert from_array(rows).fingerprint() == from_array(np.asfortranarray(rows)).fingerprint()
    changed = rows.copy()
    changed[1, 1] = 1
    y = np.arange(5000) % 2
    for cut in (lambda matrix: matrix, lambda matrix: row_range(matrix, 0, 5000)):
        one, other = (
            problem_of((cut(from_array(part)), y), (ROWS[:, [0, 0, 1]], [0, 1] * 3), 1, False).identity()
            for part in (rows, changed)
        )
        assert {name for name in one if one[name] != other[name]} == {"train"}


def test_whole_numbers_beside_text_are_compared_as_text():
    found = problem(y="12a" * 2, y_valid=[2, 1])
    assert found.classes.tolist() == ["1", "2", "a"] and found.validation.targets.tolist() == [1, 0]
    found = problem(y=[9, 10, 9, 10, 9, 10], y_valid=["9", "10"])
    assert found.classes.tolist() == [9, 10] and found.validation.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "y_valid", "said"),
    [
        ("12a" * 2, [2, 3], r"labels of kind int64, .*; as text class 3 \(first at row 1 of .*is of no training row"),
        ([1, 2] * 3, ["1", "a"], r"as text class a \(first at row 1"),
        ("12a" * 2, [1.5, 1.0], "Write both alike"),
        ([1, 2] * 3, [1, 3], r"y_valid: class 3 \(first"),
    ],
)
def test_classes_that_no_training_row_has_are_refused(y, y_valid, said):
    with pytest.raises(DataError, match=said):
        problem(y=y, y_valid=y_valid)
