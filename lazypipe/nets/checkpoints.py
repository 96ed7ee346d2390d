"""Checkpoints of a training: safetensors files in a folder that one run at a time holds.

A file holds tensors, and a JSON header with their hash; it is moved into place whole. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lazypipe.atomic import replacing
from lazypipe.building import held
from lazypipe.checkpoint import REMEDY, local_folder, require_own
from lazypipe.checks import require_restart
from lazypipe.errors import DataError
from lazypipe.stores import AnyPath, on_disk

FORMAT = 1
HEADER = "lazypipe"
SUFFIX = ".safetensors"
LAST = "last"  # ends the names of checkpoints: other files are somebody's models


class Checkpoint(NamedTuple):
    """What one file holds; tensors on the processor."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]


def checked_state(state: str | Path | None, restart: bool) -> str | None:
    """The whole path of a folder of checkpoints; ConfigError where there is none to restart from."""
    require_restart(state, restart)
    return None if state is None else str(local_folder(state))


def forget(state: str | None, restart: bool) -> None:
    """Empty a folder of checkpoints where that is asked for: once, and not by a task, which may be run again."""
    if restart and state is not None:
        with Checkpoints(state, restart=True):
            pass


def _is_checkpoint(path: Path) -> bool:
    return path.suffix == SUFFIX and path.stem.endswith(f"-{LAST}")


class Checkpoints:
    """The checkpoints of one training. A context manager, in which the folder is locked.

    ``restart`` forgets what is there. Raises DataError where the folder holds other files, or another run holds it.
    """

    def __init__(self, path: str | Path, restart: bool = False):
        self.path = local_folder(path)
        self.restart = restart
        self._held = ExitStack()

    def __enter__(self) -> Checkpoints:
        busy = "another run holds this state"
        require_own(self.path, _is_checkpoint)
        self._held.enter_context(held(self.path, "cannot hold a state", busy, "pass another --state"))
        if self.restart:
            for path in filter(_is_checkpoint, self.path.iterdir()):
                path.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def file(self, name: str) -> Path:
        return self.path / f"{name.replace(' ', '-')}{SUFFIX}"

    def save(self, name: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint whole, in place of the one before."""
        save_tensors(self.file(name), header, tensors, overwrite=True)

    def load(self, name: str) -> Checkpoint | None:
        """A checkpoint, None where there is none. Raises DataError for a torn or foreign file."""
        path = self.file(name)
        return load_tensors(path, REMEDY) if path.exists() else None


def save_tensors(path: AnyPath, header: Mapping[str, Any], tensors: Mapping[str, Tensor], overwrite: bool) -> None:
    """Write tensors and a header as one file, whole. DataError where it exists and not ``overwrite``, or no room is."""
    kept = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "hash": _hash(kept), **header})
    with replacing(path, overwrite=overwrite) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # that of other files here: safetensors makes its own for their owner alone
        save_file(kept, partial, metadata={HEADER: text})
        partial.chmod(mode)


def load_tensors(path: AnyPath, remedy: str) -> Checkpoint:
    """What ``save_tensors`` wrote. DataError, ending in ``remedy``, for a file that is torn or none of lazypipe's."""
    try:
        with on_disk(path) as local, safe_open(local, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        what = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path}: cannot be read as safetensors ({what}). {remedy}") from error
    header = None if text is None else json.loads(text)
    if header is None or header.pop("format", None) != FORMAT:
        raise DataError(f"{path}: was not written by this lazypipe. {remedy}")
    if header.pop("hash") != _hash(tensors):
        raise DataError(f"{path}: is damaged: its tensors are not those that were written. {remedy}")
    return Checkpoint(header, tensors)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
