"""What the answer of a job follows from: its data, its config, and the code. Two of one key give the same answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lazypipe as lp
from jobs._config import Config
from lazypipe.stores import path_of
from lazypipe.tracking import Data

# Fields that name what is read.
INPUTS = ("source", "spikes", "exclude", "row_weights", "labels", "target", "validation", "validation_labels",
          "validation_source", "validation_target", "unlabelled", "stack", "pretrained", "model")  # fmt: skip
NO_MATTER: dict[str, Any] = {
    "out": True, "overwrite": True, "tracking": True, "reuse": True, "restart": True,
    "engine": {"address", "workers"},
}  # fmt: skip
PACKAGES = ("numpy", "scipy", "numba", "torch")  # that compute: another version may round otherwise
METADATA = ".meta"  # beside a .bin of SpikeGLX
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
    return [one for one in (given if isinstance(given, tuple | list) else (given,)) if isinstance(one, str)]


def _fingerprint(source: str) -> str:
    """Of path, size and time of change of a file, or of each below a folder."""
    digest = hashlib.sha256(source.encode())
    for line in _files(source):
        digest.update(f"\n{line}".encode())
    return digest.hexdigest()[:LENGTH]


def _files(source: str) -> Iterator[str]:
    path = path_of(source)
    found: list[Any] = [path, path.with_suffix(METADATA)] if path.suffix else [path]
    if path.is_dir():
        found = sorted(path.rglob("*"))
    for file in found:
        if file.is_file():
            status = file.stat()
            yield f"{file} {status.st_size} {status.st_mtime_ns}"


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
