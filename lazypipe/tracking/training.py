"""Networks in training as metrics by step, and how often they may be sent."""

from __future__ import annotations

from collections.abc import Iterator

from lazypipe.progress import EpochDone, StepsDone

SEND_SECONDS = 2.0  # between two sendings, at least
SHARE = 0.05  # of the time that sending may take, also where the store is slow or away
KEPT = 100_000  # metrics that wait for a store that is away; the oldest are given up
OF_ROWS = ("train_", "validation_")


def named(event: StepsDone | EpochDone) -> Iterator[tuple[str, float]]:
    """Metrics and their names: ``loss`` by steps, ``train_loss`` by epochs, ``rbm 1/...`` in a stage that has a name.

    How fast an epoch went is called ``epoch_seconds`` and the like: ``seconds`` are those of the run.
    """
    stage = f"{event.stage}/" if event.stage else ""
    for name, value in event.measures.items():
        by_epoch = isinstance(event, EpochDone) and not name.startswith(OF_ROWS)
        yield f"{stage}{'epoch_' if by_epoch else ''}{name}", float(value)


def next_sending(now: float, took: float) -> float:
    """When to send again after a sending that ended ``now`` and took so many seconds."""
    return now + max(SEND_SECONDS, took / SHARE)
