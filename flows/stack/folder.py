"""The folder of a stack: who holds it, and what was started with."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.stack.config import StackConfig
from lazypipe.atomic import replacing
from lazypipe.errors import ConfigError

LOCK = ".lock"
CONFIG = "stack.json"


@contextmanager
def held(folder: Path, verb: str) -> Iterator[None]:
    """Let one command at a time change a stack; ConfigError tells the process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot hold a stack: {error.strerror}. Pass another --folder.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.write(lock, f"process {os.getpid()} ({verb})".encode())
        yield
    except BlockingIOError as error:
        who = os.pread(lock, 100, 0).decode(errors="replace") or "another process"
        raise ConfigError(f"{folder}: {who} holds this stack. Wait for it, or pass another --folder.") from error
    finally:
        os.close(lock)  # which unlocks it, as the end of the process does


def save(config: StackConfig) -> None:
    """Keep what the stack was started with, for ``status``, ``down`` and the next ``up``."""
    with replacing(config.place / CONFIG, overwrite=True) as partial:
        partial.write_text(config.model_dump_json(indent=2) + "\n")


def saved(folder: Path) -> StackConfig | None:
    """What the stack was started with; None where none was."""
    try:
        return StackConfig.model_validate_json((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return None
