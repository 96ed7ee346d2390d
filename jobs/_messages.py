"""Errors of a config in one line: where it was set, which field, what is wrong, what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from lazypipe.secrets import hidden

FIELD_ERRORS_SHOWN = 3


def explain(error: ValidationError, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    """One line for the first few faults of ``error``; ``origin`` tells where a dotted field was set."""
    found = error.errors(include_url=False)
    lines = [_explain_one(item, model, origin) for item in found[:FIELD_ERRORS_SHOWN]]
    more = len(found) - FIELD_ERRORS_SHOWN
    return hidden("; ".join(lines) + (f"; and {more} more" if more > 0 else "") + ".")


def option(name: str) -> str:
    """The command-line option of a dotted field name: ``engine.kind`` is ``--engine.kind``."""
    return "--" + name.replace("_", "-")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; the nearest is 'x'``, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; the nearest is {close[0]!r}" if close else ""


def field_names(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """The names allowed in the (nested) model at ``path``."""
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _explain_one(item: Any, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    path = tuple(str(part) for part in item["loc"])
    name = ".".join(path)
    kind, value = item["type"], item.get("input")
    set_in = origin.get(name)
    where = option(name) if set_in in (None, "command line") else f"{set_in}: {name}"
    if kind == "missing":
        return f"{option(name)}: is missing; pass it, or write '{name}: ...' in the --config file"
    if kind == "extra_forbidden":
        names = field_names(model, path[:-1])
        return f"{where}: unknown name{nearest(path[-1], names) or '; known: ' + ', '.join(names)}"
    if kind == "literal_error":
        choices = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"{where}: {value!r} is not one of {choices}"
    if kind == "value_error":
        return f"{where}: {str(item['ctx']['error']).removeprefix(f'{path[-1]}: ')}".rstrip(".")
    wish = item["msg"][0].lower() + item["msg"][1:]
    return f"{where}: {value!r}: {wish}"
