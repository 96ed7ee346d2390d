"""The file systems of fsspec: one a process and kind of store, opened when first asked for.

Credentials, regions and endpoints come from the environment, as each store's own library reads it; nothing of
them is kept in an address, an object that is pickled, or a message.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from lazypipe.errors import DataError
from lazypipe.stores.errors import told

CONNECT_SECONDS = 2
READ_SECONDS = 20  # between two packets
SETUP_SECONDS = 120
ANSWER_SECONDS = 9  # for what is answered at once: sizes, and what lies right below an address
LIST_SECONDS = 60  # for all that lies below it
RANGES_SECONDS = 600  # for the bytes of one block
CONNECTIONS = 64

S3: dict[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 3},  # of connections, timeouts, throttling, 5xx
        "max_pool_connections": CONNECTIONS,
    },
}
UNCACHED: dict[str, Any] = {"use_listings_cache": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": S3, "s3a": S3, "gs": UNCACHED, "gcs": UNCACHED, "az": UNCACHED, "abfs": UNCACHED, "abfss": UNCACHED,
    "hf": UNCACHED, "http": UNCACHED, "https": UNCACHED, "memory": {},
}  # fmt: skip
PACKAGES = {
    "s3": "lazypipe[s3]", "s3a": "lazypipe[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
READ_ONLY = ("http", "https")


class FileSystems:
    """Those of this process; a fork opens its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[tuple[int, str], Any] = {}

    def of(self, scheme: str, uri: str) -> Any:
        """That of ``scheme``; DataError where its package is not installed, StoreError where it cannot be set up."""
        key = os.getpid(), scheme
        with self._lock:
            if key not in self._opened:
                self._opened[key] = _opened(scheme, uri)
            return self._opened[key]

    def forget(self) -> None:
        """Open them anew, as after the environment changed."""
        with self._lock:
            self._opened.clear()

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self._opened = {}


FILE_SYSTEMS = FileSystems()
os.register_at_fork(after_in_child=FILE_SYSTEMS.after_fork)


def _opened(scheme: str, uri: str) -> Any:
    try:
        import fsspec  # type: ignore[import-untyped]

        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise DataError(
            f"{uri}: {scheme}:// needs a package that is not installed. pip install '{PACKAGES[scheme]}'."
        ) from error
    with told(uri):
        opened = kind(skip_instance_cache=True, **OPTIONS[scheme])
        if hasattr(opened, "retries"):
            opened.retries = 2  # s3fs repeats what botocore has repeated already
        if scheme in ("s3", "s3a"):  # apart, for the time it takes says nothing of the store
            waited(opened, opened.set_session, SETUP_SECONDS)
    return opened


def answer(file_system: Any, name: str, *arguments: Any, seconds: float = ANSWER_SECONDS, **named: Any) -> Any:
    """What a method of a file system gives, or a timeout; ``name`` is that without a leading underscore."""
    method = getattr(file_system, f"_{name}", None) if getattr(file_system, "async_impl", False) else None
    if method is None:
        return getattr(file_system, name)(*arguments, **named)
    return waited(file_system, lambda: method(*arguments, **named), seconds)


def waited(file_system: Any, work: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """What a coroutine on the loop of a file system gives; TimeoutError after ``seconds``.

    Whatever ends the waiting, as Ctrl-C does, ends the work.
    """

    async def started() -> Any:
        return await work()

    future = asyncio.run_coroutine_threadsafe(started(), file_system.loop)
    try:
        return future.result(seconds)
    except BaseException:
        future.cancel()
        raise
