"""What every engine offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lazypipe.io.matrix import Matrix
from lazypipe.plan import FoldPlan, Host
from lazypipe.progress import Progress
from lazypipe.sizes import GIB
from lazypipe.stats.base import Statistic

DEFAULT_MEMORY = 2 * GIB

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Two verbs over a matrix, and what a plan has to know of the place."""

    kind: str
    slots: int  # tasks at once, in all processes together
    host: Host
    progress: Progress

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        """Measure every block, merge neighbours first in index order, finish."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        """The results of independent tasks, in order; a task may run twice."""

    def describe(self) -> str:
        """One line: what this is and where it runs."""

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
