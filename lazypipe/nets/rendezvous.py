"""Where the ranks of a group meet: a small store that their driver keeps, in which each tells that it is there.

Keys of the store: ``here/RANK`` the device of a rank that has come, ``beat/RANK`` its sign of life and how many
sums it has begun, ``over`` the error that ended the group, the first one only. Everything in it is text or JSON,
never a pickle: whoever reaches the port can write to it, as to a Dask scheduler.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's stubs do not export it

from lazypipe import errors
from lazypipe.engines.base import Engine
from lazypipe.errors import ConfigError, EngineError, LazypipeError

TIMEOUT_SECONDS = 300.0  # to join, and for the slowest rank of a sum: a rank may write or read for long
CONNECT_SECONDS = 10.0
QUIET_SECONDS = 10.0  # without a sign of life a rank is lost; a third of the timeout where that is shorter,
LEAST_QUIET_SECONDS = 1.0  # but not so short that a busy machine would do
BEATS = 10  # signs of life in that time
POLL_SECONDS = 0.05
ENDED = "ended"


class Rendezvous:
    """The driver's side: holds the store while the ranks work. Use it in a ``with``.

    ``address`` (host:port, any free port) is for ``join``. It lies on the interface of this machine that leads to
    the engine's scheduler (Dask), or on which the executors reach the driver (Spark: ``spark.driver.host``); on
    127.0.0.1 where no engine is given or it works in this process, and nobody outside can connect then. ConfigError
    where the engine has fewer slots than ranks, which must all run at once.
    """

    def __init__(self, size: int, timeout: float = TIMEOUT_SECONDS, engine: Engine | None = None):
        self.size, self.timeout = size, timeout
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
            interface, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
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


class Presence:
    """A rank's side: that it is there, that it lives, how far it is; and which rank is missing where one is."""

    def __init__(self, rank: int, size: int, address: str, timeout: float):
        self.rank, self.size, self.address, self.timeout = rank, size, address, timeout
        self.quiet = min(QUIET_SECONDS, max(timeout / 3, LEAST_QUIET_SECONDS))
        self.sums = 0  # begun by this rank
        self.store: Any = self._connect()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lazypipe-rank-{rank}", daemon=True)

    def _connect(self) -> TCPStore:
        host, _, port = self.address.rpartition(":")
        try:  # at once: torch itself tries until its time is up, with pages of warnings
            socket.create_connection((host, int(port)), min(CONNECT_SECONDS, self.timeout)).close()
            return TCPStore(host, int(port), wait_for_workers=False, timeout=timedelta(seconds=self.timeout))
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"rank {self.rank} of {self.size} cannot reach its driver at {self.address} ({error}). Look whether it "
                f"still runs, and whether a firewall stands between."
            ) from error

    def arrive(self, device: str) -> list[str]:
        """Tell that this rank is there, with its device; wait for all, and give the devices of all."""
        with self._driver():
            if over := verdict(self.store):
                raise over
            here = f"{device} {uuid4().hex}"
            self.store.set(f"beat/{self.rank}", "0 0")
            if self.store.compare_set(f"here/{self.rank}", "", here) != here.encode():
                twice = f"rank {self.rank} of {self.size} came twice: a worker was lost and its task started again."
                raise end(self.store, EngineError(f"{twice} Start anew; training goes on from its checkpoint."))
            self._thread.start()
            deadline = time.monotonic() + self.timeout
            while gone := missing(self.store, self.size):
                if over := verdict(self.store):
                    raise over
                if time.monotonic() > deadline:
                    raise end(self.store, not_joined(gone, self.size, self.timeout))
                time.sleep(POLL_SECONDS)
            return [text.decode().split()[0] for text in self.store.multi_get(self._keys("here"))]

    def judge(self, failure: Exception, timed_out: bool) -> LazypipeError:
        """Why a sum of all ranks failed here: on every rank the same words, which name who is missing."""
        with self._driver():
            pulses, first = _Pulses(self.quiet), self._beats()
            while True:
                if over := verdict(self.store):
                    return over
                beats = self._beats()
                if silent := pulses.silent(beats):
                    return end(self.store, self._lost(silent))
                # Two beats on: one may have been under way when its rank died.
                if all(now == ENDED or count(now) > count(then) + 1 for now, then in zip(beats, first, strict=True)):
                    break
                time.sleep(POLL_SECONDS)
            who = [rank for rank, beat in enumerate(beats) if beat == ENDED]
            if who:
                what = f"{named(who, self.size)} ended before the others, which still have sums to make."
                return end(self.store, EngineError(what))
            who = [rank for rank, beat in enumerate(beats) if int(beat.split()[1]) < self.sums]
            if timed_out and who:
                what = (
                    f"{named(who, self.size)} did not come to sum {self.sums} within {self.timeout:g} s, but is alive."
                )
                return end(self.store, EngineError(f"{what} Give it more time (timeout), or see what keeps it."))
            what = f"rank {self.rank} of {self.size} lost touch with the others, which are all alive"
            told = str(failure).partition("\n")[0][:200]
            return end(self.store, EngineError(f"{what}: {told}. Look at the network between the workers."))

    def leave(self) -> None:
        """Wait until all ranks have come this far, so that none closes a connection another still reads from."""
        self._stop.set()
        self._thread.join()
        with self._driver():
            self.store.set(f"beat/{self.rank}", ENDED)
        try:
            pulses, beats = _Pulses(self.quiet), self._beats()
            while any(beat != ENDED for beat in beats):
                if over := verdict(self.store):
                    raise over
                if silent := pulses.silent(beats):
                    raise end(self.store, self._lost(silent))
                time.sleep(POLL_SECONDS)
                beats = self._beats()
        except LazypipeError:
            raise
        except RuntimeError:  # the driver did not wait: it has what it wanted
            return

    def fail(self, error: BaseException) -> LazypipeError:
        """Let the others raise what ended this rank, at their next sum: as the error that it gives."""
        told = as_told(error, self.rank, self.size)
        with suppress(RuntimeError):  # the driver may be what is gone
            end(self.store, told)
        return told

    def close(self) -> None:
        """Give no more signs of life."""
        self._stop.set()

    def _beat(self) -> None:
        with suppress(RuntimeError):  # without a driver: found by whoever asks it something next
            store, n = self.store.clone(), 0  # a connection of its own: a call may hold the other for long
            while not self._stop.wait(self.quiet / BEATS):
                n += 1
                store.set(f"beat/{self.rank}", f"{n} {self.sums}")

    def _beats(self) -> list[str]:
        return [beat.decode() for beat in self.store.multi_get(self._keys("beat"))]

    def _keys(self, kind: str) -> list[str]:
        return [f"{kind}/{rank}" for rank in range(self.size)]

    def _lost(self, who: Sequence[int]) -> EngineError:
        return EngineError(
            f"{named(who, self.size)} gave no sign of life for {self.quiet:g} s: killed, most likely, or its machine "
            f"is down. See its log, and start anew; training goes on from its checkpoint."
        )

    @contextmanager
    def _driver(self) -> Iterator[None]:
        try:
            yield
        except LazypipeError:
            raise
        except RuntimeError as error:
            raise EngineError(
                f"rank {self.rank} of {self.size} has lost its driver at {self.address}. Start it anew; training goes "
                f"on from its checkpoint."
            ) from error


class _Pulses:
    """When each rank's sign of life changed last, by the clock of who looks."""

    def __init__(self, quiet: float):
        self.quiet = quiet
        self._seen: dict[int, tuple[str, float]] = {}

    def silent(self, beats: Sequence[str]) -> list[int]:
        now = time.monotonic()
        for rank, beat in enumerate(beats):
            if self._seen.get(rank, ("", 0.0))[0] != beat:
                self._seen[rank] = beat, now
        return [rank for rank, (beat, since) in self._seen.items() if beat != ENDED and now - since > self.quiet]


def missing(store: Any, size: int) -> list[int]:
    """The ranks that have not told that they are there."""
    return [rank for rank in range(size) if not store.check([f"here/{rank}"])]


def verdict(store: Any) -> LazypipeError | None:
    """The error that ended the group, if one did."""
    return _error(store.get("over")) if store.check(["over"]) else None


def end(store: Any, error: LazypipeError) -> LazypipeError:
    """End the group with ``error``, or with the one that ended it before: who comes first is right."""
    words = json.dumps([type(error).__name__, str(error)]).encode()
    said = store.compare_set("over", "", words.decode())
    return error if said == words else _error(said)


def _error(words: bytes) -> LazypipeError:
    name, message = json.loads(words)
    kind = getattr(errors, name, EngineError)
    return kind(message)


def as_told(error: BaseException, rank: int, size: int) -> LazypipeError:
    """A LazypipeError as it is, any other as an EngineError that names the rank."""
    if isinstance(error, LazypipeError):
        return error
    told = " ".join(str(error).split())[:300]
    return EngineError(f"rank {rank} of {size} failed: {type(error).__name__}{told and ': ' + told}")


def not_joined(who: Sequence[int], size: int, timeout: float) -> EngineError:
    """That these ranks are missing, and which are there."""
    there = [rank for rank in range(size) if rank not in who]
    has = "has" if len(who) == 1 else "have"
    present = f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there" if there else "none is there"
    return EngineError(
        f"{named(who, size)} {has} not joined within {timeout:g} s ({present}). See the logs, whether the cluster has "
        f"as many free slots as ranks, or give more time (timeout)."
    )


def named(who: Sequence[int], size: int) -> str:
    """``rank 2 of 4``, ``ranks 1, 2 of 4``."""
    return f"rank{'s' if len(who) > 1 else ''} {', '.join(map(str, who))} of {size}"


def count(beat: str) -> int:
    return int(beat.split()[0])
