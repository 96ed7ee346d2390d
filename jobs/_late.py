"""What MLflow did not take: kept beside the result, sent when it answers again."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jobs._work import command_to_log
from lazypipe.atomic import replacing
from lazypipe.errors import DataError, LazypipeError
from lazypipe.io.damaged import DAMAGED
from lazypipe.results import RECORD
from lazypipe.secrets import hidden
from lazypipe.stores import AnyPath
from lazypipe.stores.errors import told
from lazypipe.stores.filesystems import answer
from lazypipe.tracking import Record, TrackedRun, is_away, said
from lazypipe.tracking.record import ARRAYS, NAME

PATIENCE = 30.0  # seconds, at the end of a run


def finish(run: TrackedRun, record: Record, out: AnyPath) -> list[str]:
    """Send a run what came out, and end it; where the store is away for long, keep the rest in ``out``, and warn."""
    error = run.finish(record, out)
    if error is None:
        return []
    _keep(out, run, record)  # at once: whatever happens while it waits
    store = hidden(run.uri)
    if is_away(error):
        print(
            f"{store}: MLflow does not answer ({said(error)}). The result is saved in {out}; trying for "
            f"{PATIENCE:.0f} s to log it.",
            file=sys.stderr,
        )
        error = run.finish_within(PATIENCE, record, out)
    if error is None:
        forget(out)
        return []
    lost = _keep(out, run, record)
    did = "did not answer" if is_away(error) else "did not take all"
    where = f"cannot be kept ({lost}); {RECORD} has most of it" if lost else f"is in {out / NAME}"
    return [f"{store}: MLflow {did} ({said(error)}). What was not logged {where}; send it with {command_to_log(out)}"]


def _keep(out: AnyPath, run: TrackedRun, record: Record) -> str:
    """Keep it, or say why that cannot be: the result is there, and its run has not failed for it."""
    try:
        keep(out, run, record)
    except (LazypipeError, OSError) as error:
        return said(error)
    return ""


def keep(out: AnyPath, run: TrackedRun, record: Record) -> None:
    """Write what is still to be sent beside the result, each file whole; the record last, as it names the others."""
    for name, content in record.to_files(run.describe()).items():
        write_whole(out / name, content)


def kept(out: AnyPath) -> tuple[Record, Mapping[str, str]] | None:
    """What is still to be sent, and the run that it belongs to; None where there is nothing."""
    if not (out / NAME).exists():
        return None
    try:
        values = json.loads((out / NAME).read_text(encoding="utf-8"))
        arrays: dict[str, np.ndarray] = {}
        if values["model"] is not None:
            with np.load(io.BytesIO((out / ARRAYS).read_bytes()), allow_pickle=False) as packed:
                arrays = dict(packed)
        return Record.of(values, arrays), values["run"]
    except DAMAGED as error:
        raise DataError(
            f"{out / NAME}: is damaged ({said(error)}). Delete it: jobs log then sends what result.json holds."
        ) from error


def run_waiting(out: AnyPath) -> str | None:
    """The id of the run that something beside a result is still to be sent to; None where there is nothing."""
    if not (out / NAME).exists():
        return None
    try:
        return str(json.loads((out / NAME).read_text(encoding="utf-8"))["run"]["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def forget(out: AnyPath) -> None:
    """Delete what was kept, once it has been sent."""
    for name in (NAME, ARRAYS):
        _remove(out / name)


def write_whole(path: AnyPath, content: bytes) -> None:
    """Write a small file of a result, whole or not at all."""
    with replacing(path, overwrite=True) as partial:
        partial.write_bytes(content)


def _remove(path: AnyPath) -> None:
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
    elif path.exists():
        with told(path.uri, "cannot be removed"):
            answer(path.file_system, "rm_file", path.uri)
