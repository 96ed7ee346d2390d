"""Who else follows a job: what runs it hands in listeners, and tags for its trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from lazypipe.progress import Listener


@dataclass(frozen=True)
class Observers:
    """``listeners`` get every event of a job; ``tags`` go to its MLflow run, and to the trace in result.json."""

    listeners: tuple[Listener, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


_present: ContextVar[Observers] = ContextVar("observers", default=Observers())  # noqa: B039  it is frozen


@contextmanager
def observed(*listeners: Listener, tags: Mapping[str, str] | None = None) -> Iterator[None]:
    """While the block lasts, jobs that it calls tell ``listeners``, too, and carry ``tags`` besides their own."""
    outer = _present.get()
    token = _present.set(Observers((*outer.listeners, *listeners), {**outer.tags, **(tags or {})}))
    try:
        yield
    finally:
        _present.reset(token)


def observers() -> Observers:
    """Those of the present block."""
    return _present.get()
