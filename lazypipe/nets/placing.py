"""Trainings as tasks: on this machine or on a worker with a GPU, in one process or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from lazypipe.blocks import Run
from lazypipe.engines import Engine
from lazypipe.engines.placed import given_gpu
from lazypipe.errors import RefusedError
from lazypipe.io.matrix import Matrix
from lazypipe.nets.device import arithmetic, device_of
from lazypipe.nets.options import Options
from lazypipe.nets.processes import Alone, Group, join
from lazypipe.nets.rendezvous import Rendezvous
from lazypipe.nets.spawning import Tell, spawned
from lazypipe.plan import FoldPlan, Host, Plan, fitted, or_say_what_fits

NO_GPU = "no worker with a GPU: training on the CPU"
OFFER = {
    "dask": "`dask worker ADDRESS --nthreads 1 --resources GPU=1`",
    "spark": "spark.worker.resource.gpu.amount and a discovery script",
}
REMEDY = "or give a smaller batch_size, or fewer units."


class Work(Protocol):
    """What is trained, by every process of a group; picklable."""

    @property
    def options(self) -> Options: ...

    def __call__(self, group: Group, tell: Tell) -> Any: ...


@dataclass(frozen=True)
class Computed:
    """A work with the precision and on the threads that it asks for."""

    work: Work

    def __call__(self, group: Group, tell: Tell) -> Any:
        options = self.work.options
        threads = options.threads or (None if group.size == 1 else torch.get_num_threads())
        with arithmetic(options.matmul_precision, threads):
            return self.work(group, tell)


@dataclass(frozen=True)
class Process:
    """One process of a training, as a task of ``Engine.map``. They meet at ``address``; None: there is no other."""

    work: Work
    tell: Tell
    address: str | None = None

    def __call__(self, rank: int) -> Any:
        options = self.work.options
        device = device_of(options.device, given_gpu())
        if self.address is None:
            return Computed(self.work)(Alone(device), self.tell)
        with join(rank, options.processes, self.address, options.timeout, device) as group:
            return Computed(self.work)(group, self.tell)


def carried_out(work: Work, engine: Engine, plan: FoldPlan) -> Any:
    """What ``work`` gives, on a worker of ``engine``; its events reach the engine's listeners while it goes on.

    Where the engine is this process, it is done in the caller's thread, which Ctrl-C ends (a task of Dask would go on
    to its end), and several processes are started here; else they are tasks of a worker each. Raises ConfigError where
    CUDA is asked for and absent, EngineError where a worker is missing or lost.
    """
    options = work.options
    n = options.processes
    with engine.listen() as tell:
        if engine.host.shared and n == 1:
            return Process(work, tell)(0)
        if engine.host.shared:
            return spawned(Computed(work), n, options.timeout, tell, options.device)
        if n == 1:
            [result] = engine.map(Process(work, tell), [0], plan)
            return result
        with Rendezvous(n, options.timeout, engine) as meeting:
            process = Process(work, tell, meeting.address)
            result, *_ = engine.map(process, list(range(n)), replace(plan, runs=plan.runs * n))
            return result


def gpus_of(options: Options, engine: Engine) -> int:
    """GPUs that each process asks the engine for: one where a cluster has some, or is asked to."""
    if engine.gpus is None or options.device == "cpu":
        return 0
    return 1 if options.device == "cuda" or engine.gpus > 0 else 0


def processes_here(options: Options, engine: Engine) -> int:
    """Processes that share the budget of this machine."""
    return options.processes if engine.host.shared else 1


def budget_of(options: Options, engine: Engine) -> int:
    """Of one process."""
    return engine.host.memory // processes_here(options, engine)


def plan_training(
    job: str,
    matrix: Matrix,
    engine: Engine,
    options: Options,
    *,
    nbytes: Callable[[int], int],
    block_rows: int,
    result_nbytes: int,
    passes: int,
    notes: tuple[str, ...],
) -> Plan:
    """The plan of a training. ``nbytes(memory)`` is what it takes of a budget; raises MemoryPlanError.

    ConfigError where CUDA is asked for and this machine, on which it is to run, has none; RefusedError where no worker
    of a cluster has one.
    """
    if engine.gpus is None:
        device_of(options.device)
    gpus, n_here = gpus_of(options, engine), processes_here(options, engine)
    if gpus and engine.gpus == 0:
        raise RefusedError(
            f"{engine.kind}: device cuda needs a GPU, and no worker offers one. Start one with {OFFER[engine.kind]}, "
            f"or pass device='auto' or 'cpu' (--device cpu)."
        )
    if engine.gpus == 0 and options.device == "auto":
        notes = (*notes, NO_GPU)
    if n_here > 1:
        notes = (*notes, f"{n_here} processes on this machine share the budget; the libraries are loaded by each")

    def fold(host: Host) -> FoldPlan:
        plan = FoldPlan(
            "training",
            "rows",
            block_rows,
            (Run(0, 0, matrix.shape[0], block_rows),),
            mapped_nbytes=0,
            state_nbytes=result_nbytes,
            live_states=1,
            task_nbytes=n_here * nbytes(host.memory // n_here),
            reserved=0,
            concurrency=1,
            bytes_read=matrix.nbytes,
            shared=host.shared,
            gpus=gpus,
        )
        return fitted(plan, matrix.uri, host)

    made = or_say_what_fits(fold, engine.host, REMEDY)
    return Plan(
        job, matrix.uri, matrix.shape, str(matrix.dtype), engine.host, (made,), passes,
        output_nbytes=result_nbytes, notes=notes,
    )  # fmt: skip
