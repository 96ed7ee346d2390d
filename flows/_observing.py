"""A job seen from its flow run: progress as an artifact, what workers say in the log, tags for the trace."""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from typing import Any, TextIO, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import ProgressArtifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for
from rich.console import Console

from flows._pace import Pace
from jobs._observed import observed
from lazypipe.progress import Event, WorkerSaid
from lazypipe.secrets import hidden

SECONDS = 2.0  # the artifact is updated no faster than this
END_SECONDS = 5.0  # what the last update may take
LOOK_SECONDS = 10.0  # between looks whether a run whose worker is gone was cancelled
PARENT = os.getppid()  # who started this process: the worker, where the run is one of a deployment


@contextmanager
def followed(title: str, passes: int | None) -> Iterator[None]:
    """While the block lasts, jobs that it calls show in the flow run, and their traces carry its id.

    Nothing of this fails the job: neither a server that is away, nor a worker that is gone with the pipe behind stderr.
    """
    logger = get_run_logger()
    context = contextvars.copy_context()  # which the threads that events come from do not have

    def pass_on(event: Event) -> None:
        if isinstance(event, WorkerSaid):
            context.copy().run(logger.log, event.level, "worker %s: %s", event.worker, hidden(event.text))

    with (
        alone(),
        Published(f"{title}-progress", Pace(passes), logger) as progress,
        observed(pass_on, progress, tags=tags()),
    ):
        yield


def tags() -> dict[str, str]:
    """What leads from a trace to the present flow run."""
    found = {"prefect.flow_run_id": flow_run.id, "prefect.flow_run_name": flow_run.name}
    found["prefect.flow_run_url"] = url_for("flow-run", obj_id=flow_run.id)
    context = TaskRunContext.get()
    found["prefect.task_run_id"] = str(context.task_run.id) if context else None
    return {name: str(value) for name, value in found.items() if value}


class Published:
    """A listener that shows the pace of a job as a progress artifact, from a thread of its own."""

    def __init__(self, key: str, pace: Pace, logger: Any):
        self.key, self.pace, self.logger = key, pace, logger
        self._artifact: UUID | None = None
        self._news, self._over = threading.Event(), threading.Event()
        self._failed = 0
        self._looked = time.monotonic()
        run = contextvars.copy_context().run  # of the flow run, which the client and the log need
        self._thread = threading.Thread(target=run, args=(self._publish,), name=key, daemon=True)

    def __enter__(self) -> Published:
        self._thread.start()
        return self

    def __call__(self, event: Event) -> None:
        self.pace(event)
        self._news.set()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if kind is None or issubclass(kind, Exception):  # who ends the process has no time for it
            self._thread.join(END_SECONDS)
            if kind is None and not self._thread.is_alive():
                self._put(100.0, self.pace.done())

    def _publish(self) -> None:
        while not self._over.wait(SECONDS):
            if self._news.is_set():
                self._news.clear()
                self._put(self.pace.percent, self.pace.text)
            self._look_for_orders()

    def _put(self, percent: float, text: str) -> None:
        try:
            if self._artifact is None:
                artifact = ProgressArtifact(key=self.key, progress=percent, description=text)
                self._artifact = artifact.create(_sync=True).id
            else:
                update_progress_artifact(self._artifact, percent, text, _sync=True)
            self._failed = 0
        except Exception as error:
            self._failed += 1
            if self._failed == 1:
                self.logger.warning("progress: the Prefect server does not take it (%s)", type(error).__name__)

    def _look_for_orders(self) -> None:
        """End a run that was cancelled after its worker died, as the worker would have."""
        if os.getppid() == PARENT or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        with suppress(Exception), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(str(flow_run.id))).state
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                os.kill(os.getpid(), signal.SIGTERM)
                self.logger.warning("cancelled, and the worker of this run is gone: it ends itself")


@contextmanager
def alone() -> Iterator[None]:
    """While the block lasts, what is printed and logged fails nothing, also where the worker that read it is gone."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for handler in [one for logger in loggers for one in getattr(logger, "handlers", ())]:
        console = getattr(handler, "console", None)
        if isinstance(console, Console):  # which ends the process where its pipe is broken
            console.on_broken_pipe = partial(setattr, console, "quiet", True)  # type: ignore[method-assign]
    with redirect_stdout(cast(TextIO, Unbroken(sys.stdout))), redirect_stderr(cast(TextIO, Unbroken(sys.stderr))):
        yield


class Unbroken:
    """A stream that drops what is written once nobody reads it: the worker that did may be gone."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
