"""Dask: threads of this process by default, or a cluster at an address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from threadpoolctl import threadpool_limits

from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Result, Task
from lazypipe.engines.dask_cluster import checked_workers, connected, host_of
from lazypipe.engines.dask_gpus import GPU, as_placed, gpus_of_workers, most_gpus, require_gpus
from lazypipe.engines.dask_local import BUDGET, SLOTS, local_cluster
from lazypipe.engines.dask_losses import LOST, REMEDY, Losses, NotSent
from lazypipe.engines.dask_sending import sent
from lazypipe.engines.dask_watch import Watch, shown
from lazypipe.engines.dask_worker import do_call, do_merge, do_run
from lazypipe.engines.listening import Tell, listening, overheard
from lazypipe.engines.listening_dask import TellThroughScheduler, listening_through
from lazypipe.engines.memory import OutOfMemory, refused_memory, show_allowed, show_task
from lazypipe.errors import EngineError, MemoryPlanError
from lazypipe.io.kept import release_kept
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FAN_IN, FoldPlan, Host
from lazypipe.progress import Progress, Shares, StageDone, StageStarted, TaskDone
from lazypipe.sizes import show_bytes
from lazypipe.stats.base import Statistic


class DaskEngine:
    """Leaf tasks fold runs of blocks; states merge four at a time, in index order, on the workers."""

    kind = "dask"

    def __init__(self, address: str | None, memory: int | None, workers: int | None, progress: Progress):
        self.progress = progress
        self.address = address
        self._cluster: LocalCluster | None = None
        self.watch: Watch | None = None
        self._tell: TellThroughScheduler | None = None  # of the workers' logs
        self._places: dict[str, int] = {}  # of the tasks of this stage, by their keys
        self._open = ExitStack()
        if address is None:
            self._start(memory or DEFAULT_MEMORY, workers or dask.system.CPU_COUNT)
        else:
            self._connect(address, memory)
        # For the driver's own arithmetic too: other thread counts round otherwise, and engines would differ.
        self._limit = threadpool_limits(1)

    def _start(self, memory: int, threads: int) -> None:
        self._cluster = local_cluster(threads)
        self.client = Client(self._cluster)
        base, compiler = resident.base_nbytes(threads), resident.has_compiler()
        self.host = Host(memory, threads, shared=True, base=base, compiler=compiler)
        self.slots = threads

    def _connect(self, address: str, memory: int | None) -> None:
        self.client = connected(address)
        try:
            workers = checked_workers(self.client, address)
            self.host = host_of(self.client, workers, memory)
            self.slots = sum(worker["nthreads"] for worker in workers.values())
            tell = self._open.enter_context(listening_through(self.client, self.progress))
            self.watch = Watch(self.client, address, lambda event: overheard(tell.key, event))
            self.watch.start()
            self._tell = tell
        except BaseException:
            self._open.close()
            self.client.close()
            raise

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        self._check_slots(plan)
        losses = Losses(self, plan, len(plan.runs))
        while True:
            try:
                return statistic.finish(self._fold(statistic, matrix, plan))
            except LOST as error:
                losses.add(error)

    def _fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        workers = self._workers()
        statistic_there, matrix_there = self._send([statistic, matrix])
        leaves = self.client.map(
            do_run,
            plan.runs,
            statistic=statistic_there,
            matrix=matrix_there,
            mapped=plan.mapped,
            tell=self._tell,
            resources=self._slot(plan),
            workers=workers,
            pure=False,
        )
        level = list(leaves)
        while len(level) > 1:  # merges go before leaves, so that few states wait
            level = [
                self.client.submit(
                    do_merge,
                    statistic_there,
                    level[i : i + FAN_IN],
                    self._tell,
                    workers=workers,
                    pure=False,
                    priority=10,
                )
                for i in range(0, len(level), FAN_IN)
            ]
        self._places = {future.key: i for i, future in enumerate(leaves)}
        with self._stage(plan, len(plan.runs)):
            for _ in self._ended(leaves, plan, len(plan.runs)):
                pass
        return self._result(level[0], plan, len(plan.runs))

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        self._check_slots(plan)
        losses = Losses(self, plan, len(tasks))
        n_given = 0
        with self._stage(plan, len(tasks)):
            while True:
                try:
                    for result in self._map(function, tasks, plan, n_given):
                        n_given += 1
                        yield result
                    return
                except LOST as error:
                    losses.add(error)

    @property
    def gpus(self) -> int | None:
        return None if self.host.shared else sum(gpus_of_workers(self.client))

    def _map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan, n_given: int
    ) -> Iterator[Result]:
        """The results after the first ``n_given``."""
        workers = self._workers()
        futures = self.client.map(
            do_call,
            tasks[n_given:],
            function=self._send(function),
            tell=self._tell,
            resources=self._slot(plan),
            workers=workers,
            pure=False,
        )
        ready: dict[int, Result] = {}
        turn = n_given
        self._places = {future.key: i for i, future in enumerate(futures, n_given)}
        for i, future in self._ended(futures, plan, len(tasks)):
            ready[i] = self._result(future, plan, len(tasks))
            while turn in ready:
                yield ready.pop(turn)
                turn += 1

    def _send(self, what: Any) -> Any:
        """Futures of ``what``, on every worker of a cluster."""
        try:
            awake = self.watch.awake() if self.watch else None
            return sent(self.client, what, awake, not self.host.shared)
        except (
            OSError,
            KeyError,
        ) as error:  # a connection that breaks, or that none takes; a worker that the scheduler lost
            raise NotSent from error

    def _workers(self) -> list[str] | None:
        """Who may get the tasks that are sent now; None: everyone."""
        return self.watch.allowed() if self.watch else None

    def _slot(self, plan: FoldPlan) -> dict[str, float] | None:
        if self.host.shared:
            return {SLOTS: BUDGET // plan.concurrency}
        return {GPU: plan.gpus} if plan.gpus else None

    def _check_slots(self, plan: FoldPlan) -> None:
        if self.address is None:
            return
        threads = self.host.threads
        if plan.gpus:
            require_gpus(self.client, self.address, plan.gpus)
            threads = min(threads, most_gpus(self.client) // plan.gpus)
        if plan.concurrency < min(threads, len(plan.runs)):
            raise MemoryPlanError(
                f"dask: {threads} tasks at once of {show_bytes(plan.task_nbytes)} each exceed the "
                f"budget of {show_bytes(self.host.memory)} a worker. Start workers with --nthreads "
                f"{plan.concurrency}, or raise the budget."
            )

    @contextmanager
    def _stage(self, plan: FoldPlan, n_tasks: int) -> Iterator[None]:
        """Tell the progress that a stage begins and, once the block is through, that it is done."""
        self.progress.emit(StageStarted(plan.title, n_tasks, plan.bytes_read))
        begun = time.monotonic()
        yield
        self.progress.emit(StageDone(plan.title, time.monotonic() - begun))

    def _ended(self, futures: list[Future], plan: FoldPlan, n_tasks: int) -> Iterator[tuple[int, Future]]:
        """Each future and its place, as it ends, told to the progress. Takes the list over and empties it.

        They are the last of a stage of ``n_tasks`` tasks; those before them are done. A state lives as long as a
        future of it: holding none lets the cluster drop what is merged, and, where one task fails, all that has not
        begun.
        """
        n_before, shares = n_tasks - len(futures), Shares(plan.runs, n_tasks)
        for i in range(n_before):
            shares.add(i)
        ended: Iterator[Future] = as_completed(futures)
        if self.address is not None and plan.gpus:
            ended = as_placed(ended, self.client, self.address, plan.gpus)
        futures.clear()
        for n_done, future in enumerate(ended, n_before + 1):
            if future.status in ("error", "cancelled"):
                self._result(future, plan, n_tasks)
            i = self._places[future.key]
            yield i, future
            self.progress.emit(TaskDone(n_done, n_tasks, shares.add(i)))

    def listen(self) -> AbstractContextManager[Tell]:
        return listening(self.progress) if self.host.shared else listening_through(self.client, self.progress)

    def _result(self, future: Future, plan: FoldPlan, n_tasks: int) -> Any:
        """Of one of the plan's ``n_tasks`` tasks, or of what merges their states."""
        places = self._places
        try:
            return future.result()
        except OutOfMemory as error:
            place = places.get(future.key)
            raise refused_memory("dask", error, plan, place, n_tasks, self.host.base) from error
        except KilledWorker as error:
            assert self.watch is not None
            last = error.last_worker.address
            raise EngineError(
                f"dask: {shown(last, str(error.last_worker.name))} and {error.allowed_failures} others died at "
                f"{show_task(plan, places.get(error.task), n_tasks)}, {self.watch.cause(last)}; "
                f"{show_allowed(plan, self.host.base)}. {REMEDY}"
            ) from error

    def describe(self) -> str:
        if self.address is None:
            return f"dask: {self.host.threads} threads of this process"
        workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
        return f"dask: {workers} workers x {self.host.threads} threads at {self.address}"

    def trace(self) -> dict[str, str]:
        scheduler = self.client.scheduler_info(n_workers=0)
        found = {"application_id": str(scheduler["id"])}
        if port := scheduler["services"].get("dashboard"):
            host = "127.0.0.1" if self.address is None else self.address.partition("://")[2].rpartition(":")[0]
            found["dashboard"] = f"http://{host}:{port}/status"
        return found

    def peak_memory(self) -> int:
        if self.host.shared:
            return resident.peak_nbytes()
        return max([*self._asked(resident.peak_nbytes), resident.peak_nbytes()])

    def reset_peak(self) -> None:
        resident.reset_peak()
        if not self.host.shared:
            self._asked(resident.reset_peak)

    def _asked(self, function: Callable[[], Any]) -> list[Any]:
        """What it gives on workers that live and answer."""
        assert self.watch is not None
        with suppress(TimeoutError, OSError):
            return [answer for answer in self.watch.ask(function).values() if isinstance(answer, int)]
        return []

    def close(self) -> None:
        if self.watch is not None:
            self.watch.end()
        self._open.close()
        self.client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._limit.restore_original_limits()
        release_kept()

    def __enter__(self) -> DaskEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
