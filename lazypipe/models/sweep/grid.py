"""The grid of a sweep: sizes × strengths × seeds × models, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lazypipe.checks import REAL, above_0, from_0, is_whole, whole
from lazypipe.errors import ConfigError, DataError
from lazypipe.models.sweep.fitted import Model, Options

SIZES = (50, *range(200, 1001, 100), *range(2000, 5001, 1000), 10_000, 50_000, 100_000, 200_000)
STRENGTHS = (1.0, 0.1, 0.01, 0.001)
LARGE_STRENGTHS = (1000.0, 100.0, 10.0, 1.0)  # with deep or dbn: the weights of stacks are large, and penalised
MODELS = ("logistic", "sgd", "mlp", "deep", "dbn", "ridge")  # one file each, beside this one
NETWORKS = ("mlp", "deep", "dbn")  # models with hidden layers, which need torch
PRETRAINED = ("deep", "dbn")  # those that a stack is of: one has its layers, the other its weights too
REGRESSIONS = ("ridge",)
SHOWN = 8

Value = TypeVar("Value")


@dataclass(frozen=True)
class Grid:
    """What is asked for. ``seeds`` (None,): the rows as given."""

    models: tuple[str, ...]
    sizes: tuple[int, ...]
    strengths: tuple[float, ...]
    seeds: tuple[int | None, ...]

    @property
    def regression(self) -> bool:
        return self.models[0] in REGRESSIONS

    @property
    def n_cells(self) -> int:
        return len(self.models) * len(self.sizes) * len(self.strengths) * len(self.seeds)


def model_of(name: str) -> Model:
    """The functions of a model, from its file. ConfigError where it needs torch, and that is missing."""
    module: Any = import_module(f"lazypipe.models.sweep.{name}")
    return module


def grid_of(models: Any, sizes: Any, strengths: Any, seeds: Any) -> Grid:
    """The grid as given, sizes rising and strengths falling; ConfigError for what cannot be.

    ``sizes`` None stays empty: the default ones that the data have (``fit_to``).
    """
    names = _several(models, "model", str)
    for name in names:
        if name not in MODELS:
            raise ConfigError(f"model: {name!r} is not one of {', '.join(MODELS)}.")
    if len({name in REGRESSIONS for name in names}) > 1:
        raise ConfigError("model: ridge is a regression, the others sort into classes. Sweep them apart.")
    counts = () if sizes is None else _several(sizes, "sizes", int)
    for count in counts:
        if count < 1:
            raise ConfigError(f"sizes: {count} is no number of rows. Give 1 or more.")
    usual = LARGE_STRENGTHS if set(PRETRAINED) & set(names) else STRENGTHS
    given = _several(usual if strengths is None else strengths, "strengths", float)
    for strength in given:
        if not 0 < strength < np.inf:
            raise ConfigError(
                f"strengths: C = {strength:g} is no strength. Give numbers above 0; less regularizes more."
            )
    order: tuple[int | None, ...] = (None,) if seeds is None else _several(seeds, "seeds", int)
    for seed in order:
        if seed is not None and seed < 0:
            raise ConfigError(f"seeds: {seed} is negative. Give 0 or more.")
    return Grid(names, tuple(sorted(counts)), tuple(sorted(given, reverse=True)), order)


def fit_to(grid: Grid, n_rows: int, uri: str, allow_smaller: bool) -> Grid:
    """The grid with sizes that the data have; DataError names those beyond, unless those may be left out."""
    if not grid.sizes:
        sizes = tuple(size for size in SIZES if size <= n_rows) or (n_rows,)
        return Grid(grid.models, sizes, grid.strengths, grid.seeds)
    beyond = [size for size in grid.sizes if size > n_rows]
    fitting = tuple(size for size in grid.sizes if size <= n_rows)
    if beyond and not (allow_smaller and fitting):
        raise DataError(
            f"{uri}: has {n_rows:,} rows, too few for sizes {_listed(f'{size:,}' for size in beyond)}. "
            + ("Allow smaller ones (--allow-smaller) to do those that fit." if fitting else "Give smaller sizes.")
        )
    return Grid(grid.models, fitting, grid.strengths, grid.seeds)


def checked_options(**values: Any) -> Options:
    """The options of the models; ConfigError for one out of range."""
    checked = dict(values)
    for name in ("epochs", "batch_size", "max_passes"):
        checked[name] = whole(values[name], name)
    for name in ("learning_rate", "tol"):
        checked[name] = above_0(values[name], name)
    checked["momentum"] = from_0(values["momentum"], "momentum", below=1.0)
    checked["hidden"] = hidden_of(values["hidden"])
    if isinstance(values["pretrained"], str | Path):
        from lazypipe.nets.stack import load_stack

        checked["pretrained"] = load_stack(values["pretrained"])
    return Options(**checked)


def hidden_of(units: Any) -> tuple[int, ...]:
    """Units of one hidden layer or several."""
    several = units if isinstance(units, Iterable) and not isinstance(units, str) else [units]
    return tuple(whole(n, "hidden") for n in several)


def require_stack(grid: Grid, options: Options, n_features: int, divide_by: float) -> None:
    """ConfigError unless there is a pre-trained stack where a model needs one, and it is of such rows."""
    stack = options.pretrained
    if stack is None:
        if "dbn" in grid.models:
            raise ConfigError(
                "dbn: there is no stack to start from. Give pretrained= (--pretrained), a file that the job dbn left."
            )
        return
    if not set(PRETRAINED) & set(grid.models):
        raise ConfigError(f"pretrained: no model starts from it. Leave it out, or sweep {' or '.join(PRETRAINED)} too.")
    if stack.units[0] != n_features:
        raise ConfigError(
            f"pretrained: the stack has {stack.units[0]:,} inputs, but the rows {n_features:,} columns. Give the stack "
            f"of such rows."
        )
    if stack.divide_by != divide_by:
        raise ConfigError(
            f"pretrained: the stack learnt from entries divided by {stack.divide_by:g}, and these are divided by "
            f"{divide_by:g}. Give divide_by={stack.divide_by:g} (--divide-by)."
        )


def _several(values: Any, name: str, kind: type[Value]) -> tuple[Value, ...]:
    """One or several values of a kind, none twice."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    entries = list(values)
    if not entries:
        raise ConfigError(f"{name}: is empty. Give one at least, or leave it out.")
    for entry in entries:
        fits = is_whole(entry) if kind is int else isinstance(entry, kind if kind is str else REAL)
        if not fits or isinstance(entry, bool):
            raise ConfigError(f"{name}: {entry!r} is not {_article(kind)}.")
    try:
        found = [kind(entry) for entry in entries]  # type: ignore[call-arg]
    except OverflowError:
        raise ConfigError(f"{name}: a whole number of more than 308 digits. Give a smaller one.") from None
    twice = sorted({entry for entry in found if found.count(entry) > 1})  # type: ignore[type-var]
    if twice:
        raise ConfigError(f"{name}: {_listed(f'{entry}' for entry in twice)} is there twice. Give each once.")
    return tuple(found)


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a name"}[kind]


def _listed(values: Iterable[str]) -> str:
    entries = list(values)
    more = "" if len(entries) <= SHOWN else f" and {len(entries) - SHOWN} more"
    return ", ".join(entries[:SHOWN]) + more
