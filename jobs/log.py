"""Send a result to MLflow afterwards: ``python -m jobs log --result results/pca-20261122T020000.000Z``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import BaseModel, Field, ValidationError

import lazypipe as lp
from jobs._cli import command
from jobs._config import Config, TrackingConfig
from jobs._late import PATIENCE, forget, keep, kept, write_whole
from jobs._tracked import tracked
from jobs._work import browse
from lazypipe import tracking
from lazypipe.io.damaged import DAMAGED
from lazypipe.io.sources import one_line
from lazypipe.results import RECORD
from lazypipe.secrets import hidden
from lazypipe.stores import AnyPath, as_given, on_disk
from lazypipe.tracking import PROJECTION, Model, Record, TrackedRun

SHOWN = (".png", ".csv")  # files of a result that MLflow gets, besides result.json
NETWORKS = ("mlp", "dbn")
UNTRACKED = "pass --tracking.enabled false"  # what a store that does not answer advises other jobs to do


class LogConfig(Config):
    """Send a result to MLflow afterwards: what a store that was away did not take, or a result that was not tracked.

      python -m jobs log --result results/pca
      python -m jobs log --result results/pca --tracking.uri http://127.0.0.1:5000

    What is in MLflow already is not logged twice. Of a result that was not tracked the runs below its run, such as the
    sizes of a sweep, are left out: the result does not hold them.
    """

    result: str = Field(min_length=1, description="result folder of a job")
    tracking: TrackingConfig = Field(TrackingConfig(), description="where the run is recorded")


@dataclass(frozen=True)
class Logged:
    """The run, and whether it held everything already."""

    run: Mapping[str, str]
    was_there: bool


class RecordedRun(BaseModel):
    """The MLflow run of a result, as its record tells it."""

    run_id: str
    experiment: str


class RecordedSource(BaseModel):
    """The data of a result, as its record tells them."""

    uri: str
    shape: tuple[int, ...]
    dtype: str
    fingerprint: str


class Recorded(BaseModel):
    """What a run is made of, in the record of a result; there is more in it."""

    job: str
    mlflow: RecordedRun | None
    source: RecordedSource
    config: dict[str, Any]
    plan: dict[str, Any]
    history: list[dict[str, Any]]
    files: list[str] = []
    metrics: dict[str, float] = {}
    trace: dict[str, Any] = {}


@dataclass(frozen=True)
class Source:
    """The data of a result, as those of a run."""

    uri: str
    shape: tuple[int, ...]
    dtype: np.dtype
    digest: str

    def fingerprint(self) -> str:
        return self.digest


def run(config: LogConfig) -> Logged:
    """Send what MLflow has not got; EngineError where it does not take it."""
    if not config.tracking.enabled:
        raise lp.ConfigError("tracking.enabled: is false, and this job does nothing but track. Leave it out.")
    out, uri = as_given(config.result), config.tracking.store()
    figures = _figures(out)
    _require_store(uri)
    late, before = kept(out), figures["mlflow"]
    found = tracking.reopened(uri, before["run_id"], before["experiment"]) if before else None
    if found is not None and late is None and found.is_finished():
        return Logged(found.describe(), was_there=True)
    if found is not None and late is not None:
        return _sent(found, late[0], out, figures)
    record = _record(out, figures)
    if late is not None:
        record.children, record.model = late[0].children, late[0].model
    if found is not None:
        return _sent(found, record, out, figures)
    source = figures["source"]
    data = Source(source["uri"], tuple(source["shape"]), np.dtype(source["dtype"]), source["fingerprint"])
    trace = figures.get("trace") or {}
    with tracked(config.tracking, figures["job"], figures["config"], figures["plan"], data, trace) as fresh:
        return _sent(fresh, record, out, figures)


def _figures(out: AnyPath) -> dict[str, Any]:
    """What the record of a result holds. DataError where there is none, or none that a run can be made of."""
    path = out / RECORD

    def damaged(what: str) -> NoReturn:
        raise lp.DataError(f"{path}: is damaged ({what}). Run the job again.") from None

    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        Recorded.model_validate(figures)
    except (FileNotFoundError, NotADirectoryError):
        raise lp.DataError(
            f"{out}: is no result of a job (it holds no {RECORD}). Pass its folder as --result."
        ) from None
    except OSError as error:
        raise lp.DataError(f"{path}: cannot be read: {error.strerror or error}. Check its rights.") from error
    except ValidationError as error:
        first = error.errors()[0]
        name, said = ".".join(map(str, first["loc"])), first["msg"].partition(" or instance of")[0]
        missing = first["type"] == "missing"
        damaged(f"it holds no {name}" if missing else f"{name or 'record'}: {said[0].lower()}{said[1:]}")
    except (ValueError, RecursionError):
        damaged("it is no JSON")
    return dict(figures)


def _require_store(uri: str) -> None:
    """EngineError where the store does not answer; not to track, as other jobs may, is no way out of this one."""
    try:
        tracking.require_store(uri)
    except lp.EngineError as error:
        raise lp.EngineError(str(error).replace(UNTRACKED, "pass another --tracking.uri")) from error


def _sent(run: TrackedRun, record: Record, out: AnyPath, figures: dict[str, Any]) -> Logged:
    """Send it, and note in the result which run it is."""
    error = run.finish_within(PATIENCE, record, out)
    if figures["mlflow"] != run.describe():
        write_whole(out / RECORD, (json.dumps(figures | {"mlflow": run.describe()}, indent=2) + "\n").encode())
    if error is not None:
        keep(out, run, record)
        raise lp.EngineError(
            f"{hidden(run.uri)}: MLflow did not take all of {out} ({tracking.said(error)}). The rest is kept; send it "
            f"later with the same command."
        ) from error
    forget(out)
    return Logged(run.describe(), was_there=False)


def _record(out: AnyPath, figures: dict[str, Any]) -> Record:
    """What MLflow is to hold of a result, from its folder alone."""
    files = [RECORD, *(name for name in figures.get("files", ()) if name.endswith(SHOWN))]
    record = Record(tags=tracking.note(figures.get("note", "")), files=files, model=_model(out, figures))
    record.add_metrics(figures.get("metrics", {}), _series(figures["history"]))
    return record


def _series(history: list[dict[str, Any]]) -> list[tracking.Point]:
    """Passes of a fit, or epochs of a training, as metrics by step."""
    if history and "epoch" in history[0]:
        from jobs._trained import unheard

        measured = [{name: value for name, value in epoch.items() if value is not None} for epoch in history]
        return unheard(measured, ())
    return tracking.points_of(
        [(one["pass"], one["residual"], one["explained_variance"]) for one in history if "pass" in one]
    )


def _model(out: AnyPath, figures: dict[str, Any]) -> Model | None:
    """Components of a pca, layers of a network, or of a machine."""
    files = figures.get("files", ())
    if figures["job"] == "pca" and "components.npy" in files:
        names = [name for name in PROJECTION if f"{name}.npy" in files]
        return Model("projection", {name: _array(out / f"{name}.npy") for name in names})
    if figures["job"] in (*NETWORKS, "rbm"):
        from jobs._trained import network_of, network_of_machine

        path, divide_by = out / "model.safetensors", figures["config"]["divide_by"]
        if figures["job"] in NETWORKS:
            return Model("network", network_of(lp.MLP.load(path), divide_by))
        return Model("network", network_of_machine(lp.RBM.load(path), divide_by))
    return None


def _array(path: AnyPath) -> np.ndarray:
    try:
        with on_disk(path) as local:
            return np.asarray(np.load(local, allow_pickle=False))
    except lp.DataError:
        raise
    except DAMAGED as error:
        raise lp.DataError(f"{path}: is not a readable .npy file ({one_line(error)}). Run the job again.") from error


def show(logged: Logged) -> None:
    """Which run it is, and how to look at it."""
    told = "is in MLflow already: nothing to do" if logged.was_there else f"experiment {logged.run['experiment']}"
    print(f"mlflow    run {logged.run['run_id']}, {told}")
    print(f"browse    {logged.run.get('url') or browse(logged.run['uri'])}")


def main(argv: list[str] | None = None) -> int:
    return command("log", LogConfig, run, argv, show)


if __name__ == "__main__":
    sys.exit(main())
