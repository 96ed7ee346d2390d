"""A job's own part (Work), what it gives (Answer), and what the job leaves (Result)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import lazypipe as lp
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.progress import PassDone
from lazypipe.results import Group, Table
from lazypipe.stores import AnyPath
from lazypipe.tracking import Child, Data, Point


@dataclass
class Answer:
    """What the work gave: arrays and pictures to save, figures for result.json, and what MLflow shows besides."""

    model: Any  # the fitted object
    plan: Plan
    arrays: dict[str, np.ndarray]
    figures: dict[str, Any]  # JSON values
    metrics: dict[str, float]
    pictures: Callable[[], dict[str, Any]] = dict  # file name -> matplotlib figure
    tables: dict[str, Table] = field(default_factory=dict)  # name -> rows, the first one its head
    groups: dict[str, Group] = field(default_factory=dict)  # name -> arrays that go to one Zarr group
    files: dict[str, Callable[[Path], Any]] = field(default_factory=dict)  # name -> what writes it
    projection: dict[str, np.ndarray] | None = None  # arguments of tracking.log_projection
    network: dict[str, Any] | None = None  # arguments of tracking.log_network
    series: Sequence[Point] = ()  # metrics that have several steps
    note: str = ""  # what MLflow shows above all else, as markdown
    children: Callable[[], Iterable[Child]] = tuple  # runs below the run
    warnings: list[str] = field(default_factory=list)
    complete: bool = True  # nothing failed in part, so that another run need not try again


@dataclass(frozen=True)
class Work:
    """A job's own part: its name, its plan, and the work itself. ``work`` gets the passes so far.

    ``store`` is where most of the result is written by the work itself, if not to the result folder.
    ``open`` gives the data that plan and work are handed; without it they are the matrix that the config names.
    """

    name: str
    plan: Callable[[Any, Engine], Plan]
    work: Callable[[Any, Engine, list[PassDone]], Answer]
    store: str | None = None
    open: Callable[[], Data] | None = None

    def opened(self, config: Any) -> Data:
        """The data, of which metadata are read: the matrix that ``config`` names, unless ``open`` gives others."""
        return self.open() if self.open is not None else lp.open_matrix(config.source, column=config.column)


@dataclass(frozen=True)
class Result:
    """What a job left: the folder ``out``, all its figures, its MLflow run, and the fitted ``model``."""

    job: str
    out: AnyPath
    figures: dict[str, Any]
    model: Any = field(repr=False)
    run_id: str | None = None
    tracking_uri: str = ""
    reused: bool = False  # it was there already: nothing was computed, and there is no model
    unlogged: str = ""  # the file beside it, if MLflow has not got all of it

    def lines(self) -> list[str]:
        """Where the result is, and how to look at the run."""
        lines = [self.unchanged() if self.reused else f"result    {self.out}"]
        if self.run_id:
            lines += [
                f"mlflow    run {self.run_id}, experiment {self.figures['mlflow']['experiment']}",
                f"browse    {browse(self.tracking_uri)}",
            ]
        if self.unlogged:
            lines.append(
                f"unlogged  MLflow has not got all of it; what it lacks is in {self.unlogged}: send it with "
                f"{command_to_log(self.out)}"
            )
        return lines

    def unchanged(self) -> str:
        """Why nothing was computed."""
        finished = self.figures["finished"]
        return f"unchanged same data, config and code as {self.out} (finished {finished}): nothing to do"


def command_to_log(out: AnyPath) -> str:
    """What sends a result to MLflow."""
    return f"python -m jobs log --result {shlex.quote(str(out))}"


def browse(uri: str) -> str:
    """How to open the MLflow UI of a store."""
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
