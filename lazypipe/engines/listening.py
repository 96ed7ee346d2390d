"""Events that tasks tell while they run, on their way to the progress of the driver.

A worker must neither wait for the driver nor fail for it: what does not get through is dropped. Events travel as
lines of JSON, never as pickles, under a key that those who may tell have been sent.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, get_args

from lazypipe.progress import Event, Progress

KINDS = {kind.__name__: kind for kind in get_args(Event)}
END_SECONDS = 5.0  # for listeners that are slow

log = logging.getLogger("lazypipe")


class Ear:
    """Hands events to a progress, from a thread of its own where a slow listener would hold up others."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # workers' events and those of the engine itself come from several threads

    def put(self, event: Event) -> None:
        """Have an event handed on, after those that were put before; does not wait for it."""
        with self._turn:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lazypipe-listening", daemon=True)
                self._thread.start()
        self._events.put(event)

    def close(self) -> None:
        """End once all that was put is handed on, or after ``END_SECONDS``."""
        if self._thread is not None:
            self._events.put(None)
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self.progress.emit(event)
            except Exception as error:  # of a display, which the work is not to fail for
                log.warning("progress: a listener failed at %s (%s).", type(event).__name__, error)


EARS: dict[str, Ear] = {}  # of this process, by key
UNHEARD: set[str] = set()  # keys whose driver could not be reached from here


@dataclass(frozen=True)
class Tell:
    """Called with an event in any process, has the driver emit it. Cheap to pickle.

    In the driver's own process the event is emitted before the call returns; after the end it is dropped.
    """

    key: str

    def __call__(self, event: Event) -> None:
        ear = EARS.get(self.key)
        if ear is not None:
            ear.progress.emit(event)
        else:
            self.send(as_line(event))

    def send(self, line: str) -> None:
        """Pass an event on from another process."""


def unheard(key: str, where: str) -> None:
    """Say once, in the worker's log, that events do not get through."""
    if key not in UNHEARD:
        UNHEARD.add(key)
        log.warning("progress: the driver cannot be reached %s. The work goes on, but is not seen there.", where)


def as_line(event: Event) -> str:
    return json.dumps([type(event).__name__, vars(event)], default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value.item()  # scalars of NumPy and torch


def hear(key: str, line: str | bytes) -> bool:
    """Emit the event of a line that arrived, if someone still listens; whether it is an event."""
    try:
        kind, fields = json.loads(line)
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        event = KINDS[kind](**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    if (ear := EARS.get(key)) is not None:
        ear.put(event)
    return True


def overheard(key: str, event: Event) -> None:
    """Have an event that the engine itself found out emitted, from the thread of those that workers tell."""
    if (ear := EARS.get(key)) is not None:
        ear.put(event)


@contextmanager
def listening(progress: Progress, made: Callable[[str], Tell] = Tell) -> Iterator[Tell]:
    """While the block lasts, what the ``Tell`` that is ``made`` of a key hears comes out of ``progress``."""
    key = secrets.token_hex(16)
    EARS[key] = ear = Ear(progress)
    try:
        yield made(key)
    finally:
        del EARS[key]
        ear.close()
