"""Where a result comes from: key, data, code, host, engine, and what ran it; the same in result.json and in MLflow."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lazypipe as lp
from jobs._key import code_hash
from jobs._observed import observers
from lazypipe.engines import Engine
from lazypipe.progress import Event, StageDone, StageStarted, TaskDone
from lazypipe.tracking import Data

GIT_SECONDS = 5
OURS = ("lazypipe", "jobs", "flows")


def trace_of(key: str, data: Data, engine: Engine) -> dict[str, str]:
    """What is known before the work begins, by the names that result.json has."""
    return {
        "key": key,
        "data": data.fingerprint(),
        "code": code_hash(),
        **commit(),
        "host": socket.gethostname(),
        "engine": engine.describe(),
        **engine.trace(),
        **observers().tags,
    }


def tags_of(job: str, trace: Mapping[str, Any]) -> dict[str, str]:
    """The same as tags of an MLflow run, under the names that MLflow and Prefect have for them; no numbers."""
    tags = {"mlflow.source.name": f"python -m jobs {job}", "mlflow.source.type": "JOB"}
    for name, value in trace.items():
        if not isinstance(value, str):
            continue
        if name == "commit":
            tags["mlflow.source.git.commit"] = value
        elif "." in name:
            tags[name] = value
        else:
            tags[f"lazypipe.{name}"] = value
    return tags


@cache
def commit() -> dict[str, str]:
    """The git commit of the sources, and whether they differ from it; nothing where they lie in no checkout."""
    root = Path(lp.__file__).resolve().parents[1]
    try:
        if not _git(root, "ls-files", "lazypipe/__init__.py"):
            return {}  # an installed package, in a folder that happens to lie in some checkout
        head, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *OURS)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head, "dirty": "true" if changed else "false"}


def _git(root: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    done = subprocess.run(
        ("git", "-C", str(root), *arguments),
        check=True,
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


class BytesRead:
    """Listens to a run, and adds up what its stages were to read, as far as they got."""

    def __init__(self) -> None:
        self._done = 0
        self._stage = 0
        self._share = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._settle(self._share)  # one that was told of no end
            self._stage, self._share = event.n_bytes, 0.0
        elif isinstance(event, TaskDone):
            self._share = event.share if event.share is not None else event.n_done / max(1, event.n_tasks)
        elif isinstance(event, StageDone):
            self._settle(1.0)

    def _settle(self, share: float) -> None:
        self._done += int(self._stage * share)
        self._stage, self._share = 0, 0.0

    @property
    def total(self) -> int:
        """Bytes, that of a stage under way by the share of it that is done."""
        return self._done + int(self._stage * self._share)
