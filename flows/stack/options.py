"""The command line of the stack: every field of its config is an option."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.stack.config import StackConfig
from jobs._config import resolve
from jobs._messages import nearest
from lazypipe.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse that raises ConfigError where it would exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].lower() + message[1:]}. See {self.prog} --help.")


def parse(verb: str, what: str, arguments: list[str]) -> tuple[StackConfig, dict[str, Any]]:
    """The config that options ask for, and what else was given."""
    parser = Parser(
        prog=f"python -m flows.stack {verb}",
        description=what,
        epilog="Defaults < --config FILE < options.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the options below")
    for name, field in fields(StackConfig):
        flag: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        if name == "allowed_hosts":
            flag = {"nargs": "+"}
        default = "none" if field.default in (None, ()) else str(field.default)
        text = f"{field.description} (default: {default.lower() if field.annotation is bool else default})"
        parser.add_argument(option(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"), **flag)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        word = unknown[0].split("=")[0]
        options = [option(name) for name, _ in fields(StackConfig)]
        what = "unknown option" if word.startswith("-") else "unexpected argument"
        raise ConfigError(f"{word}: {what}{nearest(word, options)}. See {parser.prog} --help.")
    given = vars(known)
    path = Path(given.pop("config")) if "config" in given else None
    return resolve(StackConfig, given, path, {}), given


def option(name: str) -> str:
    """The option of a dotted field name."""
    return "--" + name.replace("_", "-")


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted names and fields of a model, with those of the models in it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field
