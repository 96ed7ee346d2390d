"""Logs of workers on their way to the driver. Those of real workers are in tests/service/test_faults.py."""

import logging
from dataclasses import dataclass, field

import pytest

from lazypipe.engines import saying
from lazypipe.engines.listening import Tell
from lazypipe.engines.saying import forwarded
from lazypipe.progress import WorkerSaid

OURS, THEIRS = logging.getLogger("lazypipe.io"), logging.getLogger("distributed.worker")


@dataclass(frozen=True)
class Heard(Tell):
    """Keeps what it is told."""

    key: str = "heard"
    events: list = field(default_factory=list, hash=False, compare=False)

    def __call__(self, event):
        self.events.append(event)


@pytest.fixture
def tell(monkeypatch):
    monkeypatch.setattr(saying, "FORWARDING", saying.Forwarding())
    monkeypatch.setattr(THEIRS, "level", logging.INFO)  # as on a worker: a driver silences it
    THEIRS.manager._clear_cache()
    return Heard()


def test_our_information_and_the_warnings_of_the_cluster_are_told(tell):
    with forwarded(tell, "w1"):
        OURS.info("read %d\nrows", 7)
        OURS.debug("a detail")
        THEIRS.info("a detail")
        THEIRS.warning("memory")
    OURS.warning("after the task")
    assert tell.events == [
        WorkerSaid("w1", logging.INFO, "read 7 rows"),
        WorkerSaid("w1", logging.WARNING, "memory"),
    ]


def test_nothing_is_left_on_the_worker(tell):
    before = logging.getLogger("lazypipe").level, list(logging.getLogger("lazypipe").handlers)
    with forwarded(tell, "w1"), forwarded(tell, "w1"):
        assert logging.getLogger("lazypipe").level == logging.INFO
    assert (logging.getLogger("lazypipe").level, logging.getLogger("lazypipe").handlers) == before


def test_a_flood_is_counted(tell, monkeypatch):
    with forwarded(tell, "w1"):
        for i in range(100):
            OURS.warning("again %d", i)
        assert len(tell.events) == saying.MOST_LINES
        monkeypatch.setattr(saying, "WINDOW_SECONDS", 0.0)
        OURS.warning("and later")
    assert [event.text for event in tell.events[-2:]] == ["80 more lines, which are in its log alone", "and later"]


def test_errors_are_told_and_secrets_are_not(tell, monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", "correct-horse")
    with forwarded(tell, "w1"):
        try:
            raise OSError("denied to correct-horse")
        except OSError:
            OURS.exception("read again")
    assert [event.text for event in tell.events] == ["read again (OSError: denied to ***)"]


def test_what_telling_logs_itself_is_not_told(tell):
    class Failing(Heard):
        def __call__(self, event):
            OURS.warning("the driver cannot be reached")
            super().__call__(event)

    failing = Failing()
    with forwarded(failing, "w1"):
        OURS.warning("one")
    assert [event.text for event in failing.events] == ["one"]
