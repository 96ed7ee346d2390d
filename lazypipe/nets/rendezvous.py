"""Where the ranks of a group meet: a small store that their driver keeps, in which each tells that it is there.

Keys of the store: ``here/RANK`` the device of a rank that has come, ``beat/RANK`` its sign of life and how many
sums it has begun, ``over`` the error that ended the group, the first one only, with its notes. Everything in it is
text or JSON, never a pickle: whoever reaches the port can write to it, as to a Dask scheduler.
"""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Self

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's stubs do not export it

from lazypipe import errors
from lazypipe.engines.base import Engine
from lazypipe.errors import ConfigError, EngineError, LazypipeError

TIMEOUT_SECONDS = 300.0  # to join, and for the slowest rank of a sum: a rank may write or read for long


class Rendezvous:
    """The driver's side: holds the store while the ranks work. Use it in a ``with``.

    ``address`` (host:port, any free port) is for ``join``. It lies on the interface of this machine that leads to
    the engine's scheduler (Dask), or on which the executors reach the driver (Spark: ``spark.driver.host``); on
    127.0.0.1 where no engine is given or it works in this process, and nobody outside can connect then. ConfigError
    where the engine has fewer slots than ranks, which must all run at once.
    """

    def __init__(self, size: int, timeout: float = TIMEOUT_SECONDS, engine: Engine | None = None):
        self.size = size
        if engine is not None and engine.slots < size:
            raise ConfigError(
                f"processes: {size} must run at once, and there are {engine.slots} slots ({engine.describe()}). Start "
                f"more workers, or ask for {engine.slots}."
            )
        host, interface = reached_at(engine)
        listener = socket.socket()
        listener.bind((interface, 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        self.address = f"{host}:{port}"
        self._store: Any = TCPStore(  # it would listen on every interface, were it not given a socket
            interface,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout),
            master_listen_fd=listener.detach(),
        )

    def missing(self) -> list[int]:
        """The ranks that have not joined yet."""
        return missing(self._store, self.size)

    def end(self, error: LazypipeError) -> LazypipeError:
        """Let every rank raise ``error`` at its next sum; the error that ended the group before, if one did."""
        return end(self._store, error)

    def close(self) -> None:
        """Stop listening; ranks that still work fail at their next word to the driver."""
        self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reached_at(engine: Engine | None) -> tuple[str, str]:
    """The name or address at which the engine's workers reach this process, and the interface to listen on."""
    if engine is None or engine.host.shared:
        return "127.0.0.1", "127.0.0.1"
    context = getattr(engine, "context", None)
    if context is not None:  # of Spark, whose executors already reach the driver there
        conf = context.getConf()
        host = conf.get("spark.driver.host")
        return host, conf.get("spark.driver.bindAddress") or host
    address = str(getattr(engine, "address", None))
    host, _, port = address.rpartition("://")[2].rpartition(":")
    own = interface_towards(host, port)
    return own, own


def interface_towards(host: str, port: str) -> str:
    """The IP address of this machine's interface that leads to another; no packet is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return probe.getsockname()[0]
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{host}:{port}: no way leads there from this machine ({error}). Look at its network."
        ) from error


def missing(store: Any, size: int) -> list[int]:
    """The ranks that have not told that they are there."""
    return [rank for rank in range(size) if not store.check([f"here/{rank}"])]


def verdict(store: Any) -> LazypipeError | None:
    """The error that ended the group, if one did."""
    return _error(store.get("over")) if store.check(["over"]) else None


def end(store: Any, error: LazypipeError) -> LazypipeError:
    """End the group with ``error``, or with the one that ended it before: who comes first is right."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    words = json.dumps([kind, str(error), getattr(error, "__notes__", [])]).encode()
    said = store.compare_set("over", "", words.decode())
    return error if said == words else _error(said)


def _error(words: bytes) -> LazypipeError:
    name, message, notes = json.loads(words)
    kind = getattr(errors, name, None)
    error = kind(message) if isinstance(kind, type) and issubclass(kind, LazypipeError) else EngineError(message)
    for note in notes:
        error.add_note(note)
    return error


def as_told(error: BaseException, rank: int, size: int) -> LazypipeError:
    """A LazypipeError as it is, any other as an EngineError that names the rank; its traceback is a note of it."""
    words = " ".join(str(error).split())[:300]
    failed = f"rank {rank} of {size} failed: {type(error).__name__}{words and ': ' + words}"
    told = error if isinstance(error, LazypipeError) else EngineError(failed)
    if not getattr(told, "__notes__", None):  # else it comes from another rank, with the traceback there
        told.add_note("".join(traceback.format_exception(error)))
    return told


def not_joined(who: Sequence[int], size: int, timeout: float) -> EngineError:
    """That these ranks are missing, and which are there."""
    there = [rank for rank in range(size) if rank not in who]
    has = "has" if len(who) == 1 else "have"
    present = f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there" if there else "none is there"
    return EngineError(
        f"{ranks(who, size)} {has} not joined within {timeout:g} s ({present}). See the logs, whether the cluster has "
        f"as many free slots as ranks, or give more time (timeout)."
    )


def ranks(who: Sequence[int], size: int) -> str:
    """``rank 2 of 4``, ``ranks 1, 2 of 4``."""
    return f"rank{'s' if len(who) > 1 else ''} {', '.join(map(str, who))} of {size}"
