"""An engine that is only planned for: workers of one task at a time, on machines of their own."""

from __future__ import annotations

from typing import NoReturn

from lazypipe.plan import Host


class OnPaper:
    """What a plan asks of an engine, and no more; ``asked`` tells whether it looked at how many workers there are."""

    kind = "on paper"
    gpus = None

    def __init__(self, workers: int, memory: int, base: int):
        self.workers = workers
        self.host = Host(memory, threads=1, shared=False, base=base)
        self.asked = False

    @property
    def slots(self) -> int:
        """Tasks at once."""
        self.asked = True
        return self.workers

    def fold(self, *_: object) -> NoReturn:
        raise NotImplementedError("an engine on paper does no work")

    map = fold

    def close(self) -> None:
        """Nothing was started."""
