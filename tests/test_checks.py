"""Values that callers give: plain Python values, or one line that says what is wrong with them."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.checks import above_0, from_0, named, whole
from lazypipe.errors import ConfigError
from lazypipe.models.codes import code_errors


def test_numbers_come_as_plain_python_values():
    for value, found in ((np.int16(3), 3), (3, 3)):
        assert whole(value, "n") == found and type(whole(value, "n")) is int
    assert whole(0, "seed", least=0) == 0
    for check in (above_0, from_0):
        assert type(check(np.float32(0.5), "x")) is float and check(1, "x") == 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: whole(0, "n"), "n: 0 is not a number of 1 or more."),
        (lambda: whole(2.5, "n"), "n: 2.5 is not a whole number. Give one of 1 or more."),
        (lambda: whole(True, "n", least=0), "n: True is not a whole number. Give one of 0 or more."),
        (lambda: above_0(0, "rate"), "rate: 0 is not a number above 0."),
        (lambda: above_0(float("nan"), "rate"), "rate: nan is not a number above 0."),
        (lambda: above_0(10**400, "rate"), "rate: a whole number of more than 308 digits. Give a smaller one."),
        (lambda: from_0(1, "momentum", below=1.0), "momentum: 1 is not a number of 0 or more and below 1."),
        (lambda: from_0("1", "ridge"), "ridge: '1' is not a number of 0 or more."),
        (lambda: named("solver", "gramm", {"gram": 1, "auto": 2}),
         "solver: 'gramm' is not one of gram, auto; the nearest is 'gram'."),
        (lambda: named("solver", 3, {"gram": 1}), "solver: 3 is not one of gram."),
    ],
)  # fmt: skip
def test_what_they_cannot_be_is_told_in_one_line(call, said):
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == said


RESTARTS = {
    "covariance": lambda x: lp.covariance(x, restart=True),
    "tiles": lambda x: lp.covariance(x, out="no.zarr", restart=True),
    "PCA": lambda x: lp.PCA(1).fit(x, restart=True),
    "averages": lambda x: lp.spike_triggered_average(x, [5], (-1, 1), restart=True),
    "averages in a store": lambda x: lp.spike_triggered_average(x, [5], (-1, 1), out="no.zarr", restart=True),
    "networks": lambda x: lp.MLP((2,)).fit(x, np.arange(10) % 2, restart=True),
    "machines": lambda x: lp.RBM(2).fit(x, restart=True),
    "codes": lambda x: code_errors(x, x, [1], stack=None, restart=True),
}


@pytest.mark.parametrize("kind", RESTARTS)
def test_a_restart_of_no_state_is_refused_everywhere(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="^restart: there is no state to forget. Give state="):
        RESTARTS[kind](np.random.default_rng(0).random((10, 3)))
    assert not list(tmp_path.iterdir())
