"""Versions on the workers, which must be the driver's: asked with the standard library alone, before all else.

Another minor version of Python cannot read our pickles, another numpy may round otherwise, another lazypipe folds
otherwise.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import lazypipe
from lazypipe.errors import EngineError, RefusedError

SHOWN = 3  # workers that an error names
# For ``eval`` on a worker: a function of ours would have to be found there first.
ASK = """[
    __import__("platform").python_version(),
    *(
        __import__(name).__version__ if __import__("importlib.util").util.find_spec(name) else ""
        for name in ("numpy", "lazypipe")
    ),
    __import__("socket").gethostname(),
]"""


class Versions(NamedTuple):
    """What ``ASK`` finds; empty where a package is missing."""

    python: str
    numpy: str
    lazypipe: str
    host: str = ""


def own_versions() -> Versions:
    return Versions(platform.python_version(), np.__version__, lazypipe.__version__, platform.node())


def require_same_versions(kind: str, found: Mapping[str, Any], start_again: str) -> None:
    """Raise RefusedError that names who differs from the driver in what; EngineError where it did not answer.

    ``found``: what ``ASK`` gave, or an exception, by worker; ``start_again`` ends the line: what to do once the
    right version is installed.
    """
    driver = own_versions()
    gone = {worker: answer for worker, answer in found.items() if isinstance(answer, OSError)}
    compared = {worker: _difference(answer, driver) for worker, answer in found.items() if worker not in gone}
    differing = {worker: difference for worker, difference in compared.items() if difference}
    if gone and not differing:
        worker, answer = next(iter(gone.items()))
        raise EngineError(
            f"{kind}: the worker at {worker} went away when it was asked for its versions ({_line(answer)}). Look at "
            f"its log, or end it."
        )
    if not differing:
        return
    worker, (what, install) = next(iter(differing.items()))
    others = [other for other in differing if other != worker]
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    also = f" (so it is with {', '.join(others[:SHOWN])}{more})" if others else ""
    raise RefusedError(f"{kind}: the worker at {worker} {what}{also}. Install {install} {start_again}.")


def _difference(answer: Any, driver: Versions) -> tuple[str, str] | None:
    """What a worker has else than the driver, and what to install; None where there is nothing."""
    if isinstance(answer, BaseException):
        return f"cannot import lazypipe ({_line(answer)})", f"numpy {driver.numpy} and lazypipe {driver.lazypipe}"
    versions = Versions(*answer)
    pairs = [("Python", _minor(versions.python), _minor(driver.python))]
    pairs += [(name, getattr(versions, name), getattr(driver, name)) for name in ("numpy", "lazypipe")]
    wrong = [(name, theirs, ours) for name, theirs, ours in pairs if theirs != ours]
    if not wrong:
        return None
    missing = [name for name, theirs, _ in wrong if not theirs]
    has = [f"{name} {theirs}, the driver {ours}" for name, theirs, ours in wrong if theirs]
    told = [f"has {'; '.join(has)}"] if has else []
    told += [f"cannot import {' and '.join(missing)}"] if missing else []
    return " and ".join(told), " and ".join(f"{name} {ours}" for name, _, ours in wrong)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
