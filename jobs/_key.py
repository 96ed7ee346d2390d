"""What the answer of a job follows from: its data, its config, and the code. Two of one key give the same answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lazypipe as lp
from jobs._config import Config
from lazypipe.stores import AnyPath, path_of
from lazypipe.tracking import Data

# Fields that name what is read.
INPUTS = ("source", "spikes", "exclude", "row_weights", "labels", "target", "validation", "validation_labels",
          "validation_source", "validation_target", "unlabelled", "stack", "pretrained", "model")  # fmt: skip
NO_MATTER: dict[str, Any] = {
    "out": True, "overwrite": True, "tracking": True, "reuse": True, "restart": True,
    "engine": {"address", "workers"},
}  # fmt: skip
PACKAGES = ("numpy", "scipy", "numba", "torch")  # that compute: another version may round otherwise
METADATA = ".meta"  # of SpikeGLX, beside its .bin
LENGTH = 16


def run_key(job: str, config: Config, data: Data) -> str:
    """A short hash of the job, of all that it reads, of its config as far as that changes the answer, and of the code.

    Files are known by path, size and time of change: nothing of them is read.
    """
    parts = {
        "job": job,
        "data": data.fingerprint(),
        "inputs": {name: [_fingerprint(one) for one in inputs_of(config, name)] for name in INPUTS},
        "config": config.model_dump(mode="json", exclude=NO_MATTER),
        "code": code_hash(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:LENGTH]


def inputs_of(config: Config, name: str) -> list[str]:
    """The paths and addresses in one of the fields that name what is read."""
    given = getattr(config, name, None)
    if name == "source" and isinstance(given, tuple):  # the stretches of a recording
        return list(given)
    return [given] if isinstance(given, str) else []  # exclude may be intervals, the model of a sweep is several names


def _fingerprint(source: str) -> str:
    """Of the files of a source; a .bin of SpikeGLX has its .meta beside it."""
    path = path_of(source)
    return as_they_are((path, path.with_suffix(METADATA)) if path.suffix else (path,), source)


def as_they_are(places: Iterable[AnyPath], *words: str) -> str:
    """A short hash of path, size and time of change of all files there, and of ``words``. Nothing of them is read."""
    lines = [f"{file} {status.st_size} {status.st_mtime_ns}" for place in places for file, status in files_of(place)]
    return hashlib.sha256("\n".join([*words, *lines]).encode()).hexdigest()[:LENGTH]


def files_of(place: AnyPath) -> Iterator[tuple[AnyPath, Any]]:
    """Each file with its status: ``place``, or all below it where it is a folder; what is missing is passed over."""
    found: list[Any] = sorted(place.rglob("*")) if place.is_dir() else [place]
    for file in found:
        if file.is_file():
            yield file, file.stat()


@cache
def code_hash() -> str:
    """Of the sources of lazypipe and jobs, and of the versions of what computes with them."""
    digest = hashlib.sha256(lp.__version__.encode())
    for package in (Path(lp.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package.parent)} ".encode() + path.read_bytes())
    for name in PACKAGES:
        try:
            digest.update(f"{name} {version(name)} ".encode())
        except PackageNotFoundError:
            continue
    return digest.hexdigest()[:LENGTH]
