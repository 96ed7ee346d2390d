"""Events through the scheduler of a Dask cluster: its workers need not reach the driver."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from distributed import Client, get_worker

from lazypipe.engines.listening import Tell, hear, listening, unheard
from lazypipe.progress import Progress

NAME = "lazypipe"  # of our events among those that the scheduler has for a client


def listening_through(client: Client, progress: Progress) -> AbstractContextManager[Tell]:
    """``listening`` for workers of the client's cluster."""
    topic = client.id  # of this client alone, and cleared by the scheduler when it has gone
    client.subscribe_topic(topic, _heard)
    return listening(progress, lambda key: TellThroughScheduler(key, topic))


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
        worker.log_event(self.topic, {NAME: self.key, "event": line})  # queued, whatever became of the scheduler
