"""Cells that are done, on disk: a file a task, written whole as the task ends, read by the next sweep.

A folder holds one subfolder for each identity: the data, the model and its options, and the version of the
arithmetic. What belongs to another one is never mixed in, and stays.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.errors import DataError
from lazypipe.io.damaged import DAMAGED
from lazypipe.models.sweep.cells import Cell
from lazypipe.models.sweep.result import Best

if TYPE_CHECKING:
    from lazypipe.models.sweep.task import Done, Task

VERSION = 1  # of the arithmetic: raise it where a cell would come out otherwise
IDENTITY = "identity.json"
ARRAYS = ("confusion", "coef", "intercept", "present")
NAMES = {field.name for field in fields(Cell)}
TORN = (*DAMAGED, AttributeError, StopIteration)


@dataclass(frozen=True)
class Records:
    """The records of one sweep: ``identities`` of each model, beneath ``folder``."""

    folder: Path
    identities: Mapping[str, Mapping[str, Any]]

    def of(self, model: str) -> Path:
        """The subfolder of a model."""
        text = json.dumps(self.identities[model], sort_keys=True)
        return self.folder / f"{model}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def begin(self, restart: bool) -> None:
        """Make the subfolders, and say in each what it is of. DataError where that cannot be."""
        for model, identity in self.identities.items():
            place = self.of(model)
            try:
                if restart:
                    shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(
                    f"{place}: cannot be written ({error.strerror}). Choose another state folder."
                ) from error
            if not (place / IDENTITY).exists():
                with replacing(place / IDENTITY, overwrite=True) as partial:
                    partial.write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def has(self, task: Task) -> bool:
        """Whether the record of a task is where this process looks for it."""
        return (self.of(task.model) / _name(task)).with_suffix(".json").exists()

    def write(self, task: Task, done: Done) -> None:
        """Keep what a task came to; the record stands only once all of it does."""
        stem = self.of(task.model) / _name(task)
        if done.best is not None:
            arrays = {name: getattr(done.best, name) for name in ARRAYS if getattr(done.best, name) is not None}
            with replacing(stem.with_suffix(".npz"), overwrite=True) as partial, open(partial, "wb") as file:
                np.savez(file, **arrays)
        best = None if done.best is None else done.best.cell["C"]
        record = {"cells": [asdict(cell) for cell in done.cells], "best": best}
        with replacing(stem.with_suffix(".json"), overwrite=True) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def read(self) -> Iterator[tuple[tuple[Cell, ...], Best | None]]:
        """What earlier sweeps finished. A record that is torn is as none: its cells are computed again."""
        for model in self.identities:
            for path in sorted(self.of(model).glob("*.json")):
                if path.name != IDENTITY and (found := _read(path)) is not None:
                    yield found


def _name(task: Task) -> str:
    order = "as-given" if task.seed is None else f"seed-{task.seed}"
    strengths = hashlib.sha256(repr(task.strengths).encode()).hexdigest()[:8]
    return f"{task.size:09d}-{order}-{strengths}"


def _read(path: Path) -> tuple[tuple[Cell, ...], Best | None] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        cells = tuple(Cell(**{name: cell[name] for name in NAMES}) for cell in record["cells"])
        if record["best"] is None:
            return cells, None
        best = next(cell for cell in cells if record["best"] == cell.C)
        with np.load(path.with_suffix(".npz")) as arrays:
            return cells, Best(vars(best), **{name: arrays[name] for name in ARRAYS if name in arrays})
    except TORN:
        return None
