"""A clock that tests move by hand, of the modules under test alone: to stop that of a process stops its event loops."""

import time
from types import SimpleNamespace


def by_hand(monkeypatch, *modules, start=1000.0):
    """The time, in a list of one number, that ``time.monotonic`` of those modules (by name) tells from now on."""
    now = [start]
    clock = SimpleNamespace(**{**vars(time), "monotonic": lambda: now[0]})
    for module in modules:
        monkeypatch.setattr(f"{module}.time", clock)
    return now
