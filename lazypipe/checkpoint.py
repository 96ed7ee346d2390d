"""States on disk, with the fingerprints of what is in them.

A state folder holds one ``NAME.state`` file a state: an ``.npz`` of arrays and a JSON header, moved into
place whole. Its zip directory comes last and every member has a checksum, so a torn file never reads.
One run at a time holds the folder.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.building import held
from lazypipe.errors import DataError
from lazypipe.stores import is_remote, path_of

FORMAT = 1
HEADER = "header"
SUFFIX = ".state"
REMEDY = "Pass another --state (state=), or --restart (restart=True) to start over."


def local_folder(path: str | Path) -> Path:
    """The absolute path of a state; DataError for one in an object store."""
    if is_remote(path):
        raise DataError(
            f"{path}: cannot hold a state: one run at a time locks its folder, and object stores have no locks. "
            f"Pass a local folder as --state (state=)."
        )
    place = path_of(path)
    assert isinstance(place, Path)
    return place


def require_own(folder: Path, is_own: Callable[[Path], bool]) -> None:
    """DataError where a folder for states holds something else: nothing is locked there, and nothing forgotten."""
    there = folder.iterdir() if folder.is_dir() else ()
    foreign = sorted(path.name for path in there if not path.name.startswith(".") and not is_own(path))
    if foreign:
        raise DataError(f"{folder}: holds other files ({foreign[0]}), so it is no state. Pass another --state.")


class State(NamedTuple):
    """What one state file holds."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


class StateFolder:
    """The states of one job. Use it as a context manager; it is locked meanwhile.

    ``restart`` forgets what is there. Raises DataError where the folder is no state folder, or another
    run holds it.
    """

    def __init__(self, path: str | Path, restart: bool = False):
        self.path = local_folder(path)
        self.restart = restart
        self._held = ExitStack()

    def __enter__(self) -> StateFolder:
        busy = "another run holds this state"
        require_own(self.path, lambda path: path.suffix == SUFFIX)
        self._held.enter_context(held(self.path, "cannot hold a state", busy, "pass another --state"))
        if self.restart:
            self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def names(self) -> list[str]:
        """The names of the states that are there, sorted."""
        return sorted(p.stem for p in self.path.glob(f"*{SUFFIX}"))

    def save(self, name: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a state whole, in place of the one before."""
        path = self.path / f"{name}{SUFFIX}"
        text = json.dumps({"lazypipe_state": FORMAT, "arrays": sorted(arrays), **header})
        with replacing(path, overwrite=True) as partial, open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, **{HEADER: np.frombuffer(text.encode(), np.uint8), **arrays})

    def load(self, name: str) -> State | None:
        """A state, None where there is none. Raises DataError for a torn or foreign file."""
        path = self.path / f"{name}{SUFFIX}"
        if not path.exists():
            return None
        if not os.access(path, os.R_OK):
            raise DataError(f"{path}: cannot be read. Change its rights, or pass another --state.")
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: is torn, or no state of lazypipe (it does not end as one). {REMEDY}")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            header = json.loads(arrays.pop(HEADER).tobytes())
            version = header.pop("lazypipe_state")
        except MemoryError:
            raise
        except Exception as error:  # a damaged zip directory leads its reader anywhere
            what = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise DataError(f"{path}: is torn, or no state of lazypipe ({what}). {REMEDY}") from error
        if version != FORMAT:
            raise DataError(f"{path}: is a state of format {version}, this lazypipe reads {FORMAT}. {REMEDY}")
        if sorted(arrays) != header.pop("arrays", None):  # the zip directory has no checksum, and can lose members
            raise DataError(f"{path}: is torn: arrays are missing. {REMEDY}")
        return State(header, arrays)

    def forget(self, *names: str) -> None:
        """Delete these states, or all of them."""
        for name in names or self.names():
            (self.path / f"{name}{SUFFIX}").unlink(missing_ok=True)


def require_same(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise DataError, naming the first that differs, unless a state was made with what is wanted now."""
    for key in [*wanted, *(key for key in saved if key not in wanted)]:
        if saved.get(key) != wanted.get(key):
            was, now = json.dumps(saved.get(key)), json.dumps(wanted.get(key))
            raise DataError(f"{path}: was made with {key} {was}, this run has {now}. {REMEDY}")
