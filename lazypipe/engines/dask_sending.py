"""What is sent to workers of Dask, also where the driver is interrupted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any

from distributed import Client

END_SECONDS = 10.0  # for what is on its way when the driver is interrupted


def sent(client: Client, what: Any, workers: Sequence[str] | None, broadcast: bool) -> Any:
    """Futures of ``what``, as ``Client.scatter`` gives them.

    An interruption, such as Ctrl-C or a signal, is raised once what is on its way has arrived: the scheduler would keep
    for ever what arrives for a client that has closed.
    """

    async def send() -> Any:
        return await client.scatter(what, workers=workers, broadcast=broadcast, hash=False, asynchronous=True)

    sending = asyncio.run_coroutine_threadsafe(send(), client.loop.asyncio_loop)
    try:
        return sending.result()
    except BaseException:
        if not sending.done():
            wait([sending], END_SECONDS)
        raise
