"""How a path tells its format: by suffix, by the first bytes of a file, by what a directory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from lazypipe.errors import DataError
from lazypipe.extras import require_packages
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath

# What Spark reads alone, by suffix, and as what.
TABLES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".orc": "orc",
    ".avro": "avro",
}


@dataclass(frozen=True)
class Format:
    """How to recognise a format, and the module that reads it."""

    module: str
    suffixes: tuple[str, ...]
    magic: bytes | None = None  # how a file begins
    inside: tuple[str, ...] = ()  # what a directory holds, as glob patterns
    needs: tuple[str, ...] = ()  # an extra of lazypipe, and the packages in it that read the format

    def load(self, package: str = "") -> Any:
        """The module, of ``package`` where one is given. Raises ConfigError where what it needs is not installed."""
        if self.needs:
            extra, *packages = self.needs
            require_packages(f"{self.suffixes[0]} files need", extra, *packages)
        return import_module(f"{package}.{self.module}" if package else self.module)


AnyFormat = TypeVar("AnyFormat", bound=Format)


def format_of(path: AnyPath, formats: Sequence[AnyFormat]) -> AnyFormat | None:
    """The format of a file by its suffix, else by its first bytes; of a directory by what it holds; None for neither.

    Raises DataError for a file that cannot be read.
    """
    if path.is_dir():
        return next((one for one in formats if any(next(path.glob(name), None) for name in one.inside)), None)
    for one in formats:
        if path.suffix.lower() in one.suffixes:
            return one
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check its rights.") from error
    return next((one for one in formats if one.magic and start.startswith(one.magic)), None)


def suffixes_of(formats: Sequence[Format]) -> str:
    """All suffixes, for a message."""
    return ", ".join(suffix for one in formats for suffix in one.suffixes)


def unknown(path: AnyPath) -> str:
    """What a message says of a file that no format knows."""
    return f"unknown suffix {path.suffix!r}" if path.suffix else "no suffix, and its first bytes tell nothing"
