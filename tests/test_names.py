"""The public names: all of them load, type checkers see the same ones, and none is loaded before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lazypipe as lp

HEAVY = ("numba", "pyarrow", "scipy", "zarr")


@pytest.mark.parametrize("name", lp._HOMES)
def test_every_name_loads_and_is_public(name):
    assert getattr(lp, name).__name__ == name
    assert name in lp.__all__ and name in dir(lp)


def test_type_checkers_see_the_same_names_from_the_same_modules():
    stub = ast.parse(Path(lp.__file__).with_suffix(".pyi").read_text())
    seen = {
        alias.asname: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: (f"lazypipe.{home}", name) for name, home in lp._HOMES.items()}
    assert seen == homes | {"progress": ("lazypipe", "progress")}
    assert sorted(seen) == sorted(lp.__all__)


def test_names_are_told_once_loaded_or_not():
    assert lp.PCA
    assert len(dir(lp)) == len(set(lp.__dir__())) == len(lp.__dir__())


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lazypipe' has no attribute 'spike_average'"):
        lp.spike_average


def test_the_import_alone_loads_no_library_that_takes_long():
    code = f"import sys, lazypipe; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
