"""Reaching a Dask cluster: who listens, which workers there are, and how much memory they leave to a job."""

from __future__ import annotations

import logging
import time
from typing import Any

from distributed import Client

from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, MIN_MEMORY
from lazypipe.engines.dask_strangers import START_AGAIN
from lazypipe.engines.dask_watch import ANSWER_SECONDS, SILENT_SECONDS, answers
from lazypipe.engines.dask_worker import do_empty
from lazypipe.engines.knocking import knock
from lazypipe.engines.versions import ASK, require_same_versions
from lazypipe.errors import EngineError, MemoryPlanError, RefusedError
from lazypipe.plan import Host
from lazypipe.sizes import MIB, show_bytes

CONNECT_SECONDS = 5
WORKER_SECONDS = 8  # for the first worker of a cluster that is being started
PAUSED = 0.8  # of its limit, and a worker takes no more tasks; at 95% its nanny ends it


def connected(address: str) -> Client:
    """A client of the scheduler at ``address``. Raises EngineError where none answers, RefusedError where none can."""
    for name in ("distributed", "distributed.client", "distributed.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised, not logged
    try:
        _require_listener(address)
        return Client(address, timeout=CONNECT_SECONDS)
    except ValueError as error:  # of another scheme, or without a port
        raise RefusedError(f"dask: {address} is no address of a scheduler. Write it as tcp://host:8786.") from error
    except (OSError, TimeoutError) as error:
        raise EngineError(
            f"dask: no scheduler answers at {address} ({type(error).__name__}). Start one with "
            f"`dask scheduler`, or leave the address out to work on this machine."
        ) from error


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens, and where nobody speaks: Dask itself waits for a silent one for ever."""
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("tcp", "tls") and port.isdigit():
        knock(host.strip("[]"), int(port), b"" if scheme == "tcp" else None)


def checked_workers(client: Client, address: str) -> dict[str, dict[str, Any]]:
    """The workers that answer, by address. Raises EngineError where there is none, or one that differs from here."""
    deadline = time.monotonic() + WORKER_SECONDS
    while not (workers := client.scheduler_info(n_workers=-1)["workers"]):
        if time.monotonic() > deadline:
            raise EngineError(
                f"dask: the scheduler at {address} has no workers. Start one with `dask worker {address} --nthreads 1`."
            )
        time.sleep(0.1)
    now = client.run_on_scheduler(time.time)
    awake = {name: worker for name, worker in workers.items() if now - worker["last_seen"] < SILENT_SECONDS}
    if not awake:
        longest = max(now - worker["last_seen"] for worker in workers.values())
        raise EngineError(
            f"dask: none of the {len(workers)} workers at {address} has been heard of for {longest:.0f} s. "
            f"Look at their logs, or start others with `dask worker {address} --nthreads 1`."
        )
    require_same_versions("dask", asked(client, list(awake), eval, ASK), START_AGAIN)
    return awake


def asked(client: Client, workers: list[str], function: Any, *arguments: Any) -> dict[str, Any]:
    """The ``answers`` of those workers. Raises EngineError where one of them does not answer in time."""
    try:
        return answers(client, workers, function, *arguments)
    except TimeoutError as error:
        raise EngineError(
            f"dask: a worker among {', '.join(workers[:3])} does not answer within {ANSWER_SECONDS:.0f} s. Look at its "
            f"log, or end it."
        ) from error


def host_of(client: Client, workers: dict[str, dict[str, Any]], memory: int | None) -> Host:
    """What a plan has to know of these workers. Raises MemoryPlanError where ``memory`` does not fit in them."""
    threads = max(worker["nthreads"] for worker in workers.values())
    found = asked(client, list(workers), do_empty, threads).items()
    bases = {name: base for name, base in found if isinstance(base, int)}  # a worker may have gone meanwhile
    own = resident.base_nbytes(1)  # the driver's, which may hold much that is no concern of the workers
    base = max(bases.values(), default=own)
    limits = {name: worker["memory_limit"] for name, worker in workers.items() if worker["memory_limit"]}
    if limits:
        limit, least = min(((limits[name], bases.get(name, base)) for name in limits), key=lambda one: room(*one))
        memory = budget_within(limit, least, memory)
    return Host(memory or DEFAULT_MEMORY, threads, shared=False, base=max(base, own))


def room(limit: int, base: int) -> int:
    """Bytes that a worker of that limit has for arrays beside its libraries."""
    return int(PAUSED * limit) - base


def budget_within(limit: int, base: int, memory: int | None) -> int:
    """``memory``, or all the room there is. Raises MemoryPlanError where that is too little."""
    most = room(limit, base)
    if most < MIN_MEMORY:
        raise MemoryPlanError(
            f"dask: workers of {show_bytes(limit)}, which Dask pauses at {PAUSED:.0%}, have no room beside the "
            f"libraries' {show_bytes(base)}. Start them with a larger --memory-limit."
        )
    if memory is not None and memory > most:
        fits = (most - most % MIN_MEMORY) // MIB  # a little less: what the libraries take differs between runs
        raise MemoryPlanError(
            f"dask: a budget of {show_bytes(memory)} and the libraries' {show_bytes(base)} exceed the workers' limit "
            f"of {show_bytes(limit)}, of which Dask leaves {PAUSED:.0%}. Lower the budget to {fits}MiB, or "
            f"start workers with a larger --memory-limit."
        )
    return most if memory is None else memory
