"""What messages tell people to pass is there to be passed."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from pydantic import BaseModel

import jobs
import lazypipe


@pytest.fixture(scope="module")
def options():
    """Of all jobs, as they are typed."""
    modules = [import_module(f"jobs.{found.name}") for found in iter_modules(jobs.__path__) if found.name != "__main__"]
    configs = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return {
        f"--{name.replace('_', '-')}" for kind in configs if issubclass(kind, BaseModel) for name in kind.model_fields
    }


@pytest.mark.parametrize("folder", ["models", "stats"])
def test_options_that_are_named_are_those_of_a_job(folder, options):
    for path in (Path(lazypipe.__file__).parent / folder).rglob("*.py"):
        named = set(re.findall(r"--[a-z][a-z_-]*", path.read_text(encoding="utf-8")))
        assert named <= options, path
