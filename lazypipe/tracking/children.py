"""Runs below a run: one for each part of an experiment, such as each size of a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from lazypipe.secrets import hidden

BATCH = 900  # metrics a call: a store takes 1000 entries at once, parameters among them

Point: TypeAlias = tuple[str, float, int]  # name, value, step
Item = TypeVar("Item")


@dataclass(frozen=True)
class Child:
    """A part of a run. ``texts`` are small files by name; ``failed`` says why where nothing of it succeeded."""

    name: str
    parameters: Mapping[str, Any]
    points: Sequence[Point]
    texts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""  # markdown that its page begins with
    seconds: float = 0.0  # that it took: its duration in the UI
    failed: str = ""


def create_child(client: Any, experiment_id: str, parent_id: str, child: Child, begun: int) -> str:
    """Log ``child`` whole, in few calls; its run id. MLflow lists first what has ``begun`` (milliseconds) last."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    tags = {"mlflow.parentRunId": parent_id, "mlflow.source.name": "lazypipe"}
    tags |= {"mlflow.note.content": hidden(child.note)} if child.note else {}
    tags |= {"error": hidden(child.failed)} if child.failed else {}
    run = client.create_run(experiment_id, start_time=begun, tags=tags, run_name=child.name)
    run_id = str(run.info.run_id)
    try:
        batches = list(to_batches(child.points)) or [[]]
        for i, batch in enumerate(batches):
            client.log_batch(
                run_id,
                metrics=[Metric(name, value, now, step) for name, value, step in batch],
                params=[Param(name, hidden(str(value))) for name, value in child.parameters.items()] if i == 0 else (),
            )
        for name, text in child.texts.items():
            client.log_text(run_id, hidden(text), name)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FAILED" if child.failed else "FINISHED", end_time=begun + int(1000 * child.seconds))
    return run_id


def to_batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """As many at a time as a store takes."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
