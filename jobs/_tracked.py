"""The MLflow run of a job, and what it is told before the work begins."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Any

from jobs._config import TrackingConfig
from jobs._trace import tags_of
from lazypipe import tracking
from lazypipe.secrets import hidden
from lazypipe.tracking import Data, TrackedRun

OF_THE_PLAN = ("solver", "passes", "peak_bytes")


def tracked(
    where: TrackingConfig,
    job: str,
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    data: Data,
    trace: Mapping[str, Any],
    key: str | None = None,
) -> AbstractContextManager[TrackedRun]:
    """A run of ``job``, of its config and plan as JSON has them; with a ``key`` that of an earlier attempt, if any."""
    parameters = {name: value for name, value in config.items() if name != "tracking"}
    parameters["plan"] = {name: plan[name] for name in OF_THE_PLAN if plan.get(name) is not None}
    return tracking.tracked_run(
        where.store(),
        where.experiment or job,
        parameters,
        data,
        name=f"{job} of {name_of(data)}",
        tags=tags_of(job, trace),
        key=key,
    )


def name_of(data: Data) -> str:
    """The last part of its path or address, without secrets."""
    uri = hidden(data.uri)
    return PurePath(uri).name or uri
