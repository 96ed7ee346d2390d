"""Dask: threads of this process by default, or a cluster at an address."""

from __future__ import annotations

import logging
import pkgutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.comm import CommClosedError
from threadpoolctl import threadpool_limits

import lazypipe
from lazypipe.blocks import Run
from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Result, Task
from lazypipe.engines.dask_gpus import GPU, as_placed, gpus_of_workers, most_gpus, require_gpus
from lazypipe.engines.listening import Tell, listening
from lazypipe.engines.listening_dask import listening_through
from lazypipe.engines.tasks import fold_run, merge_group, settle_worker
from lazypipe.errors import EngineError, MemoryPlanError
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import MAPS
from lazypipe.plan import FAN_IN, FoldPlan, Host
from lazypipe.progress import Progress, Shares, StageDone, StageStarted, TaskDone
from lazypipe.sizes import MIB, show_bytes
from lazypipe.stats.base import Statistic

LISTEN_SECONDS = 3
CONNECT_SECONDS = 5
TRIES = 4  # of what was lost with all workers that held it, as Dask tries a task again three times
PAUSE_SECONDS = 0.2  # before another try, longer each time
SLOTS = "lazypipe-slots"  # a resource of the in-process worker: how much of the budget a task takes


def _fold_run(run: Run, statistic: Statistic, matrix: Matrix, mapped: bool, own_process: bool) -> Any:
    if own_process:
        settle_worker()
    return fold_run(statistic, matrix, run, mapped)


def _call(task: Task, function: Callable[[Task], Result], own_process: bool) -> Result:
    if own_process:
        settle_worker()
    return function(task)


def require_listener(address: str) -> None:
    """Raise OSError at once where nobody listens: Dask itself keeps trying until its time is up."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("tcp", "tls") and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTEN_SECONDS).close()


class NotSent(Exception):
    """A worker died while something was sent to it."""


LOST = (CancelledError, NotSent)


def _is_news(record: logging.LogRecord) -> bool:
    """All but the time-outs of a cluster that is being closed on a busy machine, which nobody waits for."""
    error = record.exc_info[1] if record.exc_info else None
    return not (type(error).__name__ == "TimeoutError" and "never retrieved" in record.getMessage())


class DaskEngine:
    """Leaf tasks fold runs of blocks; states merge four at a time, in index order, on the workers."""

    kind = "dask"

    def __init__(self, address: str | None, memory: int | None, workers: int | None, progress: Progress):
        self.progress = progress
        self.address = address
        self._cluster: LocalCluster | None = None
        if address is None:
            self._start(memory or DEFAULT_MEMORY, workers or dask.system.CPU_COUNT)
        else:
            self._connect(address, memory)
        # For the driver's own arithmetic too: other thread counts round otherwise, and engines would differ.
        self._limit = threadpool_limits(1)

    def _start(self, memory: int, threads: int) -> None:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what fails is raised, not logged
        logging.getLogger("asyncio").addFilter(_is_news)
        # The plan bounds the memory. Dask's own monitor counts pages of mapped files as used, so it
        # would pause workers that hold little.
        self._cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            dashboard_address="127.0.0.1:0",  # None would still listen, on every interface
            memory_limit=None,
            resources={SLOTS: 1.0},
            silence_logs=logging.CRITICAL,
        )
        self.client = Client(self._cluster)
        base, compiler = resident.base_nbytes(threads), resident.has_compiler()
        self.host = Host(memory, threads, shared=True, base=base, compiler=compiler)
        self.slots = threads

    def _connect(self, address: str, memory: int | None) -> None:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            require_listener(address)
            self.client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise EngineError(
                f"dask: no scheduler answers at {address} ({type(error).__name__}). Start one with "
                f"`dask scheduler`, or leave the address out to work on this machine."
            ) from error
        try:
            self._check_workers(address)
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            threads = max(worker["nthreads"] for worker in workers)
            bases = self.client.run(resident.base_nbytes, threads)
            base = max(*bases.values(), resident.base_nbytes(1))
            limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
            if memory is None:
                # Dask's nanny ends a worker at 95% of its limit, and pauses it at 80%.
                memory = int(0.8 * min(limits)) - base if limits else DEFAULT_MEMORY
                if memory < 16 * MIB:
                    raise MemoryPlanError(
                        f"dask: workers of {show_bytes(min(limits))} have no room beside the libraries' "
                        f"{show_bytes(base)}. Start them with a larger --memory-limit."
                    )
            elif limits and memory + base > min(limits):
                raise MemoryPlanError(
                    f"dask: a budget of {show_bytes(memory)} and the libraries' {show_bytes(base)} exceed "
                    f"the workers' limit of {show_bytes(min(limits))}. Lower the budget, or start "
                    f"workers with a larger --memory-limit."
                )
            self.host = Host(memory, threads, shared=False, base=base)
            self.slots = sum(worker["nthreads"] for worker in workers)
        except BaseException:
            self.client.close()
            raise

    def _check_workers(self, address: str) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self.client.scheduler_info(n_workers=-1)["workers"]:
            if time.monotonic() > deadline:
                raise EngineError(
                    f"dask: the scheduler at {address} has no workers. Start one with "
                    f"`dask worker {address} --nthreads 1`."
                )
            time.sleep(0.1)
        # A function of the standard library, so that it arrives where lazypipe is missing.
        found = self.client.run(pkgutil.resolve_name, "lazypipe:__version__", on_error="return")
        for worker, version in found.items():
            if version != lazypipe.__version__:
                what = (
                    "cannot import lazypipe"
                    if isinstance(version, Exception)
                    else f"has lazypipe {version}, the driver {lazypipe.__version__}"
                )
                raise EngineError(
                    f"dask: the worker at {worker} {what}. Install lazypipe {lazypipe.__version__} in the "
                    f"environment that the worker runs in, and start the worker again."
                )

    def fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        self._check_slots(plan)
        for tries_left in reversed(range(TRIES)):
            try:
                return statistic.finish(self._fold(statistic, matrix, plan))
            except LOST as error:
                self._require_another_try(tries_left, error)
        raise AssertionError

    def _fold(self, statistic: Statistic, matrix: Matrix, plan: FoldPlan) -> Any:
        there = not self.host.shared
        statistic_there, matrix_there = self._send([statistic, matrix])
        leaves = self.client.map(
            _fold_run,
            plan.runs,
            statistic=statistic_there,
            matrix=matrix_there,
            mapped=plan.mapped,
            own_process=there,
            resources=self._slot(plan),
            pure=False,
        )
        level = list(leaves)
        while len(level) > 1:  # merges go before leaves, so that few states wait
            level = [
                self.client.submit(merge_group, statistic_there, level[i : i + FAN_IN], pure=False, priority=10)
                for i in range(0, len(level), FAN_IN)
            ]
        for _ in self._watch(leaves, plan):
            pass
        return self._result(level[0])

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        self._check_slots(plan)
        n_given = 0
        for tries_left in reversed(range(TRIES)):
            try:
                for result in self._map(function, tasks[n_given:], replace(plan, runs=plan.runs[n_given:])):
                    n_given += 1
                    yield result
                return
            except LOST as error:
                self._require_another_try(tries_left, error)

    @property
    def gpus(self) -> int | None:
        return None if self.host.shared else sum(gpus_of_workers(self.client))

    def _require_another_try(self, tries_left: int, error: BaseException) -> None:
        """Work is forgotten where every worker died that what it needs was sent to: it can be sent again."""
        if not tries_left or self.client.status != "running":
            raise EngineError(
                f"dask: workers died {TRIES} times with all that was sent to them, or the scheduler did. "
                f"Look at their logs; start workers with a larger --memory-limit."
            ) from error
        time.sleep((TRIES - tries_left) * PAUSE_SECONDS)

    def _map(self, function: Callable[[Task], Result], tasks: Sequence[Task], plan: FoldPlan) -> Iterator[Result]:
        futures = self.client.map(
            _call,
            tasks,
            function=self._send(function),
            own_process=not self.host.shared,
            resources=self._slot(plan),
            pure=False,
        )
        ready: dict[int, Result] = {}
        turn = 0
        for i, future in self._watch(futures, plan):
            ready[i] = self._result(future)
            while turn in ready:
                yield ready.pop(turn)
                turn += 1

    def _send(self, what: Any) -> Any:
        """Futures of ``what``, on every worker of a cluster."""
        try:
            return self.client.scatter(what, broadcast=not self.host.shared, hash=False)
        except (CommClosedError, KeyError, TimeoutError) as error:  # as the scheduler finds it gone
            raise NotSent from error

    def _slot(self, plan: FoldPlan) -> dict[str, float] | None:
        if self.host.shared:
            return {SLOTS: 1 / plan.concurrency}
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

    def _watch(self, futures: list[Future], plan: FoldPlan) -> Iterator[tuple[int, Future]]:
        """Each future and its place, as it ends, told to the progress. Takes the list over and empties it.

        A state lives as long as a future of it: holding none lets the cluster drop what is merged,
        and, where one task fails, all that has not begun.
        """
        n_tasks = len(futures)
        place = {future.key: i for i, future in enumerate(futures)}
        self.progress.emit(StageStarted(plan.title, n_tasks, plan.bytes_read))
        begun, shares = time.monotonic(), Shares(plan.runs, n_tasks)
        ended: Iterator[Future] = as_completed(futures)
        if self.address is not None and plan.gpus:
            ended = as_placed(ended, self.client, self.address, plan.gpus)
        futures.clear()
        for n_done, future in enumerate(ended, 1):
            if future.status in ("error", "cancelled"):
                self._result(future)
            i = place[future.key]
            yield i, future
            self.progress.emit(TaskDone(n_done, n_tasks, shares.add(i)))
        self.progress.emit(StageDone(plan.title, time.monotonic() - begun))

    def listen(self) -> AbstractContextManager[Tell]:
        return listening(self.progress) if self.host.shared else listening_through(self.client, self.progress)

    def _result(self, future: Future) -> Any:
        try:
            return future.result()
        except KilledWorker as error:
            raise EngineError(
                f"dask: {error.last_worker} and others died at the same task, most likely out of memory. "
                f"Lower the budget (memory=), or start workers with a larger --memory-limit."
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
        peaks = self.client.run(resident.peak_nbytes, on_error="ignore")  # of workers that live
        return max([*peaks.values(), resident.peak_nbytes()])

    def reset_peak(self) -> None:
        resident.reset_peak()
        if not self.host.shared:
            self.client.run(resident.reset_peak, on_error="ignore")

    def close(self) -> None:
        self.client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._limit.restore_original_limits()
        MAPS.release()

    def __enter__(self) -> DaskEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
