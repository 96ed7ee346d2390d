"""Errors of a config in one line: where it was set, which field, what is wrong, what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

from lazypipe.secrets import hidden

FIELD_ERRORS_SHOWN = 3


def explain(error: ValidationError, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    """One line for the first few faults of ``error``; ``origin`` tells where a dotted field was set."""
    found: dict[tuple[str, ...], Any] = {}  # of a union's kinds, that which got farthest
    for item in error.errors(include_url=False):
        path = _fields_in(item["loc"], model)
        if path not in found or len(item["loc"]) > len(found[path]["loc"]):
            found[path] = item
    lines = [_explain_one(path, item, model, origin) for path, item in list(found.items())[:FIELD_ERRORS_SHOWN]]
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


def _explain_one(path: tuple[str, ...], item: Any, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    name = ".".join(path)
    kind, value = item["type"], item.get("input")
    set_in = next((file for leaf, file in origin.items() if f"{leaf}.".startswith(f"{name}.")), None)
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
    if value is None:
        return f"{where}: is empty; give a value"
    if kind == "string_too_short":
        return f"{where}: is empty; give a value, or leave it out"
    if kind == "model_type":
        return f"{where}: {value!r} is no mapping; its names are {', '.join(field_names(model, path))}"
    if kind == "string_type" and isinstance(value, int | float | date):
        return f"{where}: {value} is no text; put it in quotes"
    if kind == "bool_parsing":
        return f"{where}: {value!r} is neither true nor false"
    wish = item["msg"][0].lower() + item["msg"][1:].partition(", unable to ")[0]
    return f"{where}: {value!r}: {wish}"


def _fields_in(location: Iterable[int | str], model: type[BaseModel]) -> tuple[str, ...]:
    """The names in where an error is, as people write them: no number of an entry, and no kind of a union.

    The last name may be none of the model's, where that is the error.
    """
    found: list[str] = []
    inner: Any = model
    for part in location:
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        found.append(str(part))
        inner = inner.model_fields[found[-1]].annotation if part in inner.model_fields else None
    return tuple(found)
