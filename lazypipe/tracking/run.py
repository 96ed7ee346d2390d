"""One MLflow run: told of events while the work goes on, and sent what came out at the end."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lazypipe.progress import EpochDone, Event, PassDone, StepsDone
from lazypipe.secrets import hidden
from lazypipe.tracking import attempts
from lazypipe.tracking.children import Child, Point, create_child, to_batches
from lazypipe.tracking.fitted import log_network, log_projection
from lazypipe.tracking.parameters import PARAMETER_LENGTH
from lazypipe.tracking.record import Record, Sample
from lazypipe.tracking.store import is_away, page_of, require_store, told
from lazypipe.tracking.training import KEPT, named, next_sending

COMPONENTS_LOGGED = 20  # a metric each; past about 100 columns MLflow's pages slow down
AGAIN_SECONDS = 1.0  # between two looks at a store that is away

log = logging.getLogger(__name__)


class ResultFolder(Protocol):
    """Where the files of a result are: a local path, or the place of an object store."""

    def __truediv__(self, name: str, /) -> Any: ...


class TrackedRun:
    """One MLflow run. Call it with events: each ``PassDone`` becomes metrics at step ``index``.

    So do ``StepsDone`` and ``EpochDone`` at their ``step``. All are sent together, every 2 seconds, and sending takes
    a twentieth of the time at most, also where the store is slow or away.
    """

    def __init__(self, client: Any, uri: str, run_id: str, experiment: str, experiment_id: str):
        self.client = client
        self.uri = uri
        self.run_id = run_id
        self.experiment = experiment
        self.experiment_id = experiment_id
        self.begun = int(time.time() * 1000)
        self.children: list[str] = []  # run ids
        self.attempt = 1
        self.logged: set[tuple[str, int, float]] = set()  # metrics of earlier attempts
        self._waiting: list[Sample] = []
        self._send_from = 0.0
        self._is_away = False
        self._is_over = False
        self._sent_in_part = False  # children or models may be there in part

    def __call__(self, event: Event) -> None:
        now = int(time.time() * 1000)
        if isinstance(event, PassDone):
            points = points_of([(event.index, event.residual, event.explained_variance)])
        elif isinstance(event, StepsDone | EpochDone):
            points = [(name, value, event.step) for name, value in named(event)]
        else:
            return
        found = [(name, value, now, step) for name, value, step in points]
        self._waiting += [sample for sample in found if (sample[0], sample[3], sample[1]) not in self.logged]
        begun = time.monotonic()
        if begun >= self._send_from:
            del self._waiting[:-KEPT]
            self._try_to_flush()
            done = time.monotonic()
            self._send_from = next_sending(done, done - begun)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Short texts by name."""
        from mlflow.entities import RunTag

        if tags:
            self.client.log_batch(self.run_id, tags=[RunTag(name, hidden(value)) for name, value in tags.items()])

    def log_child(self, child: Child) -> None:
        """A part of this run, as a run below it; MLflow lists them in the order in which they are logged."""
        begun = self.begun - len(self.children)
        self.children.append(create_child(self.client, self.experiment_id, self.run_id, child, begun))

    def log_file(self, path: Any) -> None:
        """A small file, beside the figures; one of an object store is fetched."""
        if isinstance(path, Path):
            self.client.log_artifact(self.run_id, str(path))
            return
        with tempfile.TemporaryDirectory(prefix="lazypipe-file-") as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(path.read_bytes())
            self.client.log_artifact(self.run_id, str(copy))

    def is_finished(self) -> bool:
        """Whether the store says so."""
        with told(self.uri):
            return bool(self.client.get_run(self.run_id).info.status == "FINISHED")

    def describe(self) -> dict[str, str]:
        """Where to find the run; ``url`` is its page, where the store is a server."""
        page = page_of(self.uri, self.experiment_id, self.run_id)
        return {
            "uri": hidden(self.uri),
            "run_id": self.run_id,
            "experiment": self.experiment,
            "experiment_id": self.experiment_id,
        } | ({"url": page} if page else {})

    def finish(self, record: Record, folder: ResultFolder) -> Exception | None:
        """Send what came out, files from ``folder``, and end the run; what the store did not take stays in ``record``.

        Metrics that still wait go with it. The error says why not all was taken; call it again to try again: what is
        there already is not logged twice.
        """
        if self._waiting is not record.metrics:
            fresh = [sample for sample in record.metrics if (sample[0], sample[3], sample[1]) not in self.logged]
            record.metrics = self._waiting = [*self._waiting, *fresh]
        self._is_over = True  # the work is done, whatever becomes of the store
        try:
            self._send(record, folder)
        except Exception as error:
            self._sent_in_part = True
            return error
        return None

    def finish_within(self, seconds: float, record: Record, folder: ResultFolder) -> Exception | None:
        """The same until it is done, as long as the store is away; the last error where the seconds did not do."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                require_store(self.uri)  # soon, where MLflow would try for longer
                error = self.finish(record, folder)
            except Exception as away:
                error = away
            if error is None or not is_away(error) or time.monotonic() + AGAIN_SECONDS >= deadline:
                return error
            time.sleep(AGAIN_SECONDS)

    def _send(self, record: Record, folder: ResultFolder) -> None:
        self._flush()
        self.log_tags(record.tags)
        record.tags = {}
        while record.files:
            self.log_file(folder / record.files[0])
            del record.files[0]
        if self._sent_in_part and record.children:
            self._remove_children({child.name for child in record.children})
        while record.children:
            self.log_child(record.children[0])
            del record.children[0]
        if record.model is not None:
            if self._sent_in_part:
                attempts.remove_models(self.client, self.experiment_id, self.run_id)
            log_model: Callable[..., None] = log_projection if record.model.kind == "projection" else log_network
            log_model(self.uri, self.run_id, **record.model.arguments)
            record.model = None
        self.client.set_terminated(self.run_id, "FINISHED")

    def _remove_children(self, names: set[str]) -> None:
        """Those of an earlier try that may be there in part."""
        below = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        for child in self.client.search_runs([self.experiment_id], below, max_results=1000):
            if child.info.run_name in names:
                self.client.delete_run(child.info.run_id)

    def _end(self) -> None:
        if not self._is_over:
            self._try_to_flush()
            with told(self.uri):
                self.client.set_terminated(self.run_id, "FINISHED")

    def _fail(self, error: BaseException) -> None:
        """Say why: FAILED, or KILLED by an interrupt or a signal; a store that is away must not hide it."""
        if self._is_over:
            return
        text = hidden(f"{type(error).__name__}: {error}".rstrip(": "))
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        try:
            for each in (*self.children, self.run_id):
                self.client.set_tag(each, "error", text[:PARAMETER_LENGTH])
                self.client.set_terminated(each, status)
            self._flush()
        except Exception:
            log.warning("MLflow does not answer; the run is not marked as failed.")

    def _try_to_flush(self) -> None:
        try:
            self._flush()
            self._is_away = False
        except Exception:  # a store that is away for a while must not cost a long fit: send it later
            if not self._is_away:
                log.warning("MLflow does not answer; the metrics will be sent later.")
            self._is_away = True

    def _flush(self) -> None:
        from mlflow.entities import Metric

        for batch in list(to_batches(self._waiting)):
            self.client.log_batch(self.run_id, metrics=[Metric(*values) for values in batch])
            del self._waiting[: len(batch)]


def points_of(passes: Iterable[tuple[int, float, Sequence[float]]]) -> list[Point]:
    """The metrics of passes, of which index, residual and explained variances are given."""
    points: list[Point] = []
    for index, residual, variances in passes:
        points.append(("residual", residual, index))
        points += [(f"explained_variance_{i}", v, index) for i, v in enumerate(variances[:COMPONENTS_LOGGED], 1)]
    return points
