"""What the readers of one process share, and keep for the next pass: a map of a file, the arrays of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet, WeakValueDictionary

Value = TypeVar("Value")

_ALL: WeakSet[Kept[Any]] = WeakSet()


class Kept(Generic[Value]):
    """The value that was asked for last stays, until another takes its place or ``release`` is called.

    What readers still hold is found by who asks for it again: there are never two of one file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Hashable, Value] | None = None
        self._held: WeakValueDictionary[Hashable, Value] = WeakValueDictionary()
        _ALL.add(self)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made where nobody holds it."""
        with self._lock:
            if self._kept is None or self._kept[0] != key:
                self._kept = None  # before the next is made
                value = self._held.get(key)
                if value is None:
                    value = self._held[key] = make()
                self._kept = key, value
            return self._kept[1]

    def release(self) -> None:
        """Let go of the kept value, which goes with the last reader that holds it. Never waits."""
        if self._lock.acquire(blocking=False):  # else one is being made, and none is kept
            try:
                self._kept = None
            finally:
                self._lock.release()


def release_kept() -> None:
    """Let go of all that is kept in this process for a next pass."""
    for kept in list(_ALL):
        kept.release()
