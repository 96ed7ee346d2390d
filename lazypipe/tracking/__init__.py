"""Runs, figures and models in MLflow: what was asked, on which data, how it went, what came out.

Everything is logged from the driver, and never from a block. MLflow takes seconds to import: the
functions here do so when they are called.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np

from lazypipe.errors import ConfigError, EngineError
from lazypipe.progress import EpochDone, Event, PassDone, StepsDone
from lazypipe.tracking import fitted
from lazypipe.tracking.children import Child, Point, create_child, to_batches
from lazypipe.tracking.training import KEPT, named, next_sending

__all__ = ["Child", "Data", "Point", "TrackedRun", "flatten", "load_libraries", "require_store", "tracked_run"]

CONNECT_SECONDS = 4
PARAMETER_LENGTH = 500
NOTE_LENGTH = 5000
COMPONENTS_LOGGED = 20  # a metric each; past about 100 columns MLflow's pages slow down
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Data(Protocol):
    """What a run reads: a matrix, or a recording, a row (a sample) along the first axis of its shape."""

    @property
    def uri(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def fingerprint(self) -> str: ...


def load_libraries() -> None:
    """Import what a run will need, so that a plan made afterwards counts its memory."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow
    import mlflow.pyfunc

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.utils.logging_utils.disable_logging()


class TrackedRun:
    """One MLflow run. Call it with events: each ``PassDone`` becomes metrics at step ``index``.

    So do ``StepsDone`` and ``EpochDone`` at their ``step``, but these are sent together, every 2 seconds, and sending
    takes a twentieth of the time at most, also where the store is slow or away.
    """

    def __init__(self, client: Any, uri: str, run_id: str, experiment: str, experiment_id: str):
        self.client = client
        self.uri = uri
        self.run_id = run_id
        self.experiment = experiment
        self.experiment_id = experiment_id
        self.begun = int(time.time() * 1000)
        self.children: list[str] = []  # run ids
        self._waiting: list[tuple[str, float, int, int]] = []
        self._send_from = 0.0

    def __call__(self, event: Event) -> None:
        now = int(time.time() * 1000)
        if isinstance(event, PassDone):
            self._waiting.append(("residual", event.residual, now, event.index))
            for i, value in enumerate(event.explained_variance[:COMPONENTS_LOGGED], 1):
                self._waiting.append((f"explained_variance_{i}", value, now, event.index))
            self._try_to_flush()
        elif isinstance(event, StepsDone | EpochDone):
            self._waiting += [(name, value, now, event.step) for name, value in named(event)]
            begun = time.monotonic()
            if begun >= self._send_from:
                del self._waiting[:-KEPT]
                self._try_to_flush()
                done = time.monotonic()
                self._send_from = next_sending(done, done - begun)

    def log_metrics(self, metrics: Mapping[str, float], series: Iterable[Point] = ()) -> None:
        """Figures of the whole run, each logged once; and those that have several steps."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, 0) for name, value in metrics.items()]
        self._waiting += [(name, value, now, step) for name, value, step in series]
        self._flush()

    def log_note(self, text: str) -> None:
        """Markdown that the page of the run begins with."""
        self.client.set_tag(self.run_id, "mlflow.note.content", text[:NOTE_LENGTH])

    def log_child(self, child: Child) -> None:
        """A part of this run, as a run below it; MLflow lists them in the order in which they are logged."""
        begun = self.begun - len(self.children)
        self.children.append(create_child(self.client, self.experiment_id, self.run_id, child, begun))

    def log_file(self, path: Path) -> None:
        """A small file, beside the figures."""
        self.client.log_artifact(self.run_id, str(path))

    def log_projection(self, mean: np.ndarray, components: np.ndarray, scale: np.ndarray | None = None) -> None:
        """Mean (D,), components (k, D) and scale (D,) as a pyfunc model: rows (n, D) in, scores (n, k) out.

        ``mlflow.pyfunc.load_model("runs:/<run id>/model")`` brings it back; it needs numpy alone, not
        lazypipe. It has no signature: a million columns would make one of 100 MB.
        """
        fitted.log_projection(self.uri, self.run_id, mean, components, scale)

    def log_network(
        self,
        layers: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        activation: str = "relu",
        output: str = "softmax",
        classes: Any = None,
        divide_by: float = 1.0,
        example: Any = None,
        name: str = "model",
    ) -> None:
        """Weights (outputs, inputs) and biases (outputs,) of each layer as a pyfunc model: rows (n, D) in.

        Rows are divided by ``divide_by``; ``activation`` is that of the hidden layers, ``output`` ("softmax",
        "sigmoid", "linear") that of the last one. With ``classes`` (K,), in the order of the outputs, ``predict``
        gives the class of each row (n,), and probabilities (n, K) with ``params={"probabilities": True}``; else it
        gives the outputs (n, K). A stack of RBMs is layers of "sigmoid", its features the outputs of the last.

        ``mlflow.pyfunc.load_model("runs:/<run id>/<name>")`` brings it back; it needs numpy alone, not lazypipe nor
        torch, and takes arrays, DataFrames and CSR matrices of any numbers: its signature says nothing of what goes
        in, since MLflow would refuse whatever has not the one dtype of the signature. The first 3 rows of
        ``example`` go with it as its input example, except where they have more than 4,096 columns. ConfigError for
        layers that do not fit together, and for unknown names.
        """
        fitted.log_network(self.uri, self.run_id, name, layers, activation, output, divide_by, classes, example)

    def describe(self) -> dict[str, str]:
        """Where to find the run."""
        return {
            "uri": self.uri,
            "run_id": self.run_id,
            "experiment": self.experiment,
            "experiment_id": self.experiment_id,
        }

    def _finish(self) -> None:
        self._try_to_flush()
        self.client.set_terminated(self.run_id, "FINISHED")

    def _fail(self, error: BaseException) -> None:
        """Say why; a store that is away must not hide it."""
        try:
            for each in (*self.children, self.run_id):
                self.client.set_tag(each, "error", f"{type(error).__name__}: {error}".rstrip(": ")[:PARAMETER_LENGTH])
                self.client.set_terminated(each, "FAILED")
            self._flush()
        except Exception:
            logging.getLogger(__name__).warning("MLflow does not answer; the run is not marked as failed.")

    def _try_to_flush(self) -> None:
        try:
            self._flush()
        except Exception:  # a store that is away for a while must not cost a long fit: send it later
            logging.getLogger(__name__).warning("MLflow does not answer; the metrics will be sent later.")

    def _flush(self) -> None:
        from mlflow.entities import Metric

        for batch in list(to_batches(self._waiting)):
            self.client.log_batch(self.run_id, metrics=[Metric(*values) for values in batch])
            del self._waiting[: len(batch)]


@contextmanager
def tracked_run(uri: str, experiment: str, parameters: Mapping[str, Any], data: Data) -> Iterator[TrackedRun]:
    """A run of ``experiment`` (made if new) in the store at ``uri``; FAILED, with why, if the body raises.

    Its children fail with it.

    ``parameters`` are logged whole, nested names joined by dots; ``data`` becomes the run's dataset.
    Raises ConfigError for an address that is none, EngineError within 10 s where nobody answers.
    """
    load_libraries()
    require_store(uri)
    from mlflow import MlflowClient

    # Left from an outer run, this would make every run below its child.
    os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment_id = _experiment_id(client, experiment, uri)
        run_id = client.create_run(experiment_id).info.run_id
    except Exception as error:  # of MLflow, of its database driver, of HTTP: each has its own family
        what = " ".join(str(error).split("\n[SQL")[0].split())[:200].rstrip(".")
        raise EngineError(f"{uri}: MLflow cannot use this store: {what}. See --tracking.uri.") from error
    run = TrackedRun(client, uri, run_id, experiment, experiment_id)
    try:
        client.set_tag(run_id, "mlflow.source.name", "lazypipe")
        _log_parameters(client, run_id, parameters)
        _log_dataset(client, run_id, data)
        yield run
    except BaseException as error:
        run._fail(error)
        raise
    run._finish()


def require_store(uri: str) -> None:
    """Raise ConfigError or EngineError, within seconds, where ``uri`` cannot hold runs."""
    address = urlsplit(uri)
    scheme = address.scheme.split("+")[0]
    if scheme == "sqlite":
        file = _sqlite_file(uri)
        if not file.parent.is_dir():
            raise ConfigError(f"{uri}: no such folder {file.parent}. Make it, or change --tracking.uri.")
        return
    if scheme not in PORTS:
        known = ", ".join(["sqlite", *PORTS])
        raise ConfigError(f"tracking.uri: {uri!r} is no tracking store. Write it as one of {known}://...")
    try:
        port = address.port or PORTS[scheme]
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{uri}: no MLflow store answers ({error}). Start one with `mlflow server`, "
            f"or pass --tracking.enabled false."
        ) from error


def _sqlite_file(uri: str) -> Path:
    return Path(unquote(uri.partition(":///")[2])).absolute()


def _experiment_id(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # Beside the database, and not in whatever folder the first run happened to start from.
        place = (_sqlite_file(uri).parent / "mlruns" / name).as_uri() if uri.startswith("sqlite") else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another run may have made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _log_parameters(client: Any, run_id: str, parameters: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    flat = [Param(name, str(value)[:PARAMETER_LENGTH]) for name, value in flatten(parameters).items()]
    client.log_batch(run_id, params=flat)


def _log_dataset(client: Any, run_id: str, data: Data) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    n_rows, *others = data.shape
    profile = {"n_rows": n_rows, "n_columns": math.prod(others), "dtype": str(data.dtype)}
    spec = {"type": "tensor", "tensor-spec": {"dtype": str(data.dtype), "shape": [-1, *others]}}
    dataset = Dataset(
        name=Path(data.uri).name or data.uri,
        digest=data.fingerprint()[:36],
        source_type="local",
        source=json.dumps({"uri": data.uri}),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps([spec]), "targets": None}}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "fit")])])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"engine": {"kind": "dask"}}`` as ``{"engine.kind": "dask"}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
