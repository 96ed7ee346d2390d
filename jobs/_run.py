"""The course of a job that computes something from a matrix or a recording, and what it leaves.

Everything that can be refused is refused first: the output folder, the source, the engine, the plan,
the tracking store. Then comes the work; its result is moved into place whole, and only then logged.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import lazypipe as lp
from jobs._config import EngineConfig, JobConfig, RunConfig
from jobs._observed import observers
from lazypipe import tracking
from lazypipe.atomic import require_space
from lazypipe.console import ConsoleProgress
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.progress import Event, PassDone, Progress
from lazypipe.results import Group, Table, result_folder, save_result
from lazypipe.secrets import hidden
from lazypipe.sizes import show_bytes
from lazypipe.tracking import Child, Data, Point

INPUTS = ("source", "spikes", "exclude", "row_weights", "labels", "validation", "validation_labels", "unlabelled",
          "stack", "pretrained")  # fmt: skip
WARNINGS = (lp.DroppedSpikesWarning,)  # of the library, that a job tells in a line and keeps


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
    projection: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None  # mean, components, scale
    network: dict[str, Any] | None = None  # arguments of TrackedRun.log_network
    series: Sequence[Point] = ()  # metrics that have several steps
    note: str = ""  # what MLflow shows above all else, as markdown
    children: Callable[[], Iterable[Child]] = tuple  # runs below the run
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """A job's own part: its name, its plan, and the work itself. ``work`` gets the passes so far.

    ``store`` is where most of the result is written by the work itself, if not to the result folder.
    ``open`` gives the data that both are handed; without it they are the matrix that the config names.
    """

    name: str
    plan: Callable[[Any, Engine], Plan]
    work: Callable[[Any, Engine, list[PassDone]], Answer]
    store: str | None = None
    open: Callable[[], Data] | None = None


@dataclass(frozen=True)
class Result:
    """What a job left: the folder ``out``, all its figures, its MLflow run, and the fitted ``model``."""

    job: str
    out: Path
    figures: dict[str, Any]
    model: Any = field(repr=False)
    run_id: str | None = None
    tracking_uri: str = ""
    reused: bool = False  # it was there already: nothing was computed, and there is no model

    def lines(self) -> list[str]:
        """Where the result is, and how to look at the run."""
        lines = [f"result    {self.out}"]
        if self.run_id:
            lines += [
                f"mlflow    run {self.run_id}, experiment {self.figures['mlflow']['experiment']}",
                f"browse    {browse(self.tracking_uri)}",
            ]
        return lines


def browse(uri: str) -> str:
    """How to open the MLflow UI of a store."""
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def open_engine(config: EngineConfig, progress: Progress | None = None) -> Engine:
    """The engine that ``config`` asks for."""
    return lp.open_engine(
        config.kind,
        address=config.address,
        memory=config.memory,
        workers=config.workers,
        progress=progress or Progress(),
    )


def plan(config: RunConfig, work: Work) -> Plan:
    """What the job would take; checks source, output folder and engine too, and reads no data."""
    out, data = _opened(config, work)
    with open_engine(config.engine) as engine, _collected() as told:
        planned = work.plan(data, engine)
    require_space(Path(work.store or out), planned.output_nbytes)
    _warn(told)
    return planned


def carry_out(config: RunConfig, work: Work) -> Result:
    """Do the work of ``config``, save it, log it."""
    out, data = _opened(config, work)
    history: list[PassDone] = []

    def remember(event: Event) -> None:
        if isinstance(event, PassDone):
            history.append(event)

    with ConsoleProgress(work.name) as console:
        progress = Progress((console, remember, *observers().listeners))
        with open_engine(config.engine, progress) as engine:
            with _collected():  # told by the work
                planned = work.plan(data, engine)
            if work.store is None:
                require_space(out, planned.output_nbytes)
            console.expected_passes = planned.passes
            with _tracked(config, work.name, data, planned) as run:
                if run is not None:
                    progress.listeners.append(run)
                engine.reset_peak()
                begun = time.monotonic()
                with _collected() as told:
                    answer = work.work(data, engine, history)
                told += answer.warnings
                measured = {"seconds": time.monotonic() - begun, "peak_memory_bytes": engine.peak_memory()}
                figures = {
                    "job": work.name,
                    "history": [
                        {
                            "pass": event.index,
                            "residual": event.residual,
                            "explained_variance": list(event.explained_variance),
                        }
                        for event in history
                    ],
                    **answer.figures,
                    **measured,
                    "engine": engine.describe(),
                    "plan": answer.plan.to_dict(),
                    "source": {
                        "uri": data.uri,
                        "shape": list(data.shape),
                        "dtype": str(data.dtype),
                        "fingerprint": data.fingerprint(),
                    },
                    "warnings": told,
                    "config": config.model_dump(mode="json"),
                    "mlflow": None if run is None else run.describe(),
                    "lazypipe": lp.__version__,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                pictures = answer.pictures()
                for picture in pictures.values():
                    if not any(picture.axes[0].get_title(loc) for loc in ("center", "left")):
                        picture.axes[0].set_title(f"{work.name} of {Path(data.uri).name}", fontsize="medium")
                save_result(
                    out, config.overwrite, figures, answer.arrays, pictures, answer.tables, answer.groups, answer.files
                )
                if run is not None:
                    _log(run, out, answer, measured, [*pictures, *(f"{name}.csv" for name in answer.tables)])
    _warn(told)
    uri = hidden(config.tracking.store()) if run else ""
    return Result(work.name, out, figures, answer.model, run.run_id if run else None, uri)


def memory_line(figures: dict[str, Any]) -> str:
    """Measured and planned memory, and time, as a line of a job's summary."""
    peak, planned = figures["peak_memory_bytes"], figures["plan"]["peak_bytes"]
    return f"memory    peak {show_bytes(peak)}, planned {show_bytes(planned)}"


@contextmanager
def _collected() -> Iterator[list[str]]:
    """The messages of ``WARNINGS`` raised meanwhile, a line each; all other warnings go where they always go."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        for category in WARNINGS:
            warnings.simplefilter("always", category)
        try:
            yield told
        finally:
            told += [" ".join(str(one.message).split()) for one in caught if issubclass(one.category, WARNINGS)]
    for one in caught:
        if not issubclass(one.category, WARNINGS):
            warnings.showwarning(one.message, one.category, one.filename, one.lineno)


def _warn(told: Iterable[str]) -> None:
    for warning in told:
        print(f"Warning: {warning}", file=sys.stderr)


def _opened(config: RunConfig, work: Work) -> tuple[Path, Data]:
    """The result folder, which may be written, and the source; libraries are loaded for the plan to count."""
    out = result_folder(config.out, work.name, config.overwrite)
    _require_apart(config, out)
    if work.open is not None:
        data = work.open()
    else:
        assert isinstance(config, JobConfig)
        data = lp.open_matrix(config.source, column=config.column)
    _load_libraries(config)
    return out, data


def _load_libraries(config: RunConfig) -> None:
    """Before the plan is made, which counts the memory that libraries take."""
    import matplotlib.figure  # noqa: F401

    if config.tracking.enabled:
        tracking.load_libraries()


def _require_apart(config: RunConfig, out: Path) -> None:
    """Raise ConfigError where another output lies in the result folder, which is moved into place at the end."""
    for name in ("state", "tiles", "scores", "arrays"):
        given = getattr(config, name, None)
        if given and _lies_in(given, out):
            raise lp.ConfigError(
                f"{name}: {given} lies in the result folder {out}, which is put in place whole. Name one beside it."
            )
    for name in INPUTS:
        given = getattr(config, name, None)
        for one in (given,) if isinstance(given, str) else given or ():
            if isinstance(one, str) and _lies_in(one, out):
                raise lp.ConfigError(
                    f"{name}: {one} lies in the result folder {out}, which would replace it. Move one."
                )


def _lies_in(path: str, folder: Path) -> bool:
    return Path(path).expanduser().resolve().is_relative_to(folder.resolve())


def _tracked(config: RunConfig, name: str, data: Data, plan: Plan) -> Any:
    if not config.tracking.enabled:
        return nullcontext()
    parameters = config.model_dump(mode="json", exclude={"tracking"})
    planned = {"solver": plan.solver, "passes": plan.passes, "peak_bytes": plan.peak_bytes}
    parameters |= {"plan": {key: value for key, value in planned.items() if value is not None}}
    experiment = config.tracking.experiment or name
    return tracking.tracked_run(config.tracking.store(), experiment, parameters, data)


def _log(run: tracking.TrackedRun, out: Path, answer: Answer, measured: dict[str, float], files: Iterable[str]) -> None:
    try:
        if answer.note:
            run.log_note(answer.note)
        run.log_metrics(answer.metrics | measured, answer.series)
        for name in ("result.json", *files):
            run.log_file(out / name)
        for child in answer.children():
            run.log_child(child)
        if answer.projection is not None:
            run.log_projection(*answer.projection)
        if answer.network is not None:
            run.log_network(**answer.network)
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        raise lp.EngineError(f"{run.uri}: the result is saved in {out}, but MLflow did not take it: {what}.") from error
