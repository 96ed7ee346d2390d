"""The course of a job that computes something from a matrix, and what it leaves.

Everything that can be refused is refused first: the output folder, the source, the engine, the plan,
the tracking store. Then comes the work; its result is moved into place whole, and only then logged.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import lazypipe as lp
from jobs._config import EngineConfig, JobConfig
from lazypipe import tracking
from lazypipe.atomic import require_space
from lazypipe.console import ConsoleProgress
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Plan
from lazypipe.progress import Event, PassDone, Progress
from lazypipe.results import result_folder, save_result
from lazypipe.sizes import show_bytes


@dataclass
class Answer:
    """What the work gave: arrays and pictures to save, figures for result.json, and what MLflow shows besides."""

    model: Any  # the fitted object
    plan: Plan
    arrays: dict[str, np.ndarray]
    figures: dict[str, Any]  # JSON values
    metrics: dict[str, float]
    pictures: Callable[[], dict[str, Any]] = dict  # file name -> matplotlib figure
    projection: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None  # mean, components, scale
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """A job's own part: its name, its plan, and the work itself. ``work`` gets the passes so far.

    ``store`` is where most of the result is written by the work itself, if not to the result folder.
    """

    name: str
    plan: Callable[[Matrix, Engine], Plan]
    work: Callable[[Matrix, Engine, list[PassDone]], Answer]
    store: str | None = None


@dataclass(frozen=True)
class Result:
    """What a job left: the folder ``out``, all its figures, its MLflow run, and the fitted ``model``."""

    job: str
    out: Path
    figures: dict[str, Any]
    model: Any = field(repr=False)
    run_id: str | None = None
    tracking_uri: str = ""

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


def plan(config: JobConfig, work: Work) -> Plan:
    """What the job would take; checks source, output folder and engine too, and reads no data."""
    out, matrix = _opened(config, work)
    with open_engine(config.engine) as engine:
        planned = work.plan(matrix, engine)
    require_space(Path(work.store or out), planned.output_nbytes)
    return planned


def carry_out(config: JobConfig, work: Work) -> Result:
    """Do the work of ``config``, save it, log it."""
    out, matrix = _opened(config, work)
    history: list[PassDone] = []

    def remember(event: Event) -> None:
        if isinstance(event, PassDone):
            history.append(event)

    with ConsoleProgress(work.name) as console:
        progress = Progress((console, remember))
        with open_engine(config.engine, progress) as engine:
            planned = work.plan(matrix, engine)
            if work.store is None:
                require_space(out, planned.output_nbytes)
            console.expected_passes = planned.passes
            with _tracked(config, work.name, matrix, planned) as run:
                if run is not None:
                    progress.listeners.append(run)
                engine.reset_peak()
                begun = time.monotonic()
                answer = work.work(matrix, engine, history)
                measured = {"seconds": time.monotonic() - begun, "peak_memory_bytes": engine.peak_memory()}
                figures = {
                    "job": work.name,
                    **answer.figures,
                    **measured,
                    "engine": engine.describe(),
                    "plan": answer.plan.to_dict(),
                    "history": [
                        {
                            "pass": event.index,
                            "residual": event.residual,
                            "explained_variance": list(event.explained_variance),
                        }
                        for event in history
                    ],
                    "source": {
                        "uri": matrix.uri,
                        "shape": list(matrix.shape),
                        "dtype": str(matrix.dtype),
                        "fingerprint": matrix.fingerprint(),
                    },
                    "config": config.model_dump(mode="json"),
                    "mlflow": None if run is None else run.describe(),
                    "lazypipe": lp.__version__,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                pictures = answer.pictures()
                for picture in pictures.values():
                    picture.axes[0].set_title(f"{work.name} of {Path(matrix.uri).name}", fontsize="medium")
                save_result(out, config.overwrite, figures, answer.arrays, pictures)
                if run is not None:
                    _log(run, out, answer, measured, pictures)
    for warning in answer.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    uri = config.tracking.uri
    return Result(work.name, out, figures, answer.model, run.run_id if run else None, uri if run else "")


def memory_line(figures: dict[str, Any]) -> str:
    """Measured and planned memory, and time, as a line of a job's summary."""
    peak, planned = figures["peak_memory_bytes"], figures["plan"]["peak_bytes"]
    return f"memory    peak {show_bytes(peak)}, planned {show_bytes(planned)}"


def _opened(config: JobConfig, work: Work) -> tuple[Path, Matrix]:
    """The result folder, which may be written, and the source; libraries are loaded for the plan to count."""
    out = result_folder(config.out, work.name, config.overwrite)
    _require_apart(config, out)
    matrix = lp.open_matrix(config.source, column=config.column)
    _load_libraries(config)
    return out, matrix


def _load_libraries(config: JobConfig) -> None:
    """Before the plan is made, which counts the memory that libraries take."""
    import matplotlib.figure  # noqa: F401

    if config.tracking.enabled:
        tracking.load_libraries()


def _require_apart(config: JobConfig, out: Path) -> None:
    """Raise ConfigError where another output lies in the result folder, which is moved into place at the end."""
    for name in ("state", "tiles", "scores"):
        given = getattr(config, name, None)
        if given and Path(given).expanduser().absolute().is_relative_to(out.absolute()):
            raise lp.ConfigError(
                f"{name}: {given} lies in the result folder {out}, which is put in place whole. Name one beside it."
            )


def _tracked(config: JobConfig, name: str, matrix: Matrix, plan: Plan) -> Any:
    if not config.tracking.enabled:
        return nullcontext()
    parameters = config.model_dump(mode="json", exclude={"tracking"})
    planned = {"solver": plan.solver, "passes": plan.passes, "peak_bytes": plan.peak_bytes}
    parameters |= {"plan": {key: value for key, value in planned.items() if value is not None}}
    experiment = config.tracking.experiment or name
    return tracking.tracked_run(config.tracking.uri, experiment, parameters, matrix)


def _log(
    run: tracking.TrackedRun, out: Path, answer: Answer, measured: dict[str, float], pictures: Iterable[str]
) -> None:
    try:
        run.log_metrics(answer.metrics | measured)
        for name in ("result.json", *pictures):
            run.log_file(out / name)
        if answer.projection is not None:
            run.log_projection(*answer.projection)
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        raise lp.EngineError(f"{run.uri}: the result is saved in {out}, but MLflow did not take it: {what}.") from error
