"""Which run a job is told to: a new one, or that of an earlier attempt; and how it ends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lazypipe.secrets import hidden, hidden_in
from lazypipe.tracking import attempts
from lazypipe.tracking.parameters import flatten, log_parameters
from lazypipe.tracking.run import TrackedRun
from lazypipe.tracking.store import experiment_id_of, is_away, load_libraries, require_store, told


class Data(Protocol):
    """What a run reads: a matrix, or a recording, a row (a sample) along the first axis of its shape."""

    @property
    def uri(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def fingerprint(self) -> str: ...


@contextmanager
def tracked_run(
    uri: str,
    experiment: str,
    parameters: Mapping[str, Any],
    data: Data,
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Iterator[TrackedRun]:
    """A run of ``experiment`` (made if new) in the store at ``uri``; FAILED, with why, if the body raises.

    KILLED where an interrupt or a signal ends it. Its children end with it.

    ``parameters`` are logged whole, nested names joined by dots; ``data`` becomes the run's dataset. With a ``key``, of
    data, config and code, an attempt after one that failed or was killed goes on in the run that is there: it has the
    tag ``lazypipe.attempts``, and the steps that were logged are not logged again.

    Raises ConfigError for an address that is none, EngineError within 10 s where nobody answers.
    """
    run = _opened(uri, experiment, parameters, data, name, tags or {}, key)
    try:
        yield run
    except BaseException as error:
        run._fail(error)
        raise
    run._end()


def _opened(
    uri: str,
    experiment: str,
    parameters: Mapping[str, Any],
    data: Data,
    name: str | None,
    tags: Mapping[str, str],
    key: str | None,
) -> TrackedRun:
    """A new run, or that of an earlier attempt; EngineError where the store does not take it."""
    client = client_of(uri)
    own = {"mlflow.source.name": "lazypipe", attempts.PROCESS: attempts.this_process(), **hidden_in(dict(tags))}
    own |= {attempts.KEY: key} if key else {}
    flat = {name: str(value) for name, value in flatten(parameters).items()}
    with told(uri):
        experiment_id = experiment_id_of(client, experiment, uri)
        earlier = attempts.earlier_attempt(client, experiment_id, own) if key else None
        if earlier is None:
            begun = client.create_run(experiment_id, run_name=name, tags=own | {attempts.ATTEMPTS: "1"})
            run, logged = TrackedRun(client, uri, begun.info.run_id, experiment, experiment_id), {}
        else:
            run, logged = TrackedRun(client, uri, earlier.info.run_id, experiment, experiment_id), earlier.data.params
        try:
            if earlier is not None:
                run.attempt = attempts.begin_again(client, earlier, own)
                run.logged = attempts.steps_logged(client, earlier)
            log_parameters(client, run.run_id, flat, logged)
            _log_dataset(client, run.run_id, data)
        except BaseException as error:
            run._fail(error)
            raise
        return run


def reopened(uri: str, run_id: str, experiment: str) -> TrackedRun | None:
    """A run that is there, to send it what it has not got; None without. It may hold parts of what comes."""
    client = client_of(uri)
    with told(uri):
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_run(run_id)
        except MlflowException as error:
            if is_away(error):
                raise
            return None
        if found.info.lifecycle_stage == "deleted":
            return None
        run = TrackedRun(client, uri, run_id, experiment, found.info.experiment_id)
        run.logged = attempts.steps_logged(client, found)
    run._sent_in_part = True
    return run


def client_of(uri: str) -> Any:
    """MLflow's client of a store that answers."""
    require_store(uri)  # first: to import MLflow takes seconds
    load_libraries()
    from mlflow import MlflowClient

    # Left from an outer run, this would make every run below its child.
    os.environ.pop("MLFLOW_RUN_ID", None)
    with told(uri):
        return MlflowClient(tracking_uri=uri)


def _log_dataset(client: Any, run_id: str, data: Data) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    n_rows, *others = data.shape
    profile = {"n_rows": n_rows, "n_columns": math.prod(others), "dtype": str(data.dtype)}
    spec = {"type": "tensor", "tensor-spec": {"dtype": str(data.dtype), "shape": [-1, *others]}}
    uri = hidden(data.uri)
    dataset = Dataset(
        name=Path(uri).name or uri,
        digest=data.fingerprint()[:36],
        source_type="local",
        source=json.dumps({"uri": uri}),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps([spec]), "targets": None}}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "fit")])])
