"""Events through the scheduler of a Dask cluster: its workers need not reach the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, Worker, get_worker

from lazypipe.engines.listening import Tell, as_line, hear, listening, unheard
from lazypipe.progress import Event, Progress

NAME = "lazypipe"  # of our events among those that the scheduler has for a client


@contextmanager
def listening_through(client: Client, progress: Progress) -> Iterator[TellThroughScheduler]:
    """``listening`` for workers of the client's cluster."""
    topic = client.id  # of this client alone, and cleared by the scheduler when it has gone
    client.subscribe_topic(topic, _heard)
    with listening(progress, lambda key: TellThroughScheduler(key, topic)) as tell:
        assert isinstance(tell, TellThroughScheduler)
        yield tell


def _heard(event: tuple[float, Any]) -> None:
    _, message = event
    if isinstance(message, dict) and NAME in message:
        hear(message[NAME], message["event"])


@dataclass(frozen=True)
class TellThroughScheduler(Tell):
    """Tells as an event that the scheduler logs, and hands to who listens to its topic."""

    topic: str

    def send(self, line: str) -> None:
        try:
            worker = get_worker()
        except ValueError as error:
            unheard(self.key, f"through the scheduler ({error})")
            return
        SpokenBy(worker, self).send(line)


@dataclass(frozen=True)
class SpokenBy:
    """The same on a worker, from any of its threads."""

    worker: Worker
    tell: TellThroughScheduler

    def __call__(self, event: Event) -> None:
        self.send(as_line(event))

    def send(self, line: str) -> None:
        # queued, whatever became of the scheduler
        self.worker.log_event(self.tell.topic, {NAME: self.tell.key, "event": line})
