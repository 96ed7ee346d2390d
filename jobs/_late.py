"""What MLflow did not take: kept beside the result, sent when it answers again."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lazypipe.errors import DataError
from lazypipe.secrets import hidden
from lazypipe.stores import AnyPath, Place
from lazypipe.stores.errors import told
from lazypipe.stores.filesystems import answer
from lazypipe.stores.uploads import upload
from lazypipe.tracking import Record, TrackedRun, is_away, said
from lazypipe.tracking.record import ARRAYS, NAME

PATIENCE = 30.0  # seconds, at the end of a run


def finish(run: TrackedRun, record: Record, out: AnyPath) -> list[str]:
    """Send a run what came out, and end it; where the store is away for long, keep the rest in ``out``, and warn."""
    error = run.finish(record, out)
    if error is None:
        return []
    keep(out, run, record)  # at once: whatever happens while it waits
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
    keep(out, run, record)
    did = "did not answer" if is_away(error) else "did not take all"
    return [
        f"{store}: MLflow {did} ({said(error)}). What was not logged is in {out / NAME}; send it with "
        f"python -m jobs log --result {out}"
    ]


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{out / NAME}: is damaged ({said(error)}). Delete it: jobs log then sends what result.json holds."
        ) from error


def forget(out: AnyPath) -> None:
    """Take away what has been sent."""
    for name in (NAME, ARRAYS):
        _remove(out / name)


def write_whole(path: AnyPath, content: bytes) -> None:
    """Write a small file of a result, whole or not at all."""
    if isinstance(path, Place):
        with tempfile.TemporaryDirectory(prefix="lazypipe-file-") as folder:
            Path(folder, path.name).write_bytes(content)
            upload(Path(folder, path.name), path)
        return
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    partial.write_bytes(content)
    os.replace(partial, path)


def _remove(path: AnyPath) -> None:
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
    elif path.exists():
        with told(path.uri, "cannot be removed"):
            answer(path.file_system, "rm_file", path.uri)
