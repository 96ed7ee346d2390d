"""The folder of a stack: who holds it, and what was started with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from flows.stack.config import StackConfig
from lazypipe import building
from lazypipe.atomic import replacing

CONFIG = "stack.json"


def held(folder: Path) -> AbstractContextManager[None]:
    """Let one command at a time change a stack; DataError tells the process that holds it."""
    return building.held(folder, "cannot hold a stack", "another command holds this stack", "pass another --folder")


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
