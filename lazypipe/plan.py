"""What a run will take: blocks, runs, bytes and passes, from metadata and the memory budget alone.

The cuts depend on the matrix, on the size of the statistic's state and on the budget, never on the
engine or on the number of workers: so every engine adds the same numbers in the same order, and their
answers agree bit for bit. How many tasks of a plan run at once in one process is the engine's, and
is lowered where the budget asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from lazypipe.blocks import Run, Span, apart, compute_dtype, runs
from lazypipe.errors import MemoryPlanError
from lazypipe.io.matrix import Matrix
from lazypipe.sizes import GIB, KIB, MIB, show_bytes
from lazypipe.stats.base import Axis, Statistic
from lazypipe.stores import is_remote
from lazypipe.work import NO_WORK, Work, work_of_fold

BLOCK_NBYTES = 8 * MIB  # near the share of the last-level cache that one core has
VIEW_NBYTES = 32 * MIB  # of a map, which no cache has to hold
STRIPE_NBYTES = 64 * MIB  # a stripe of contiguous rows is read a row at a time, and wants long pieces of them
STRIPE_ROW_NBYTES = 32 * KIB
RUN_NBYTES = 128 * MIB
MAX_RUNS = 4096
FAN_IN = 4
COMPILER_NBYTES = 128 * MIB  # numba and LLVM, once a process


@dataclass(frozen=True)
class Host:
    """Where a plan is to run: the budget, and how processes share it."""

    memory: int  # bytes for the job's arrays, in each worker process and on the driver
    threads: int  # tasks at once in one worker process
    shared: bool  # True where the workers live in the driver's own process
    base: int  # bytes the interpreter and its libraries take
    compiler: bool = False  # numba and LLVM among them

    @property
    def compiling(self) -> Host:
        """The same, for work whose loops are compiled."""
        return self if self.compiler else replace(self, base=self.base + COMPILER_NBYTES, compiler=True)


@dataclass(frozen=True)
class FoldPlan:
    """One pass over a matrix: its cuts, and the bytes it takes."""

    title: str
    axis: Axis
    step: int  # rows (or columns) a block
    runs: tuple[Run, ...]
    mapped_nbytes: int  # of files mapped whole in each process, 0 where they are read by calls
    state_nbytes: int
    live_states: int  # states that may wait to be merged
    task_nbytes: int  # block, scratch and reader of one task
    reserved: int  # bytes of the model on the driver meanwhile
    concurrency: int  # tasks at once in one process
    bytes_read: int
    shared: bool = True
    gpus: int = 0  # that each task needs, on a cluster that places by them
    work: Work = NO_WORK

    def doing(self, **work: Any) -> FoldPlan:
        """The same plan, with these fields of its ``work`` replaced."""
        return replace(self, work=replace(self.work, **work))

    @property
    def mapped(self) -> bool:
        return self.mapped_nbytes > 0

    @property
    def worker_nbytes(self) -> int:
        tasks = self.concurrency * self.task_nbytes
        return self.mapped_nbytes + tasks + self.live_states * self.state_nbytes

    @property
    def driver_nbytes(self) -> int:
        return self.reserved + (self.live_states + 1) * self.state_nbytes

    @property
    def peak_nbytes(self) -> int:
        """The largest process: one that is both driver and worker, or the larger of the two."""
        if self.shared:
            return self.worker_nbytes + self.state_nbytes + self.reserved
        return max(self.worker_nbytes, self.driver_nbytes)


@dataclass(frozen=True, repr=False)
class Plan:
    """What a whole job will take, in the lines that it is shown by."""

    job: str
    uri: str
    shape: tuple[int, int]
    dtype: str
    host: Host
    folds: tuple[FoldPlan, ...]
    passes: int | None  # passes expected over the data; None where the data decide
    solver: str | None = None
    reason: str = ""
    output_nbytes: int = 0  # of the arrays that come back
    nbytes: int | None = None  # of the matrix, where a fold does not read it once
    notes: tuple[str, ...] = field(default=())

    @property
    def arrays_nbytes(self) -> int:
        return max(fold.peak_nbytes for fold in self.folds)

    @property
    def peak_nbytes(self) -> int:
        """Resident memory to expect of the largest process: libraries and arrays."""
        return self.host.base + self.arrays_nbytes

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, and where the data come from if that is a store."""
        if not is_remote(self.uri):
            return self.notes
        read = show_bytes(self._pass_nbytes)
        return (*self.notes, f"read from a store in ranges; a pass downloads {read}, and keeps nothing of it on disk")

    @property
    def _pass_nbytes(self) -> int:
        """Bytes that one pass over the matrix reads."""
        return self.folds[0].bytes_read if self.nbytes is None else self.nbytes

    def lines(self) -> list[str]:
        """What is asked, how it is cut, and what it takes, as the job ``plan`` prints it."""
        n_rows, n_columns = self.shape
        size = self._pass_nbytes
        lines = [
            f"plan      {self.job} of {self.uri}",
            f"matrix    {n_rows:,} rows x {n_columns:,} columns, {self.dtype}, {show_bytes(size)}",
        ]
        if self.solver:
            lines.append(f"solver    {self.solver}: {self.reason}")
        passes = "as many as it takes" if self.passes is None else f"{self.passes} expected"
        lines.append(
            f"passes    {passes}"
            + ("" if self.passes is None else f", {show_bytes(self.passes * size)} to read in all")
        )
        for fold in self.folds:
            lines.append(
                f"{'pass':<9} {fold.title}: {len(fold.runs):,} tasks, blocks of {fold.step:,} {fold.axis}; "
                f"a task {show_bytes(fold.task_nbytes)}, a state {show_bytes(fold.state_nbytes)} "
                f"(up to {fold.live_states}), {fold.concurrency} at once; "
                f"the driver {show_bytes(fold.reserved)}"
                + (f"; files mapped {show_bytes(fold.mapped_nbytes)}" if fold.mapped else "")
            )
        lines.append(
            f"memory    {show_bytes(self.arrays_nbytes)} of arrays (budget {show_bytes(self.host.memory)}) "
            f"+ {show_bytes(self.host.base)} of libraries = {show_bytes(self.peak_nbytes)} at the peak, "
            f"in the largest process"
        )
        lines.append(f"result    {show_bytes(self.output_nbytes)}")
        lines.extend(f"note      {note}" for note in self.told)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The same for ``result.json``, sizes in bytes."""
        return {
            "job": self.job,
            "solver": self.solver,
            "reason": self.reason,
            "passes": self.passes,
            "budget_bytes": self.host.memory,
            "arrays_bytes": self.arrays_nbytes,
            "base_bytes": self.host.base,
            "peak_bytes": self.peak_nbytes,
            "output_bytes": self.output_nbytes,
            "bytes_read_a_pass": self.folds[0].bytes_read,
            "notes": list(self.told),
        }

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def plan_fold(
    title: str, statistic: Statistic, matrix: Matrix, host: Host, reserved: int = 0, span: Span | None = None
) -> FoldPlan:
    """Cut ``matrix`` for ``statistic``; raise MemoryPlanError if one task at a time does not fit.

    ``reserved`` bytes are held on the driver meanwhile. ``span`` is the part of the rows (or columns) to
    cut, where not all of it is due.
    """
    n_rows, n_columns = matrix.shape
    by_rows = statistic.axis == "rows"
    span = span or Span(0, n_rows if by_rows else n_columns)
    length = len(span)
    line_nbytes = _line_nbytes(matrix, by_rows)
    total_nbytes = length * line_nbytes
    mapped = 0 if by_rows or 2 * matrix.mapped_nbytes > host.memory else matrix.mapped_nbytes

    largest = VIEW_NBYTES if mapped else BLOCK_NBYTES
    # Not so small that adding a state costs as much as its block; but enough of them for all to work.
    least = max(total_nbytes // 32, min(statistic.state_nbytes(n_rows, n_columns), total_nbytes // 8))
    block = between(least, 256 * KIB, between(host.memory // 32, 256 * KIB, largest))
    step = block // line_nbytes
    if not by_rows and not mapped and matrix.panel_columns is None:
        piece = between(STRIPE_NBYTES // line_nbytes, 1, STRIPE_ROW_NBYTES // matrix.dtype.itemsize)
        step = max(step, min(piece, host.memory // 16 // line_nbytes))
    step = between(step if by_rows else apart(step), 1, length)
    if not by_rows and matrix.panel_columns is not None:
        most = step
        for step in _panel_steps(most, matrix.panel_columns):
            try:  # as if driver and workers were one process, which takes most: the cuts are every engine's
                _with_step(title, statistic, matrix, replace(host, shared=True), reserved, mapped, step, span)
            except MemoryPlanError:
                continue
            break
    return _with_step(title, statistic, matrix, host, reserved, mapped, step, span)


def _line_nbytes(matrix: Matrix, by_rows: bool) -> int:
    """Bytes of a row (or column) in memory, on average where it is sparse."""
    n_rows, n_columns = matrix.shape
    if matrix.sparse:
        return -(-matrix.nbytes // (n_rows if by_rows else n_columns))
    return (n_columns if by_rows else n_rows) * compute_dtype(matrix.dtype).itemsize


def _panel_steps(most: int, width: int) -> Iterator[int]:
    """Columns a block where panels of ``width`` are contiguous, best first.

    As many whole panels as ``most`` columns hold; one panel; the even parts of one, should it not fit the budget.
    """
    if most >= 2 * width:
        yield most // width * width
    yield from (width // parts for parts in range(1, width + 1) if width % parts == 0)


def _with_step(
    title: str, statistic: Statistic, matrix: Matrix, host: Host, reserved: int, mapped: int, step: int, span: Span
) -> FoldPlan:
    """The plan for ``span`` with blocks of ``step``; MemoryPlanError if one task at a time does not fit."""
    n_rows, n_columns = matrix.shape
    itemsize = compute_dtype(matrix.dtype).itemsize
    by_rows = statistic.axis == "rows"
    whole, line = (n_rows, n_columns) if by_rows else (n_columns, n_rows)
    length = len(span)
    total_nbytes = length * _line_nbytes(matrix, by_rows)

    shape = (step, line) if by_rows else (line, step)
    state = statistic.state_nbytes(n_rows, n_columns)
    block_nbytes = matrix.block_nbytes(*shape, itemsize)
    task = block_nbytes + statistic.scratch_nbytes(*shape, itemsize) + matrix.reader_nbytes(*shape)
    n_runs = between(-(-total_nbytes // RUN_NBYTES), min(8, -(-length // step)), MAX_RUNS)
    n_runs = runs_that_fit(n_runs, state, host.memory // 2)
    cut = runs(span, step, n_runs)
    read = matrix.nbytes * length // whole
    n_live = live_states_of(len(cut))
    plan = FoldPlan(
        title, statistic.axis, step, cut, mapped, state, n_live, task, reserved, 1, read, host.shared,
        work=work_of_fold(statistic, matrix, cut, step, mapped > 0),
    )  # fmt: skip
    return fitted(plan, matrix.uri, host)


def fitted(plan: FoldPlan, uri: str, host: Host) -> FoldPlan:
    """A plan of one task at a time, with as many at once as fit; MemoryPlanError if one does not."""
    if plan.peak_nbytes > host.memory:
        raise MemoryPlanError(
            f"{uri}: {plan.title} needs {show_bytes(plan.peak_nbytes)} of arrays at least: "
            f"{show_bytes(plan.task_nbytes)} a task, {plan.live_states} x {show_bytes(plan.state_nbytes)} of state, "
            f"{show_bytes(plan.reserved)} on the driver; the budget is {show_bytes(host.memory)}."
        )
    for concurrency in range(min(host.threads, len(plan.runs)), 1, -1):
        more = replace(plan, concurrency=concurrency)
        if more.peak_nbytes <= host.memory:
            return more
    return plan


PlanType = TypeVar("PlanType")


def or_say_what_fits(make: Callable[[Host], PlanType], host: Host, remedy: str) -> PlanType:
    """``make(host)``; where the budget is too small, add to the error the budget that would do."""
    try:
        return make(host)
    except MemoryPlanError as error:
        memory = host.memory
        while memory < 2**50:
            memory = max(MIB, memory * 5 // 4)
            try:
                make(replace(host, memory=memory))
            except MemoryPlanError:
                continue
            raise MemoryPlanError(f"{error} It fits in memory={show_bytes(_round_up(memory))!r}; {remedy}") from None
        raise MemoryPlanError(f"{error} No machine has so much: {remedy.removeprefix('or ')}") from None


def runs_that_fit(n_runs: int, state_nbytes: int, nbytes: int) -> int:
    """``n_runs``, halved until the states that may wait at once take no more than ``nbytes``; 1 at least."""
    while n_runs > 1 and live_states_of(n_runs) * state_nbytes > nbytes:
        n_runs //= 2
    return n_runs


def live_states_of(n_runs: int) -> int:
    """Partial states that can wait at once in a tree of fan-in 4 that is worked off in order."""
    depth = 0
    while FAN_IN**depth < n_runs:
        depth += 1
    return min(n_runs, (FAN_IN - 1) * depth + 8)


def _round_up(n: int) -> int:
    unit = GIB if n >= 4 * GIB else 64 * MIB if n >= 256 * MIB else MIB
    return -(-n // unit) * unit


def between(value: int, low: int, high: int) -> int:
    """``value``, or the nearer of the two bounds where it lies outside; ``low`` where they cross."""
    return max(low, min(value, high))
