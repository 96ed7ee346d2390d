"""Workers of other versions than the driver's that join a Dask cluster while there is work: they get none of it.

A task of ours does not read there, or rounds otherwise; one that a worker cannot even unpickle ends the worker, which
may be there for others. Where no stranger is, tasks may go to every worker, those that come later among them. Where
one is, they are sent by name to those that are none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from lazypipe.engines.versions import ASK, require_same_versions
from lazypipe.errors import EngineError, RefusedError

START_AGAIN = "in the environment that the worker runs in, and start the worker again"

Ask = Callable[..., dict[str, Any]]  # a function, its arguments, and the workers to ask; answers by address


class Strangers:
    """Those among the workers, by address; and what the tasks sent last know of them."""

    def __init__(self) -> None:
        self.there: frozenset[str] = frozenset()
        self._avoided: frozenset[str] = frozenset()  # by the tasks sent last
        self._asked_for: list[str] | None = None  # the workers that these may go to; None: all
        self._unasked: list[str] = []  # who came, and has not told its versions yet

    def came(self, address: str) -> None:
        self._unasked.append(address)

    def look(self, workers: Collection[str], ask: Ask, tell: Callable[[str, str], None]) -> None:
        """Ask those that came for their versions, and tell who differs; forget those that have gone."""
        self.there = self.there.intersection(workers)
        self._unasked = [address for address in self._unasked if address in workers]
        for address in list(self._unasked):
            try:
                with suppress(TimeoutError):  # it is asked again
                    found = ask(eval, ASK, workers=[address])
                    self._unasked.remove(address)
                    require_same_versions("dask", found, START_AGAIN)
            except RefusedError as error:
                self.there |= {address}
                tell(address, f"gets no task of this run. {error}")
            except EngineError as error:
                tell(address, str(error))

    def allowed(self, workers: Collection[str]) -> list[str] | None:
        """Of these the ones that the tasks that are sent now may go to; None where all may."""
        self._avoided = self.there
        self._asked_for = [one for one in workers if one not in self._avoided] if self._avoided else None
        return self._asked_for

    def are_new(self, workers: Collection[str]) -> bool:
        """Whether the tasks sent last may be with a stranger, or wait for workers that have all gone."""
        there = set(workers) - self.there
        gone = self._asked_for is not None and bool(there) and there.isdisjoint(self._asked_for)
        return gone or bool(self.there - self._avoided)
