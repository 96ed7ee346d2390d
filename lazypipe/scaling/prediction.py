"""How long a plan takes on so many workers, pass by pass, and what it moves: added up, never simulated.

A pass reads, computes, merges its states in a tree, and ends on the driver; before it, what the tasks share is sent
to every worker. A worker has one task at a time and reads before it computes, so these add.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

from lazypipe.errors import PlanError
from lazypipe.operations import Operations
from lazypipe.plan import FAN_IN, FoldPlan, Plan
from lazypipe.scaling.machine import Machine
from lazypipe.sizes import KIB

GIGA, MICRO, MILLI = 1e9, 1e-6, 1e-3
COPIES = 2  # that each worker which holds what is sent passes on at a time (Dask's replicate)
HOPS = 2  # between driver and worker: the scheduler is one


@dataclass(frozen=True)
class Seconds:
    """Of a job, by what they are spent on."""

    reading: float = 0.0
    computing: float = 0.0
    writing: float = 0.0
    reducing: float = 0.0
    broadcasting: float = 0.0
    scheduling: float = 0.0  # that workers wait for tasks
    driver: float = 0.0

    @property
    def total(self) -> float:
        return sum(astuple(self))

    @property
    def largest(self) -> str:
        """The name of the part that takes most."""
        return max(fields(self), key=lambda part: float(getattr(self, part.name))).name

    def plus(self, other: Seconds, times: float = 1.0) -> Seconds:
        return Seconds(*(mine + times * its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Pass:
    """One pass of a plan on so many workers."""

    fold: FoldPlan
    seconds: Seconds
    busy: float  # workers that have a task, on average
    storage_is_full: bool  # so that more workers read no more
    read_nbytes: float
    reduced_nbytes: float  # between workers
    sent_nbytes: float  # to all workers
    returned_nbytes: float


@dataclass(frozen=True)
class Prediction:
    """A plan on so many workers."""

    workers: int
    plan: Plan
    passes: tuple[Pass, ...]

    @property
    def seconds(self) -> Seconds:
        total = Seconds()
        for one in self.passes:
            total = total.plus(one.seconds, one.fold.work.times)
        return total

    @property
    def read_nbytes(self) -> float:
        """Of all workers."""
        return sum(one.fold.work.times * one.read_nbytes for one in self.passes)

    @property
    def busiest(self) -> float:
        """Bytes that the worker which reads most reads."""
        return sum(one.fold.work.times * one.read_nbytes / one.busy for one in self.passes)

    @property
    def reduced_nbytes(self) -> float:
        """From worker to worker."""
        return sum(one.fold.work.times * one.reduced_nbytes for one in self.passes)

    @property
    def sent_nbytes(self) -> float:
        """To all workers together."""
        return sum(one.fold.work.times * one.sent_nbytes for one in self.passes)

    @property
    def returned_nbytes(self) -> float:
        """To the driver."""
        return sum(one.fold.work.times * one.returned_nbytes for one in self.passes)

    @property
    def worker_nbytes(self) -> int:
        """Peak memory of a worker, its libraries included."""
        return self.plan.host.base + max(fold.worker_nbytes for fold in self.plan.folds)

    @property
    def driver_nbytes(self) -> int:
        """Peak memory of the driver, likewise."""
        return self.plan.host.base + max(fold.driver_nbytes for fold in self.plan.folds)

    @property
    def limit(self) -> str:
        """What takes most of the time."""
        name = self.seconds.largest
        slowest = max(self.passes, key=lambda one: one.fold.work.times * float(getattr(one.seconds, name)))
        full = name in ("reading", "writing") and slowest.storage_is_full
        return "shared storage" if full else name


def predict(plan: Plan, machine: Machine, workers: int, *, as_dense: bool = False) -> Prediction:
    """The plan on ``workers`` of one task at a time; in the driver's own process where the plan is for that.

    Raises PlanError for a plan of which nothing counts the arithmetic: that of sparse rows is known ``as_dense`` alone.
    """
    for fold in plan.folds:
        if fold.work.operations is None or (fold.work.as_dense and not as_dense):
            raise PlanError(
                f"{plan.uri}: there is no model of the time of {fold.title!r}: its arithmetic is not counted. "
                f"Leave the number of workers out."
            )
    return Prediction(workers, plan, tuple(_pass(fold, machine, workers) for fold in plan.folds))


def depth_of(n_runs: int) -> int:
    """Levels of the tree that merges so many states."""
    return math.ceil(math.log(n_runs, FAN_IN) - 1e-9)


def _pass(fold: FoldPlan, machine: Machine, workers: int) -> Pass:
    work, n_runs = fold.work, len(fold.runs)
    assert work.operations is not None
    workers = min(workers, fold.concurrency) if fold.shared else workers
    network = math.inf if fold.shared else machine.network * GIGA
    busy = n_runs / math.ceil(n_runs / workers)
    away = 0.0 if fold.shared else 1 - 1 / workers  # the share of states that lie on another worker

    read = max(work.read_nbytes, work.pieces * machine.page * KIB)
    seconds_alone = read / (busy * machine.storage * GIGA)
    seconds_shared = read / (machine.shared_storage * GIGA)
    reading = max(seconds_alone, seconds_shared) + work.pieces * machine.piece * MICRO / busy
    writing = max(
        work.written_nbytes / (busy * machine.storage * GIGA), work.written_nbytes / (machine.shared_storage * GIGA)
    )
    computing = seconds_of(work.operations, machine) / busy

    moved = reducing = 0.0
    returned, n_merges = work.returned_nbytes, 0
    if returned is None:  # a tree: what is merged while others work, and after the last of them a merge a level
        returned, state = fold.state_nbytes, fold.state_nbytes
        moved = away * (n_runs - 1) * state
        one = away * state / network + state / (machine.memory * GIGA)
        n_merges, depth = -(-(n_runs - 1) // (FAN_IN - 1)), depth_of(n_runs)
        last = min((FAN_IN - 1) * depth, n_runs - 1)
        reducing = (n_runs - 1 - last) * one / min(busy, workers) + last * one
    handing_out = (n_runs + n_merges) * machine.task * MILLI
    scheduling = max(0.0, handing_out - reading - computing - writing)

    generations = math.ceil(math.log(workers, 1 + COPIES) - 1e-9)
    broadcasting = work.sent_nbytes * (HOPS + COPIES * generations) / network
    driver = HOPS * returned / network + seconds_of(work.on_driver, machine)
    return Pass(
        fold,
        Seconds(reading, computing, writing, reducing, broadcasting, scheduling, driver),
        busy,
        seconds_shared > seconds_alone,
        read,
        moved,
        0.0 if fold.shared else workers * work.sent_nbytes,
        0.0 if fold.shared else returned,
    )


def seconds_of(operations: Operations, machine: Machine) -> float:
    """Of one core."""
    return sum(getattr(operations, one.name) / (getattr(machine, one.name) * GIGA) for one in fields(operations))
