"""Versions of Python, numpy and lazypipe on the workers: who differs is named, before anything is computed."""

import pytest

import lazypipe as lp
from lazypipe.engines.versions import ASK, Versions, own_versions, require_same_versions

OWN = own_versions()
AGAIN = "there, and start it again"


def message(**found):
    with pytest.raises(lp.EngineError) as caught:
        require_same_versions("dask", found, AGAIN)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_asked_is_the_versions_here():
    assert Versions(*eval(ASK)) == OWN


def test_the_same_versions_are_let_through_whatever_the_patch_of_python():
    patch = OWN._replace(python=OWN.python.rpartition(".")[0] + ".99")
    require_same_versions("dask", {"a": list(OWN), "b": list(patch)}, AGAIN)


def test_each_difference_is_named_with_both_versions():
    assert message(a=list(OWN), b=list(OWN._replace(numpy="1.26.4"))) == (
        f"dask: the worker at b has numpy 1.26.4, the driver {OWN.numpy}. "
        f"Install numpy {OWN.numpy} there, and start it again."
    )
    both = message(b=["3.9.1", OWN.numpy, "0.0.1", "host"])
    python = ".".join(OWN.python.split(".")[:2])
    assert f"has Python 3.9, the driver {python}; lazypipe 0.0.1, the driver {OWN.lazypipe}. Install Python " in both


def test_what_is_missing_is_told():
    assert "b cannot import lazypipe. Install lazypipe" in message(b=list(OWN._replace(lazypipe="")))
    assert "b has numpy 1.0, the driver" in message(b=list(OWN._replace(lazypipe="", numpy="1.0")))
    broken = message(b=ImportError("libopenblas.so:\n not found"))
    assert "b cannot import lazypipe (ImportError: libopenblas.so: not found). Install numpy" in broken


def test_of_many_workers_three_more_are_named():
    many = message(**{f"w{i}": list(OWN._replace(numpy="1.0")) for i in range(9)})
    assert "w0 has numpy 1.0" in many and "(so it is with w1, w2, w3 and 5 more)" in many
