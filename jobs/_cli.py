"""The command line of a job, made from its config: every field is an option, its description the help."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NoReturn, ParamSpec, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs._config import Config, ConfigType, resolve
from jobs._messages import option
from lazypipe.checks import nearest
from lazypipe.errors import ConfigError, LazypipeError
from lazypipe.secrets import hidden

__all__ = ["Parser", "command", "nearest", "parse", "piped", "reported", "terminated"]

PROGRAM = "python -m jobs"
NOBODY_READS = 128 + signal.SIGPIPE
GO_ON = ("state", "tiles", "arrays")  # fields of what a job that was interrupted goes on from

Given = ParamSpec("Given")


class _Formatter(argparse.HelpFormatter):
    """Fills lines as argparse does, but leaves those that are indented, which are examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        parts = re.split(r"^((?:  .*\n?)+)", inspect.cleandoc(text), flags=re.MULTILINE)
        return "\n\n".join(
            part.rstrip() if part.startswith("  ") else fill(part, width, indent) for part in parts if part.strip()
        )


class Parser(argparse.ArgumentParser):
    """argparse that raises ConfigError where it would exit, and takes -149,1 and -1e-3 for values, as it does -149."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False, argument_default=argparse.SUPPRESS, formatter_class=_Formatter)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].lower() + message[1:]}. See {self.prog} --help.")


def piped(main: Callable[Given, int]) -> Callable[Given, int]:
    """A ``main`` that ends without a word, and as by SIGPIPE, where nobody reads what it prints: ``| head -1``."""

    @wraps(main)
    def run(*given: Given.args, **named: Given.kwargs) -> int:
        try:
            code = main(*given, **named)
        except SystemExit as end:  # of --help, or SIGTERM
            if _printed() or end.code:
                raise
            return NOBODY_READS
        except BrokenPipeError:
            if not _reader_has_gone():
                raise
            _printed()
            return NOBODY_READS
        return code if _printed() else code or NOBODY_READS

    return run


def _printed() -> bool:
    """Whether what was printed went out; what is left of it goes nowhere, else Python would tell at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _reader_has_gone() -> bool:
    """Whether stdout is the pipe that broke, and not one to another machine."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


@piped
def command(
    name: str,
    model: type[ConfigType],
    run: Callable[[ConfigType], Any],
    argv: list[str] | None = None,
    show: Callable[[Any], None] | None = None,
) -> int:
    """Parse and resolve the config, ``run`` the job and ``show`` what comes out.

    Returns the exit code: 0, 2 for an error that a user can mend, 130 for Ctrl-C. SIGTERM exits with 143. Of a result
    that was there already only its place is told.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, terminated)
    sys.excepthook = _told_by_traceback
    config: ConfigType | None = None
    try:
        config = parse(name, model, arguments)
        result = run(config)
        if getattr(result, "reused", False):
            print("\n".join(result.lines()))
        elif show is not None:
            show(result)
    except (LazypipeError, KeyboardInterrupt) as error:
        code = reported(error, debug)
        if code == 130 and any(getattr(config, field, None) for field in GO_ON):
            print("What was done is kept: the same command goes on from there.", file=sys.stderr)
        return code
    except OSError as error:
        if error.filename is None:
            raise
        return reported(LazypipeError(f"{error.filename}: {error.strerror}."), debug)
    return 0


def terminated(*_: object) -> NoReturn:
    """End as after Ctrl-C: what is half-written goes, the tracked run is marked."""
    raise SystemExit(128 + signal.SIGTERM)


def _told_by_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Of an error that nobody foresaw, where it came from, without secrets."""
    print(hidden("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def reported(error: BaseException, debug: bool) -> int:
    """Tell ``error`` on stderr, in one line unless ``debug``, without secrets, and return the exit code."""
    if debug:
        _told_by_traceback(type(error), error, error.__traceback__)
    elif isinstance(error, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
    else:
        print(hidden(f"{type(error).__name__}: {' '.join(str(error).split())}"), file=sys.stderr)
    return 130 if isinstance(error, KeyboardInterrupt) else 2


def parse(
    name: str, model: type[ConfigType], arguments: list[str], program: str = PROGRAM, what: str | None = None
) -> ConfigType:
    """The config that ``arguments`` ask for; ConfigError names an unknown option and the nearest one.

    ``what`` is the command, in a sentence of its help; without it the config tells.
    """
    parser = _parser(f"{program} {name}", model, what)
    known, unknown = parser.parse_known_args([_kebab(argument) for argument in arguments])
    if unknown:
        options = [flag for action in parser._actions for flag in action.option_strings]
        word = next((text for text in unknown if text.startswith("-")), unknown[0]).split("=")[0]
        what = "unknown option" if word.startswith("-") else "unexpected argument"
        raise ConfigError(f"{word}: {what}{nearest(word, options)}. See {parser.prog} --help.")
    given = vars(known)
    parts = {name: Path(given[name]) for name, _ in _parts(model) if given.get(name)}
    fields = [dotted for dotted, _, _ in _fields(model)]
    options_given = {dotted: _one_or_all(given[dotted]) for dotted in fields if dotted in given}
    path = Path(given["config"]) if "config" in given else None
    return resolve(model, options_given, path, parts)


def _parser(program: str, model: type[Config], what: str | None) -> Parser:
    parser = Parser(
        prog=program,
        description=what or model.__doc__,
        epilog=f"Defaults < --config FILE <{' --engine FILE <' if 'engine' in model.model_fields else ''} options.",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the options below")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    groups: dict[str, Any] = {"": parser}
    for part, field in _parts(model):
        inner = field.annotation
        groups[part] = parser.add_argument_group(part, inner.__doc__ if inner else None)
        groups[part].add_argument(
            option(part),
            metavar="FILE",
            help=f"YAML file with all of these (conf/{part}s/ holds some)"
            if part == "engine"
            else "YAML file with all of these",
        )
    for dotted, part, field in _fields(model):
        text = (field.description or "").replace("%", "%%")
        default = "required" if field.is_required() else f"default: {_shown(field.default)}"
        flag: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        if _takes_several(field):
            flag = {"nargs": "+", "action": "extend"}
        groups[part].add_argument(
            option(dotted), dest=dotted, metavar=_metavar(field), help=f"{text} ({default})", **flag
        )
    return parser


def _parts(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The nested models among the fields of ``model``."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field


def _fields(model: type[BaseModel]) -> Iterable[tuple[str, str, FieldInfo]]:
    """(dotted name, nested model it is in or "", field) of all that is not a nested model."""
    nested = dict(_parts(model))
    for name, field in model.model_fields.items():
        if name not in nested:
            yield name, "", field
    for part, field in nested.items():
        assert field.annotation is not None
        for name, inner in field.annotation.model_fields.items():
            yield f"{part}.{name}", part, inner


def _takes_several(field: FieldInfo) -> bool:
    """Whether a field may hold a tuple: then its option takes several words, and may be repeated."""
    return any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))


def _one_or_all(words: str | list[str]) -> str | list[str]:
    """One word is text, as in YAML."""
    return words[0] if isinstance(words, list) and len(words) == 1 else words


def _kebab(argument: str) -> str:
    """``--n_components=3`` as ``--n-components=3``."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if argument.startswith("--") else argument


def _metavar(field: FieldInfo) -> str:
    names = dict.fromkeys(_kinds(field.annotation))
    if "NUMBER" in names:
        names.pop("INT", None)
    return "|".join(names)


def _kinds(annotation: Any) -> list[str]:
    """What a value, or an entry of it, may be."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ["{" + ",".join(inner) + "}" if len(inner) > 1 else str(inner[0])]
    if get_origin(annotation) is Annotated:
        return _kinds(inner[0])
    if inner:
        return [kind for part in inner for kind in _kinds(part)]
    if annotation in (type(None), Ellipsis):
        return []
    return [{int: "INT", float: "NUMBER", bool: "true|false"}.get(annotation, "TEXT")]


def _shown(value: Any) -> str:
    return (
        "none"
        if value is None or value is PydanticUndefined
        else str(value).lower()
        if isinstance(value, bool)
        else ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
    )
