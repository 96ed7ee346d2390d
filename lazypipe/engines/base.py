"""What every engine offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lazypipe.engines.listening import Tell
from lazypipe.errors import ConfigError
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FoldPlan, Host
from lazypipe.progress import Progress
from lazypipe.sizes import GIB, MIB, parse_bytes, show_bytes
from lazypipe.stats.base import Statistic

DEFAULT_MEMORY = 2 * GIB  # of the budget, where neither the caller nor a cluster's limits tell
MIN_MEMORY = 16 * MIB  # below it no plan has room to work in


def checked_budget(memory: str | float) -> int:
    """A budget in bytes. Raises ConfigError for what is no size, and below ``MIN_MEMORY``."""
    nbytes = parse_bytes(memory)
    if nbytes < MIN_MEMORY:
        raise ConfigError(f"memory: {memory} is too small to work in. Give at least {show_bytes(MIN_MEMORY)}.")
    return nbytes


Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Two verbs over a matrix, and what a plan has to know of the place."""

    kind: str
    slots: int  # tasks at once, in all processes together
    host: Host
    progress: Progress

    @property
    def gpus(self) -> int | None:
        """GPUs that a cluster's workers offer in all; None where work runs on this machine, which knows its own."""

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        """Measure every block of ``plan.runs``, merge neighbours first in index order, and finish: one pass.

        The same bits on every engine. EngineError where workers are lost, or had no memory, too often; MemoryPlanError
        where more tasks run at once than the plan has counted on; and whatever ``statistic`` raises.
        """

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        """The results of independent tasks, in order; a task may run twice.

        On a cluster each task gets ``plan.gpus`` GPUs to itself (``given_gpu`` tells it which); EngineError where no
        worker has them, or none is left.
        """

    def listen(self) -> AbstractContextManager[Tell]:
        """While the block lasts, events that its ``tell`` is called with come out of ``progress``.

        ``tell(event)`` pickles, may be called in any task, and arrives while ``map`` waits, within about a second and
        in the order of its task, from a thread that is not the caller's. It neither fails the task nor holds it up
        where the driver cannot be reached; what comes after the block is dropped. Call it in the task's own thread.
        """

    def describe(self) -> str:
        """One line: what this is and where it runs."""

    def trace(self) -> dict[str, str]:
        """Where to look it up, as far as there is such a thing: ``application_id``, ``dashboard`` (an address)."""

    def peak_memory(self) -> int:
        """Highest resident memory, in bytes, of any process that worked since ``reset_peak``."""

    def reset_peak(self) -> None:
        """Forget the peak so far, where the operating system can."""

    def close(self) -> None:
        """End what this engine started, and nothing else."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
