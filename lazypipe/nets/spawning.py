"""Starts the ranks of a group as processes of this machine, hears of them, and leaves none behind."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Self, TypeVar

import torch
from threadpoolctl import threadpool_limits

from lazypipe.errors import ConfigError, EngineError
from lazypipe.nets.device import cores, device_of
from lazypipe.nets.processes import Group, join
from lazypipe.nets.rendezvous import TIMEOUT_SECONDS, Rendezvous, as_told, not_joined
from lazypipe.progress import Event

Result = TypeVar("Result")
Tell = Callable[[Event], None]
LOOK_SECONDS = 0.5  # between looks for ranks that have not joined
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lazypipe.nets.spawning import serve; serve(*sys.argv[2:])"
)


def spawned(
    function: Callable[[Group, Tell], Result],
    size: int,
    timeout: float = TIMEOUT_SECONDS,
    tell: Tell | None = None,
    device: str = "cpu",
) -> Result:
    """Run ``function(group, tell)`` in ``size`` fresh processes of this machine: what it gives on rank 0.

    ``function`` and its result are pickled; it is looked up by its module's name, and the caller's ``__main__`` is not
    run again. Each process has an equal share of the cores; ``device`` is "cpu", "cuda" (the GPUs in turn) or "auto".
    Events that rank 0 tells reach ``tell`` in the caller's thread, those of others are dropped.

    Raises
    ------
    LazypipeError : as any rank raised it; its traceback there is a note of it.
    EngineError : a rank failed otherwise, died, or did not join within ``timeout`` seconds; it is named.
    ConfigError : ``function`` cannot be pickled.

    The processes end with the call, whatever ends it, and with the caller's process, even where that is killed.
    """
    works = (_pickled(function), timeout, device, max(1, cores() // size))
    with ExitStack() as stack:
        place = stack.enter_context(Rendezvous(size, timeout))
        begun = time.monotonic()
        children = [stack.enter_context(_Child(rank, size, place.address)) for rank in range(size)]
        for child in children:
            child.give(works)
        waiting: dict[Any, _Child] = {child.connection: child for child in children}
        result: Any = None
        gone = place.missing()
        while waiting:
            for connection in wait(list(waiting), LOOK_SECONDS):
                child = waiting[connection]
                kind, what = child.hear()
                if kind == "error":
                    raise place.end(what)
                if kind == "event" and tell is not None:
                    tell(what)
                if kind == "result":
                    del waiting[connection]
                    result = what if child.rank == 0 else result
            if gone and (gone := place.missing()) and time.monotonic() - begun > timeout:
                raise place.end(not_joined(gone, size, timeout))
        return result


def _pickled(work: Any) -> bytes:
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"processes: the work cannot be sent to another process ({error}). Give sources by their uri or as arrays, "
            f"and functions of a module."
        ) from error


class _Child:
    """A process, and a socket to it: either side finds at once that the other has died."""

    def __init__(self, rank: int, size: int, address: str):
        self.rank, self.size = rank, size
        self.connection, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(sys.path), str(number), str(rank), str(size), address],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                process_group=0,  # an interrupt at the terminal is for the caller, who ends the others
                env={"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ},  # what fails is raised, not logged
            )

    def give(self, work: tuple[bytes, float, str, int]) -> None:
        with suppress(OSError):  # it has died, as is heard of next
            self.connection.send(work)

    def hear(self) -> tuple[str, Any]:
        """The next it sends: an event, and at its end a result or an error; an error, too, where it died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            pass
        status = self._process.wait()
        if status >= 0:
            how = f"ended with status {status}, before its work did. See what it wrote"
        elif -status == signal.SIGKILL:
            how = "was killed (SIGKILL), by the system if memory ran out. Start fewer processes, or anew"
        else:
            how = f"was ended by {signal.Signals(-status).name}. See what it wrote"
        words = f"rank {self.rank} of {self.size} {how}; training goes on from its checkpoint."
        return "error", EngineError(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()


def serve(number: str, own_rank: str, of: str, address: str) -> None:
    """What a child runs: its work comes, and what it tells goes, through the socket of that number."""
    connection, rank, size = Connection(int(number)), int(own_rank), int(of)
    try:
        work, timeout, device, threads = connection.recv()
    except EOFError:  # the parent has died
        return
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()

    def tell(event: Event) -> None:
        if rank == 0:
            connection.send(("event", event))

    try:
        function = pickle.loads(work)
        threadpool_limits(threads)
        torch.set_num_threads(threads)
        with join(rank, size, address, timeout, _device_of(device, rank)) as group:
            result = function(group, tell)
        last = pickle.dumps(("result", result if rank == 0 else None))
    except BaseException as error:
        last = pickle.dumps(("error", as_told(error, rank, size)))
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send_bytes(last)


def _device_of(name: str, rank: int) -> torch.device:
    device = device_of(name)
    return torch.device("cuda", rank % torch.cuda.device_count()) if device.type == "cuda" else device


def _end_with_parent(connection: Connection) -> None:
    connection.poll(None)  # the parent sends nothing more: there is something to read once it has died
    os._exit(1)
