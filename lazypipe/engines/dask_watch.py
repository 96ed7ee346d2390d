"""Who of a Dask cluster's workers is lost, silent, out of memory, or back: told while an engine is open.

A worker that is frozen or cut off holds its tasks until the scheduler takes it for dead, after
``distributed.scheduler.worker-ttl`` (see conf/dask.yaml). Where the scheduler was told never to, and where no
worker is left at all, the tasks would wait for ever: then this ends it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, Future

from lazypipe.engines.dask_strangers import Strangers
from lazypipe.errors import EngineError
from lazypipe.progress import WorkerSaid
from lazypipe.sizes import show_bytes

LOOK_SECONDS = 2.0
SILENT_SECONDS = 15.0  # heartbeats come every half second
NONE_SECONDS = 60.0  # without any worker while tasks wait: a nanny has started its worker again by then
DEAD_SECONDS = 300.0  # of silence, where the scheduler has no limit of its own; Dask's own default
TTL = "distributed.scheduler.worker-ttl"
ANSWER_SECONDS = 10.0
MEMORY = "worker-restart-memory"  # a topic of the scheduler's events; others are the addresses of workers


@dataclass
class Known:
    """A worker as it was seen last."""

    name: str
    last_seen: float  # on the scheduler's clock
    at: float  # on ours, when that changed last
    limit: int = 0
    silent: bool = False
    paused: bool = False
    removed: bool = False


def shown(address: str, name: str) -> str:
    """A worker's name, and its address where that is another."""
    return address if name == address else f"{name} ({address})"


def answers(client: Client, workers: list[str] | None, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What ``function`` gives on those workers (None: all), or the exception that it raises there, by address.

    Raises TimeoutError where one of them does not answer within ``ANSWER_SECONDS``.
    """
    found = client.sync(
        client._run, function, *arguments, workers=workers, on_error="return", callback_timeout=ANSWER_SECONDS
    )
    return dict(found)


class Watch(threading.Thread):
    """Looks at the workers from time to time, and hears what the scheduler has to say of them."""

    def __init__(self, client: Client, address: str, say: Callable[[WorkerSaid], None]):
        super().__init__(name="lazypipe-watch", daemon=True)
        self.client, self.address, self._say = client, address, say
        self.failure: EngineError | None = None  # why tasks were cancelled
        self.exceeded: dict[str, int] = {}  # bytes of a worker when its nanny ended it for them, by address
        self.last_lost: tuple[str, frozenset[str]] | None = None  # a worker, and the keys of the tasks on it
        self.strangers = Strangers()
        self._turn = threading.Lock()
        self._known: dict[str, Known] = {}
        self._lost: set[str] = set()  # names
        self._names: dict[str, str] = {}  # of all there were
        self._seen = self._answered = time.monotonic()  # when there was a worker, and a word of the scheduler
        self._mute = False  # whether that is told
        self._over = threading.Event()
        self._ttl: float | None = None

    def start(self) -> None:
        with suppress(OSError, TimeoutError):
            found = self.client.run_on_scheduler(dask.config.get, TTL)
            self._ttl = parse_timedelta(found) if found else None
        self._look(time.monotonic())
        self.client.subscribe_topic(MEMORY, self._hear_memory)
        super().start()

    def end(self) -> None:
        self._over.set()

    def cause(self, address: str) -> str:
        """Why a worker died, as far as anybody told."""
        has = self.exceeded.get(address)
        return f"out of memory at {show_bytes(has)}" if has else "most likely out of memory"

    def name_of(self, address: str) -> str:
        return self._names.get(address, address)

    def awake(self) -> list[str] | None:
        """The addresses of workers of our versions that answer; None where all do."""
        known = dict(self._known)
        awake = [address for address, one in known.items() if not one.silent and address not in self.strangers.there]
        return awake if len(awake) < len(known) else None

    def allowed(self) -> list[str] | None:
        """The addresses that tasks sent now may go to, all but strangers; None where there are none of these.

        Waits for a worker that may be started again. Raises EngineError where none is.
        """
        deadline = time.monotonic() + NONE_SECONDS
        while (found := self.strangers.allowed(dict(self._known))) == []:
            if time.monotonic() > deadline:
                raise self._none_left(NONE_SECONDS)
            time.sleep(0.1)
        return found

    def is_outdated(self, now: bool = False) -> bool:
        """Whether the tasks sent last are to be sent again, for strangers' sake; ``now``: after a look at once."""
        if now:
            with suppress(Exception):  # of a scheduler that is gone
                self._look(time.monotonic())
        return self.strangers.are_new(dict(self._known))

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            # What goes wrong here is of a scheduler that is gone, which who waits for it learns by himself.
            with suppress(Exception):
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        with self._turn:
            workers = self._workers()
            if workers is None:
                return
            for address in self._known.keys() - workers.keys():
                self.client.unsubscribe_topic(address)
                del self._known[address]
            for address, worker in workers.items():
                self._look_at(now, address, worker)
            self.strangers.look(workers, self.ask, self._warn_of)
            if workers.keys() - self.strangers.there:
                self._seen = now
                self.failure = None
                if self.client.futures and self.is_outdated():
                    self._cancel()  # and the engine sends them again
            elif now - self._seen > NONE_SECONDS and self.client.futures:
                self.failure = self._none_left(now - self._seen)
                self._cancel()

    def _workers(self) -> dict[str, dict[str, Any]] | None:
        """What the scheduler knows of its workers; None where it does not answer, which is told."""
        if self.client.status == "closed":
            return None
        try:
            if self.client.status != "running":
                raise TimeoutError
            found = self.client.sync(self.client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)
        except (OSError, TimeoutError):
            seconds = time.monotonic() - self._answered
            if seconds > SILENT_SECONDS and not self._mute:
                self._mute = True
                text = f"the scheduler has not answered for {seconds:.0f} s: it stands still, or the way to it is cut"
                self._say(WorkerSaid(self.address, logging.WARNING, text))
            return None
        seconds, self._answered = time.monotonic() - self._answered, time.monotonic()
        if self._mute:
            self._mute = False
            self._say(WorkerSaid(self.address, logging.INFO, f"the scheduler answers again after {seconds:.0f} s"))
        return dict(found["workers"])

    def _look_at(self, now: float, address: str, worker: dict[str, Any]) -> None:
        known = self._known.get(address)
        if known is None:
            name = str(worker["name"])
            known = Known(name, worker["last_seen"], now, worker["memory_limit"] or 0)
            self._known[address] = known
            self._names[address] = name
            # not "all": what it tells of others' work may not even pickle, which ends the connection
            self.client.subscribe_topic(address, partial(self._hear_lost, known, address))
            if self.is_alive():
                self._greet(address, name)
        if worker["last_seen"] != known.last_seen:
            if known.silent:
                self._tell(known, logging.INFO, f"came back after {now - known.at:.0f} s ({address})")
            known.last_seen, known.at, known.silent = worker["last_seen"], now, False
        elif now - known.at > SILENT_SECONDS and not known.silent:
            known.silent = True
            ttl = self._ttl  # which the scheduler looks at once in as many seconds
            after = f"{ttl:.0f} to {2 * ttl:.0f}" if ttl else f"{DEAD_SECONDS:.0f}"
            until = f"taken for dead {after} s after its last word"
            text = f"has not been heard of for {now - known.at:.0f} s, {_tasks(worker)} on it: {until} ({address})"
            self._tell(known, logging.WARNING, text)
        if self._ttl is None and now - known.at > DEAD_SECONDS and not known.removed:
            known.removed = True
            self._remove(address)
        self._look_at_memory(known, worker)

    def _look_at_memory(self, known: Known, worker: dict[str, Any]) -> None:
        paused = worker["status"] == "paused"
        if paused and not known.paused:
            has = f"{show_bytes(worker['metrics']['memory'])} of its limit of {show_bytes(known.limit)}"
            self._tell(known, logging.WARNING, f"takes no more tasks for now: its memory is {has}")
        known.paused = paused

    def _greet(self, address: str, name: str) -> None:
        back = name in self._lost
        self._lost.discard(name)
        self.strangers.came(address)
        self._tell(self._known[address], logging.INFO, f"{'came back' if back else 'joined'} ({address})")

    def ask(self, function: Callable[..., Any], *arguments: Any, workers: list[str] | None = None) -> dict[str, Any]:
        """The ``answers`` of those workers, or of all that are awake."""
        return answers(self.client, self.awake() if workers is None else workers, function, *arguments)

    def _hear_lost(self, known: Known, address: str, event: tuple[float, Any]) -> None:
        _, message = event
        if not isinstance(message, dict) or message.get("action") != "remove-worker" or message.get("expected"):
            return
        self._lost.add(known.name)
        self.last_lost = address, frozenset(map(str, message["processing-tasks"]))
        n = len(message["processing-tasks"])
        tasks = f", {n:,} {'task' if n == 1 else 'tasks'} on it begin again elsewhere" if n else ""
        self._tell(known, logging.WARNING, f"lost{tasks} ({address})")

    def _hear_memory(self, event: tuple[float, Any]) -> None:
        _, message = event
        address, has = message["worker"], int(message["rss"])
        self.exceeded[address] = has
        known = self._known.get(address) or Known(address, 0.0, 0.0)
        limit = f" of its limit of {show_bytes(known.limit)}" if known.limit else ""
        self._tell(known, logging.WARNING, f"ended by its nanny: its memory was {show_bytes(has)}{limit} ({address})")

    def _warn_of(self, address: str, text: str) -> None:
        self._tell(self._known[address], logging.WARNING, text)

    def _tell(self, known: Known, level: int, text: str) -> None:
        self._say(WorkerSaid(known.name, level, text))

    def _remove(self, address: str) -> None:
        """Have the scheduler give its tasks to others: it was told to wait for ever."""
        self.client.sync(
            self.client.scheduler.restart_workers,
            workers=[address],
            timeout=ANSWER_SECONDS,
            wait_for_workers=False,
            on_error="return",
            stimulus_id=f"lazypipe-silent-{time.time()}",
            callback_timeout=2 * ANSWER_SECONDS,
        )

    def _none_left(self, seconds: float) -> EngineError:
        return EngineError(
            f"dask: no worker{' of our versions' if self.strangers.there else ''} is left at {self.address}, and none "
            f"came for {seconds:.0f} s. Look at their logs, and start some with "
            f"`dask worker {self.address} --nthreads 1`."
        )

    def _cancel(self) -> None:
        self.client.cancel([Future(key, self.client) for key in list(self.client.futures)], force=True)


def _tasks(worker: dict[str, Any]) -> str:
    n = sum(worker["metrics"].get("task_counts", {}).get(state, 0) for state in ("executing", "ready"))
    return f"{n:,} {'task' if n == 1 else 'tasks'}"
