"""What a worker logs while it works for us reaches the driver, with the worker's name.

Nothing stays on the worker: the handler is there while a task of ours is, and what is between tasks is the
cluster's. Lines come no faster than ``MOST_LINES`` in ``WINDOW_SECONDS``; those above are counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lazypipe.progress import WorkerSaid
from lazypipe.secrets import hidden

OURS = "lazypipe"  # its loggers from INFO on; those of the clusters from WARNING on
THEIRS = ("distributed", "pyspark")
MOST_LINES = 20
WINDOW_SECONDS = 10.0
MOST_LENGTH = 500

Tells = Callable[[WorkerSaid], None]  # hashable: equal where who listens is the same
Said = tuple[Tells, str]  # through whom, and under which name


class Forwarding(logging.Handler):
    """Tells what is logged in this process to every driver that has a task here."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._tasks: dict[Said, int] = {}
        self._turn = threading.Lock()
        self._telling = threading.local()
        self._level = logging.NOTSET  # of our logger, before
        self._begun, self._lines, self._unsaid = 0.0, 0, 0

    def enter(self, said: Said) -> None:
        with self._turn:
            if not self._tasks:
                self._attach()
            self._tasks[said] = self._tasks.get(said, 0) + 1

    def leave(self, said: Said) -> None:
        with self._turn:
            self._tasks[said] -= 1
            if not self._tasks[said]:
                del self._tasks[said]
            if not self._tasks:
                self._detach()

    def _attach(self) -> None:
        ours = logging.getLogger(OURS)
        self._level = ours.level
        if ours.getEffectiveLevel() > logging.INFO:
            ours.setLevel(logging.INFO)
        for name in (OURS, *THEIRS):
            logging.getLogger(name).addHandler(self)

    def _detach(self) -> None:
        logging.getLogger(OURS).setLevel(self._level)
        for name in (OURS, *THEIRS):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.partition(".")[0] == OURS
        if ours and not logging.getLogger().handlers and logging.lastResort and record.levelno >= logging.WARNING:
            logging.lastResort.handle(record)  # the worker's own log keeps it, as it would without us
        if (record.levelno < logging.WARNING and not ours) or getattr(self._telling, "now", False):
            return
        self._telling.now = True  # what telling itself may log is not told
        try:
            if self._is_due():
                self._tell(record.levelno, one_line(record))
        except Exception:
            self.handleError(record)
        finally:
            self._telling.now = False

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._begun > WINDOW_SECONDS:
            unsaid, self._begun, self._lines, self._unsaid = self._unsaid, now, 0, 0
            if unsaid:
                self._tell(logging.WARNING, f"{unsaid} more lines, which are in its log alone")
        self._lines += 1
        self._unsaid += self._lines > MOST_LINES
        return self._lines <= MOST_LINES

    def _tell(self, level: int, text: str) -> None:
        for tell, worker in list(self._tasks):
            tell(WorkerSaid(worker, level, text))


def one_line(record: logging.LogRecord) -> str:
    """The message, without what is secret, and the error that goes with it."""
    error = record.exc_info[1] if record.exc_info else None
    text = record.getMessage() + (f" ({type(error).__name__}: {error})" if error else "")
    return hidden(" ".join(text.split()))[:MOST_LENGTH]


FORWARDING = Forwarding()


@contextmanager
def forwarded(tell: Tells, worker: str) -> Iterator[None]:
    """While the block lasts, what lazypipe and the cluster log in this process is told under the worker's name."""
    said = (tell, worker)
    FORWARDING.enter(said)
    try:
        yield
    finally:
        FORWARDING.leave(said)
