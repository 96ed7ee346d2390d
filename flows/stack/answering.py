"""Whether a server does what it is for: each function returns nothing, or raises OSError that tells why not."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from urllib.parse import quote

from flows.stack.reachable import login
from flows.stack.web import SECONDS, ask_json


def prefect(api: str) -> None:
    """Prefect's server and its database answer."""
    ask_json(f"{api}/ready")


def mlflow(uri: str) -> None:
    """MLflow's server and its database answer."""
    ask_json(f"{uri}/api/2.0/mlflow/experiments/search", {"max_results": 1})


def prefect_worker(api: str, pool: str, name: str, started: float) -> None:
    """The work pool has heard of this worker since it was started."""
    workers = ask_json(f"{api}/work_pools/{quote(pool, safe='')}/workers/filter", {}, login())
    for worker in workers:
        heard = datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp()
        if worker["name"] == name and worker["status"] == "ONLINE" and heard > started:
            return
    raise OSError(f"the work pool {pool} has not heard of its worker")


def dask_scheduler(address: str) -> None:
    """The Dask scheduler shakes hands."""
    dask_identity(address)


def dask_worker(address: str, name: str) -> None:
    """A worker is registered at the scheduler."""
    if name not in [worker["id"] for worker in dask_identity(address)["workers"].values()]:
        raise OSError(f"the scheduler at {address} does not know it")


def dask_identity(address: str) -> dict[str, Any]:
    """What the scheduler says of itself and of its workers."""
    from distributed.core import rpc

    async def ask() -> dict[str, Any]:
        async with rpc(address) as scheduler:
            answer: dict[str, Any] = await scheduler.identity(n_workers=-1)
            return answer

    return asyncio.run(asyncio.wait_for(ask(), SECONDS))


def spark_master(page: str) -> None:
    """The Spark master is in charge."""
    if (status := ask_json(f"{page}/json/")["status"]) != "ALIVE":
        raise OSError(f"the master is {status}")


def spark_worker(page: str, port: int) -> None:
    """A worker with this port for its page is registered at the master."""
    for worker in ask_json(f"{page}/json/")["workers"]:
        if worker["state"] == "ALIVE" and worker["webuiaddress"].endswith(f":{port}"):
            return
    raise OSError(f"the master at {page} does not know it")
