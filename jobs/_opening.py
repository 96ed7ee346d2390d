"""What a run needs before it begins: where its result goes, its data, and whether there is such a result already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lazypipe as lp
from jobs._config import RunConfig
from jobs._key import INPUTS, inputs_of, run_key
from jobs._late import run_waiting
from jobs._reuse import find_result
from jobs._work import Result, Work, command_to_log
from lazypipe import tracking
from lazypipe.atomic import require_free
from lazypipe.results import result_folder
from lazypipe.stores import AnyPath, path_of
from lazypipe.tracking import Data
from lazypipe.tracking.record import NAME as UNLOGGED

BESIDE = ("tiles", "scores", "arrays")  # fields that name what the work writes beside the result folder


@dataclass(frozen=True)
class Opened:
    """What is known before the work: where its result goes, the source, their key, and what there is to mind."""

    out: AnyPath
    data: Data
    key: str
    warnings: tuple[str, ...] = ()


def open_run(config: RunConfig, work: Work) -> Opened | Result:
    """The result folder, which may be written, and the source; or the result that is there, where that was asked for.

    Libraries are loaded for the plan to count.
    """
    if config.reuse and getattr(config, "restart", False):
        raise lp.ConfigError("reuse: with restart, which asks to compute anew. Give one of the two.")
    if not config.reuse:
        out = _free(config, work)
    data = work.opened(config)
    key = run_key(work.name, config, data)
    if config.reuse:
        found = find_result(work.name, config.out, key, beside(config))
        if found is not None:
            return _as_result(work.name, *found)
        out = _free(config, work)
    _load_libraries(config)
    return Opened(out, data, key, _warnings(out) if config.overwrite else ())


def beside(config: RunConfig) -> dict[str, str]:
    """What the work writes beside the result folder, by the field that names it."""
    return {name: given for name in BESIDE if (given := getattr(config, name, None))}


def _free(config: RunConfig, work: Work) -> AnyPath:
    """The result folder; DataError or ConfigError where it, or what is written beside it, may not be written."""
    out = result_folder(config.out, work.name, config.overwrite)
    _require_apart(config, out)
    for given in beside(config).values():
        require_free(given, config.overwrite)
    return out


def _warnings(out: AnyPath) -> tuple[str, ...]:
    """What is lost with a result that is replaced."""
    run = run_waiting(out)
    if run is None:
        return ()
    return (
        f"{out}: is replaced, and {UNLOGGED} in it, which MLflow has not got yet of run {run}. To keep that, stop here "
        f"and send it first: {command_to_log(out)}",
    )


def _as_result(job: str, out: AnyPath, figures: dict[str, Any]) -> Result:
    """A result that is there already."""
    run = figures["mlflow"] or {}
    unlogged = "" if run_waiting(out) is None else str(out / UNLOGGED)
    return Result(job, out, figures, None, run.get("run_id"), run.get("uri", ""), reused=True, unlogged=unlogged)


def _load_libraries(config: RunConfig) -> None:
    """Before the plan is made, which counts the memory that libraries take."""
    import matplotlib.figure  # noqa: F401

    if config.tracking.enabled:
        tracking.require_store(config.tracking.store())  # first: to import MLflow takes seconds
        tracking.load_libraries()


def _require_apart(config: RunConfig, out: AnyPath) -> None:
    """Raise ConfigError where another output lies in the result folder, which is moved into place at the end."""
    for name in ("state", *BESIDE):
        given = getattr(config, name, None)
        if given and _lies_in(given, out):
            raise lp.ConfigError(
                f"{name}: {given} lies in the result folder {out}, which is put in place whole. Name one beside it."
            )
    for name in INPUTS:
        for one in inputs_of(config, name):
            if _lies_in(one, out):
                raise lp.ConfigError(
                    f"{name}: {one} lies in the result folder {out}, which would replace it. Move one."
                )


def _lies_in(path: str, folder: AnyPath) -> bool:
    return f"{path_of(path).resolve()}/".startswith(f"{path_of(folder).resolve()}/")
