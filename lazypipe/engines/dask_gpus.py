"""GPUs of a Dask cluster: workers that offer them, and tasks that would wait for one for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator

from distributed import Client, Future, as_completed

from lazypipe.engines.placed import show_gpus
from lazypipe.errors import EngineError, RefusedError

GPU = "GPU"  # the resource that workers with one are started with
LOOK_SECONDS = 0.2
CHECK_SECONDS = 3.0
GONE_SECONDS = 30.0  # without one while tasks wait for it: a nanny has started its worker again by then


def gpus_of_workers(client: Client) -> list[int]:
    """How many each worker offers."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return [int(worker["resources"].get(GPU, 0)) for worker in workers]


def most_gpus(client: Client) -> int:
    """How many the worker with most of them offers."""
    return max(gpus_of_workers(client), default=0)


def require_gpus(client: Client, address: str, gpus: int, since: str = "") -> None:
    """Raise RefusedError where no worker has so many: the scheduler would keep a task waiting without a word.

    EngineError where there was one that had: it may come back. ``since`` says when it was seen last.
    """
    if most_gpus(client) < gpus:
        raise (EngineError if since else RefusedError)(
            f"dask: no worker at {address} offers {show_gpus(gpus)}{since}. Start one where there is, with "
            f'`dask worker {address} --nthreads 1 --resources {GPU}={gpus}`, or work without: device="cpu".'
        )


def as_placed(ended: as_completed, client: Client, address: str, gpus: int) -> Iterator[Future]:
    """Futures as they end, until no worker is left that could run the others."""
    seen = checked = time.monotonic()
    while not ended.is_empty():
        if ended.has_ready():
            yield next(ended)
            continue
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if now - checked < min(CHECK_SECONDS, GONE_SECONDS):
            continue
        checked = now
        if most_gpus(client) >= gpus:
            seen = now
        elif now - seen > GONE_SECONDS:
            require_gpus(client, address, gpus, f" any more, and none came for {now - seen:.0f} s")
