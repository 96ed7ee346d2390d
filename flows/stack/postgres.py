"""PostgreSQL of this machine: a database folder of our own, reached by a socket in it, on no port."""

from __future__ import annotations

from pathlib import Path

from flows.stack.config import StackConfig


def chosen(config: StackConfig) -> str:
    """``postgres`` or ``sqlite``."""
    return "sqlite"


def command(config: StackConfig) -> tuple[str, ...]:
    raise NotImplementedError


def sockets(config: StackConfig) -> Path:
    raise NotImplementedError


def user() -> str | None:
    raise NotImplementedError


def answers(config: StackConfig) -> None:
    raise NotImplementedError


def prepare(config: StackConfig) -> None:
    raise NotImplementedError


def make_databases(config: StackConfig) -> None:
    raise NotImplementedError


def prefect_uri(config: StackConfig) -> str:
    raise NotImplementedError


def mlflow_uri(config: StackConfig) -> str:
    raise NotImplementedError
