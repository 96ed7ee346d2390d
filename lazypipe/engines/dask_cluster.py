"""Reaching a Dask cluster: who listens, which workers there are, and how much memory they leave to a job."""

from __future__ import annotations

import logging
import time
from typing import Any

from distributed import Client
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import get_backend

from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY
from lazypipe.engines.dask_strangers import START_AGAIN
from lazypipe.engines.dask_watch import ANSWER_SECONDS, SILENT_SECONDS, answers
from lazypipe.engines.knocking import knock
from lazypipe.engines.memory import budget_within
from lazypipe.engines.tasks import emptied_base
from lazypipe.engines.versions import ASK, require_same_versions
from lazypipe.errors import EngineError, RefusedError
from lazypipe.plan import Host
from lazypipe.sizes import show_bytes

CONNECT_SECONDS = 5
KNOCKED = ("tcp", "tls")
OF_PORTS = (*KNOCKED, "ws", "wss")
WORKER_SECONDS = 8  # for the first worker of a cluster that is being started
PAUSED = 0.8  # of its limit, and a worker takes no more tasks; at 95% its nanny ends it
LARGER = "start workers with a larger --memory-limit"


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
    """Raise OSError where nobody listens, and where nobody speaks: Dask itself waits for a silent one for ever.

    Raises ValueError for what is no address, of which Dask would leave half a client: when that is collected, in the
    start of the next one, both wait for one lock for ever.
    """
    scheme, place = parse_address(address)
    get_backend(scheme)  # ValueError of a scheme that there is not
    if scheme in OF_PORTS:
        host, port = parse_host_port(place)
        if not 0 < port < 2**16:
            raise ValueError(f"{port} is no port")
        if scheme in KNOCKED:
            knock(host, port, b"" if scheme == "tcp" else None)


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
    found = asked(client, list(workers), emptied_base, threads).items()
    bases = {name: base for name, base in found if isinstance(base, int)}  # a worker may have gone meanwhile
    own = resident.base_nbytes(1)  # the driver's, which may hold much that is no concern of the workers
    base = max(bases.values(), default=own)
    limits = {name: worker["memory_limit"] for name, worker in workers.items() if worker["memory_limit"]}
    rooms = {name: int(PAUSED * limit) - bases.get(name, base) for name, limit in limits.items()}
    if rooms:
        least = min(rooms, key=lambda name: rooms[name])
        limit = f"{show_bytes(limits[least])}, of which Dask leaves {PAUSED:.0%}"
        memory = budget_within("dask", memory, rooms[least], bases.get(least, base), limit, LARGER)
    return Host(memory or DEFAULT_MEMORY, threads, shared=False, base=max(base, own))
