"""The loops that numba compiles, where there is no folder to keep them in."""

import subprocess
import sys

PROGRAM = """
from importlib import import_module
from pathlib import Path

import numba.core.caching
import numba.core.dispatcher

import lazypipe


def nowhere(cache, function):
    raise RuntimeError("cannot cache function: no locator available")


numba.core.caching.CacheImpl.__init__ = nowhere
dispatcher = numba.core.dispatcher.Dispatcher
dispatcher.compile = lambda *_: None  # takes seconds, and is not asked here
dispatcher.disable_compile = lambda *_: None
folder = Path(lazypipe.__file__).parent
for path in sorted(folder.rglob("*.py")):
    if "numba.njit" in path.read_text(encoding="utf-8"):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        import_module(name)
        print(name)
"""


def test_all_loops_can_be_compiled_where_none_can_be_kept():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"lazypipe.stats.softmax_kernel", "lazypipe.models.sweep.lbfgs"} <= set(done.stdout.split())
