"""Results that are there already: whose key is that of the run which is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lazypipe.results import RECORD
from lazypipe.stores import AnyPath, path_of

RESULTS = Path("results")
LOOKED_AT = 1000  # of the default folders, newest first


def find_result(job: str, out: str | None, key: str, others: tuple[str, ...]) -> tuple[AnyPath, dict[str, Any]] | None:
    """The folder and the record of a whole result of ``key``: in ``out``, else the newest of the default folders.

    Whole is one of which nothing failed, all of whose files are there, and all ``others`` that it wrote besides.
    """
    for folder in [_shown(out)] if out is not None else _newest_first(job):
        record = record_of(folder)
        if record is None or (record.get("trace") or {}).get("key") != key or not record.get("complete"):
            continue
        if all((folder / name).exists() for name in record["files"]) and all(path_of(one).exists() for one in others):
            return folder, record
    return None


def record_of(folder: AnyPath) -> dict[str, Any] | None:
    """What result.json holds; None where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _shown(out: str) -> AnyPath:
    """As it was given where it is local, for lines that name it."""
    return Path(out).expanduser() if "://" not in out else path_of(out)


def _newest_first(job: str) -> Iterator[Path]:
    names = sorted((path.name for path in RESULTS.glob(f"{job}-*")), reverse=True)  # the time is in the name
    return (RESULTS / name for name in names[:LOOKED_AT])
