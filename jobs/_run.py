"""The course of a job that computes something from a matrix or a recording, and what it leaves.

Everything that can be refused is refused first: the output folder, the source, the engine, the plan,
the tracking store. Then comes the work; its result is moved into place whole, and only then logged. A result that
is there already is given instead, where that was asked for.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lazypipe as lp
from jobs._config import EngineConfig, RunConfig
from jobs._late import finish
from jobs._observed import observers
from jobs._opening import Opened, beside, open_run
from jobs._reuse import written
from jobs._trace import BytesRead, trace_of
from jobs._tracked import name_of, tracked
from jobs._work import Answer, Result, Work, browse
from lazypipe import tracking
from lazypipe.atomic import require_space
from lazypipe.console import ConsoleProgress
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.progress import Event, PassDone, Progress
from lazypipe.results import RECORD, Group, save_result
from lazypipe.secrets import hidden, hidden_in
from lazypipe.sizes import show_bytes
from lazypipe.stores import path_of
from lazypipe.tracking import Model, Record

__all__ = ["Answer", "Result", "Work", "browse", "carry_out", "memory_line", "open_engine", "plan"]

WARNINGS = (lp.DroppedSpikesWarning,)  # of the library, that a job tells in a line and keeps


def open_engine(config: EngineConfig, progress: Progress | None = None) -> Engine:
    """The engine that ``config`` asks for."""
    return lp.open_engine(
        config.kind,
        address=config.address,
        memory=config.memory,
        workers=config.workers,
        progress=progress or Progress(),
    )


def plan(config: RunConfig, work: Work) -> Plan | Result:
    """What the job would take; checks source, output folder and engine too, and reads no data.

    Or the result that it would give, where that is there and was asked for: then no engine is opened.
    """
    opened = open_run(config, work)
    if isinstance(opened, Result):
        return opened
    with open_engine(config.engine) as engine, _collected() as told:
        planned = work.plan(opened.data, engine)
    require_space(path_of(work.store or opened.out), planned.output_nbytes)
    _warn([*opened.warnings, *told])
    return planned


def carry_out(config: RunConfig, work: Work) -> Result:
    """Do the work of ``config``, save it, log it; or give the result that is there, where that was asked for."""
    opened = open_run(config, work)
    if isinstance(opened, Result):
        return opened
    _warn(opened.warnings)  # while there is time to stop
    out, data = opened.out, opened.data
    history: list[PassDone] = []
    reading = BytesRead()

    def remember(event: Event) -> None:
        if isinstance(event, PassDone):
            history.append(event)

    with ExitStack() as stack:  # the run is open for longer than the engine, whose workers need not wait for it
        with ConsoleProgress(work.name) as console:
            progress = Progress((console, remember, reading, *observers().listeners))
            with open_engine(config.engine, progress) as engine:
                with _collected():  # told by the work
                    planned = work.plan(data, engine)
                if work.store is None:
                    require_space(out, planned.output_nbytes)
                console.expected_passes = planned.passes
                trace: dict[str, Any] = hidden_in(trace_of(opened.key, data, engine))
                run = _begun(stack, config, work.name, opened, planned, trace)
                if run is not None:
                    progress.listeners.append(run)
                    trace["attempts"] = run.attempt
                engine.reset_peak()
                begun = time.monotonic()
                with _collected() as told:
                    answer = work.work(data, engine, history)
                told += answer.warnings
                measured = {
                    "seconds": time.monotonic() - begun,
                    "peak_memory_bytes": engine.peak_memory(),
                    "planned_peak_bytes": answer.plan.peak_nbytes,
                    "bytes_read": reading.total,
                }
                if answer.figures.get("passes") is not None:
                    measured["passes"] = answer.figures["passes"]
                pictures = _titled(answer.pictures(), f"{work.name} of {name_of(data)}")
                tables = hidden_in(answer.tables)
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
                    "seconds": measured["seconds"],
                    "peak_memory_bytes": measured["peak_memory_bytes"],
                    "engine": engine.describe(),
                    "plan": answer.plan.to_dict(),
                    "source": {
                        "uri": data.uri,
                        "shape": list(data.shape),
                        "dtype": str(data.dtype),
                        "fingerprint": data.fingerprint(),
                    },
                    "warnings": [*opened.warnings, *told],
                    "config": config.model_dump(mode="json"),
                    "mlflow": None if run is None else run.describe(),
                    "trace": trace | measured,
                    "metrics": answer.metrics | measured,
                    "note": answer.note,
                    "complete": answer.complete,
                    "files": [
                        *(f"{name}.npy" for name in answer.arrays),
                        *(f"{name}.zarr" for name in answer.groups),
                        *(f"{name}.csv" for name in answer.tables),
                        *answer.files,
                        *pictures,
                    ],
                    "lazypipe": lp.__version__,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                figures = hidden_in(figures)
                groups = {name: _without_secrets(group) for name, group in answer.groups.items()}

                def record(folder: Path) -> dict[str, Any]:
                    """Once all else is in the folder."""
                    figures["written"] = written(folder, figures["files"], beside(config), isinstance(out, Path))
                    return figures

                save_result(out, config.overwrite, record, answer.arrays, pictures, tables, groups, answer.files)
        if run is not None:
            files = [RECORD, *pictures, *(f"{name}.csv" for name in tables)]
            figures["warnings"] = [*figures["warnings"], *finish(run, _record(answer, measured, files), out)]
    _warn(figures["warnings"][len(opened.warnings) :])
    uri = hidden(config.tracking.store()) if run else ""
    return Result(work.name, out, figures, answer.model, run.run_id if run else None, uri)


def memory_line(figures: dict[str, Any]) -> str:
    """Measured and planned memory as a line of a job's summary."""
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


def _begun(
    stack: ExitStack, config: RunConfig, name: str, opened: Opened, plan: Plan, trace: dict[str, Any]
) -> tracking.TrackedRun | None:
    """The MLflow run, ended with ``stack``; None where none is wanted."""
    if not config.tracking.enabled:
        return None
    asked = config.model_dump(mode="json")
    run = tracked(config.tracking, name, asked, plan.to_dict(), opened.data, trace, opened.key)
    return stack.enter_context(run)


def _record(answer: Answer, measured: dict[str, Any], files: list[str]) -> Record:
    """What MLflow is told of what came out."""
    record = Record(tags=tracking.note(answer.note), files=files, children=list(answer.children()))
    record.add_metrics(answer.metrics | measured, answer.series)
    if answer.projection is not None:
        record.model = Model("projection", answer.projection)
    if answer.network is not None:
        record.model = Model("network", answer.network)
    return record


def _titled(pictures: dict[str, Any], title: str) -> dict[str, Any]:
    """Pictures, those without a title with this one."""
    for picture in pictures.values():
        if not any(picture.axes[0].get_title(loc) for loc in ("center", "left")):
            picture.axes[0].set_title(title, fontsize="medium")
    return pictures


def _without_secrets(group: Group) -> Group:
    return replace(group, attributes=hidden_in(group.attributes))
