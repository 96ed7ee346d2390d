"""Errors of a config in one line: where it was set, which field, what is wrong, what would do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

from lazypipe.checks import nearest
from lazypipe.secrets import hidden

FIELD_ERRORS_SHOWN = 3
KNOWN_SHOWN = 8


def explain(error: ValidationError, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    """One line for the first few faults of ``error``; ``origin`` tells where a dotted field was set."""
    found: dict[tuple[str, ...], Any] = {}  # of a union's kinds, that which got farthest
    for item in error.errors(include_url=False):
        path = _fields_in(item["loc"], model)
        if path not in found or len(item["loc"]) > len(found[path]["loc"]):
            found[path] = item
    lines = list(_explain_each(found, model, origin))
    more = len(lines) - FIELD_ERRORS_SHOWN
    return hidden("; ".join(lines[:FIELD_ERRORS_SHOWN]) + (f"; and {more} more" if more > 0 else "") + ".")


def option(name: str) -> str:
    """The command-line option of a dotted field name: ``engine.kind`` is ``--engine.kind``."""
    return "--" + name.replace("_", "-")


def some(known: Iterable[str], others: str = "") -> str:
    """``; known: a, b`` where they are few, else ``others``."""
    names = list(known)
    return f"; known: {', '.join(names)}" if len(names) <= KNOWN_SHOWN else others


def field_names(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """The names allowed in the (nested) model at ``path``."""
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _explain_each(
    found: Mapping[tuple[str, ...], Any], model: type[BaseModel], origin: Mapping[str, str]
) -> Iterator[str]:
    """A line each; unknown names come first, those of one place in one: it may be the config of another job."""
    strange: dict[tuple[str, ...], list[tuple[str, ...]]] = {}  # by the mapping that they are in
    for path, item in found.items():
        if item["type"] == "extra_forbidden":
            strange.setdefault(path[:-1], []).append(path)
    for inside, paths in strange.items():
        names = field_names(model, inside)
        where = _where(".".join(paths[0]), origin)
        if len(paths) == 1:
            hint = nearest(paths[0][-1], names)
            yield f"{where}: unknown name{hint or some(names, '; --help lists those of this job')}"
            continue
        place = where.removesuffix(paths[0][-1])
        hint = "; is it the config of another job? --help lists those of this one" if not inside else ""
        yield f"{place}{', '.join(path[-1] for path in paths)}: unknown names{some(names, hint)}"
    for path, item in found.items():
        if item["type"] != "extra_forbidden":
            yield _explain_one(path, item, model, origin)


def _where(name: str, origin: Mapping[str, str]) -> str:
    """What set a dotted field: its file, or its option."""
    set_in = next((file for leaf, file in origin.items() if f"{leaf}.".startswith(f"{name}.")), None)
    return option(name) if set_in in (None, "command line") else f"{set_in}: {name}"


def _explain_one(path: tuple[str, ...], item: Any, model: type[BaseModel], origin: Mapping[str, str]) -> str:
    name = ".".join(path)
    kind, value = item["type"], item.get("input")
    where = _where(name, origin)
    if kind == "missing":
        return f"{option(name)}: is missing; pass it, or write '{name}: ...' in the --config file"
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
