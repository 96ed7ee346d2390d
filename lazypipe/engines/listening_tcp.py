"""Events over connections of their own, from workers of Spark, which has no way for them, to the driver.

A worker sends the key and then an event a line; who does not know the key is cut off.
"""

from __future__ import annotations

import hmac
import logging
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from lazypipe.engines.listening import Tell, hear, listening, unheard
from lazypipe.progress import Progress

SEND_SECONDS = 1.0  # as long as a worker may stand still for an event, and then not again for
RETRY_SECONDS = 60.0
LATE_SECONDS = 0.1  # what was sent before the end has come by then
END_SECONDS = 5.0  # for senders that do not stop
MOST_LINE = 2**16  # bytes of an event
MOST_SENDERS = 256

log = logging.getLogger("lazypipe")


@contextmanager
def listening_at(progress: Progress, host: str, bind: str) -> Iterator[Tell]:
    """``listening`` for workers that reach this process at ``host``, on a free port of the interface ``bind``.

    Where nothing can listen there, that is told, and the events of tasks in this process alone are heard.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        listener = socket.create_server((bind.strip("[]"), 0), family=family)
    except OSError as error:
        log.warning("progress: cannot listen on %s (%s): events of the workers are not shown.", bind, error)
        with listening(progress) as tell:
            yield tell
        return
    port = listener.getsockname()[1]
    with listener, listening(progress, lambda key: TellOverTcp(key, host.strip("[]"), port)) as tell:
        hearing = Hearing(listener, tell.key)
        hearing.start()
        try:
            yield tell
        finally:
            hearing.end()


class Hearing(threading.Thread):
    """Reads what workers send: their key, and then an event a line."""

    def __init__(self, listener: socket.socket, key: str):
        super().__init__(name="lazypipe-hearing", daemon=True)
        self.listener, self.key = listener, key
        self._until: float | None = None
        self._selector = selectors.DefaultSelector()

    def end(self) -> None:
        """Once nothing more comes."""
        self._until = time.monotonic() + END_SECONDS
        self.join()

    def run(self) -> None:
        self.listener.setblocking(False)
        self._selector.register(self.listener, selectors.EVENT_READ)
        while self._until is None or time.monotonic() < self._until:
            ready = self._selector.select(LATE_SECONDS)
            for found, _ in ready:
                try:
                    if found.data is None:
                        self._accept()
                    elif not self._read(found.data):
                        self._drop(found.data)
                except OSError:
                    if found.data is not None:
                        self._drop(found.data)
            if self._until is not None and not ready:
                break
        for found in list(self._selector.get_map().values()):
            if found.data is not None:
                self._drop(found.data)
        self._selector.close()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        if len(self._selector.get_map()) > MOST_SENDERS:
            connection.close()
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, Sender(connection))

    def _read(self, sender: Sender) -> bool:
        """Whether to go on with it."""
        received = sender.connection.recv(MOST_LINE)
        *lines, sender.rest = (sender.rest + received).split(b"\n")
        for line in lines:
            if not sender.known:
                sender.known = hmac.compare_digest(line, self.key.encode())
                if not sender.known:
                    return False
            elif not hear(self.key, line):
                return False
        return bool(received) and len(sender.rest) <= MOST_LINE

    def _drop(self, sender: Sender) -> None:
        self._selector.unregister(sender.connection)
        sender.connection.close()


@dataclass(eq=False)
class Sender:
    """Someone connected, who is known once the key has come."""

    connection: socket.socket
    known: bool = False
    rest: bytes = b""


@dataclass(frozen=True)
class TellOverTcp(Tell):
    """Tells over a connection to the driver, one a process."""

    host: str
    port: int

    def send(self, line: str) -> None:
        _wire(self).send(line.encode() + b"\n")


@lru_cache(maxsize=4)
def _wire(tell: TellOverTcp) -> Wire:
    return Wire(tell)


class Wire:
    """A connection that gives up soon, and does not try again for a while."""

    def __init__(self, tell: TellOverTcp):
        self.tell = tell
        self._socket: socket.socket | None = None
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def send(self, data: bytes) -> None:
        with self._lock:
            if time.monotonic() < self._silent_until:
                return
            try:
                if self._socket is None:
                    self._socket = socket.create_connection((self.tell.host, self.tell.port), SEND_SECONDS)
                    self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                    self._socket.sendall(self.tell.key.encode() + b"\n")
                self._socket.sendall(data)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self._socket is not None:
            self._socket.close()  # part of a line may have gone: the next begins a connection of its own
            self._socket = None
        self._silent_until = time.monotonic() + RETRY_SECONDS
        unheard(self.tell.key, f"at {self.tell.host}:{self.tell.port} ({error})")
