"""That a rank is there, lives, and how far it is, told to all others; and who is missing where a sum fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch's stubs do not export it

from lazypipe.errors import EngineError, LazypipeError
from lazypipe.nets.rendezvous import as_told, end, missing, not_joined, ranks, verdict

CONNECT_SECONDS = 10.0
QUIET_SECONDS = 10.0  # without a sign of life a rank is lost; a third of the timeout where that is shorter,
LEAST_QUIET_SECONDS = 1.0  # but not so short that a busy machine would do
BEATS = 10  # signs of life in that time
POLL_SECONDS = 0.05
ENDED = "ended"


class Presence:
    """A rank's side of the store of a Rendezvous; its errors name who is missing, in the same words on all ranks."""

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
                what = f"{ranks(who, self.size)} ended before the others, which still have sums to make."
                return end(self.store, EngineError(what))
            who = [rank for rank, beat in enumerate(beats) if int(beat.split()[1]) < self.sums]
            if timed_out and who:
                what = (
                    f"{ranks(who, self.size)} did not come to sum {self.sums} within {self.timeout:g} s, but is alive."
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
            f"{ranks(who, self.size)} gave no sign of life for {self.quiet:g} s: killed, most likely, or its machine "
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


def count(beat: str) -> int:
    return int(beat.split()[0])
