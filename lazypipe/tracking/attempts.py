"""Whose run it is: a job that is tried again goes on in the run that its earlier attempt left."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

KEY = "lazypipe.key"
PROCESS = "lazypipe.process"
ATTEMPTS = "lazypipe.attempts"
FLOW_RUN = "prefect.flow_run_id"
ENDED = ("FAILED", "KILLED")
CLOCK_SECONDS = 5  # by which the start of one process may seem to differ, as clocks are set
LOCK_SECONDS = 10.0
LOOKED_AT = 50


def this_process() -> str:
    """Host, id and start of this process: what another one can look for."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_abandoned(status: str, tags: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Whether the run with ``tags`` will not be gone on with by whoever began it; ``own`` are those of this attempt.

    On this host that is a run that failed, or whose process is no more; on another one that cannot be seen, so it is
    taken for left where both are attempts of one flow run.
    """
    host, _, rest = tags.get(PROCESS, "").partition(":")
    if not rest:
        return False
    if host != socket.gethostname():
        return bool(own.get(FLOW_RUN)) and own.get(FLOW_RUN) == tags.get(FLOW_RUN)
    pid, _, start = rest.partition(":")
    return status in ENDED or not _is_alive(int(pid), float(start))


def _is_alive(pid: int, start: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - start) < CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def earlier_attempt(client: Any, experiment_id: str, tags: Mapping[str, str]) -> Any:
    """The last run of the same key that did not finish and is abandoned, claimed for this process; None without."""
    of_key = f"tags.`{KEY}` = '{tags[KEY]}' and attributes.status != 'FINISHED'"
    with _one_at_a_time():
        order = ["attributes.start_time DESC"]
        for run in client.search_runs([experiment_id], of_key, order_by=order, max_results=LOOKED_AT):
            if is_abandoned(run.info.status, run.data.tags, tags):
                client.set_tag(run.info.run_id, PROCESS, tags[PROCESS])
                client.update_run(run.info.run_id, status="RUNNING")
                return run
    return None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep two processes of this host from claiming one run; after some seconds go on all the same."""
    path = Path(tempfile.gettempdir(), f"lazypipe-{os.getuid()}.lock")
    deadline = time.monotonic() + LOCK_SECONDS
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def begin_again(client: Any, run: Any, tags: Mapping[str, str]) -> int:
    """Make the run of an earlier attempt that of this one, without error, children and models; how many there were."""
    run_id = run.info.run_id
    if "error" in run.data.tags:
        client.delete_tag(run_id, "error")
    count = int(run.data.tags.get(ATTEMPTS, "1")) + 1
    for name, value in {**tags, ATTEMPTS: str(count)}.items():
        if run.data.tags.get(name) != value:
            client.set_tag(run_id, name, value)
    remove_children(client, run.info.experiment_id, run_id)
    remove_models(client, run.info.experiment_id, run_id)
    return count


def remove_children(client: Any, experiment_id: str, run_id: str) -> None:
    """Delete the runs below a run."""
    while below := client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=500):
        for child in below:
            client.delete_run(child.info.run_id)


def remove_models(client: Any, experiment_id: str, run_id: str) -> None:
    """Delete the models of a run: those that are logged again would be a second copy."""
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)


def steps_logged(client: Any, run: Any, most: int = 100) -> set[tuple[str, int, float]]:
    """(name, step, value) of the metrics that an earlier attempt left, so that equal ones are not logged twice."""
    names = sorted(run.data.metrics)[:most]
    return {
        (name, metric.step, metric.value)
        for name in names
        for metric in client.get_metric_history(run.info.run_id, name)
    }
