"""Results that are there already: whose key is that of the run which is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs._key import LENGTH, files_of
from lazypipe.results import RECORD
from lazypipe.stores import AnyPath, as_given, path_of

RESULTS = Path("results")
LOOKED_AT = 1000  # of the default folders, newest first


def find_result(
    job: str, out: str | None, key: str, beside: Mapping[str, str]
) -> tuple[AnyPath, dict[str, Any]] | None:
    """The folder and the record of a whole result of ``key``: in ``out``, else the newest of the default folders.

    Whole is one of which nothing failed, all of whose files, and all that it wrote ``beside`` them, are as it left
    them.
    """
    for folder in [as_given(out)] if out is not None else _newest_first(job):
        record = record_of(folder)
        if record is None or (record.get("trace") or {}).get("key") != key or not record.get("complete"):
            continue
        if record.get("written") == written(folder, record["files"], beside, isinstance(folder, Path)):
            return folder, record
    return None


def written(folder: AnyPath, names: Iterable[str], beside: Mapping[str, str], timed: bool) -> dict[str, str | None]:
    """Marks of what a result consists of: of the files in its folder by name, of what lies beside it by its field.

    The files of a folder have a time of change that can be known before it is put in place where it is ``timed``:
    not in a store of objects.
    """
    marks = {name: _mark(folder / name, timed) for name in names}
    return marks | {field: _mark(path_of(given), True) for field, given in beside.items()}


def _mark(path: AnyPath, timed: bool) -> str | None:
    """A short hash of size and time of change of a file, or of all below a folder; None where there is nothing."""
    lines = [
        f"{str(file).removeprefix(str(path))} {status.st_size} {status.st_mtime_ns if timed else ''}"
        for file, status in files_of(path)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:LENGTH] if lines else None


def record_of(folder: AnyPath) -> dict[str, Any] | None:
    """What result.json holds; None where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _newest_first(job: str) -> Iterator[Path]:
    names = sorted((path.name for path in RESULTS.glob(f"{job}-*")), reverse=True)  # the time is in the name
    return (RESULTS / name for name in names[:LOOKED_AT])
