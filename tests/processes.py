"""Programs that tests start and end, ports that nobody has, and conditions that are waited for."""

import itertools
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

GRACE_SECONDS = 15  # from the request to end, to the end by force
_numbers = itertools.count()


def free_ports(n):
    """Ports that nobody listens on now, each another."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_port():
    """A port that nobody listens on now."""
    return free_ports(1)[0]


def listens(port):
    """Whether somebody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(condition, seconds, what, passing=(), pause=0.1):
    """What ``condition()`` returns once that is true; errors of the kinds ``passing`` mean that it is not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found, why = condition(), ""
        except passing as error:
            found, why = None, f": {error}"
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}{why}"
        time.sleep(pause)


def ready(child, condition, seconds=180):
    """What ``condition()`` returns once that is true; the log of ``child`` is told where it ends or is slow."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert child.poll() is None and time.monotonic() < deadline, child.log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)
    return found


class Processes:
    """Programs in process groups of their own, each with its ``log`` in ``folder``; ended whole, the last one first."""

    env = None  # where none is given: that of the test

    def __init__(self, folder, grace=GRACE_SECONDS):
        self.folder, self.grace = Path(folder), grace
        self._started = []

    def start(self, *command, env=None, cwd=None):
        """A program, which may have ended already when this returns."""
        words = [str(word) for word in command]
        log = self.folder / f"{Path(words[0]).name}-{next(_numbers)}.log"
        with open(log, "w") as file:
            child = subprocess.Popen(
                words, cwd=cwd or self.folder, env=env or self.env, stdout=file, stderr=file, start_new_session=True
            )
        child.log = log
        self._started.append(child)
        return child

    def end(self, child):
        """Ask the group to end, one that was stopped, too, and force what is left of it after a while."""
        for how in (signal.SIGCONT, signal.SIGTERM):
            _tell(child, how)
        deadline = time.monotonic() + self.grace
        while child.poll() is None or _members(child):
            if time.monotonic() > deadline:
                _tell(child, signal.SIGKILL)
                break
            time.sleep(0.1)
        child.wait(GRACE_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with ExitStack() as last_first:  # which goes on where one does not end
            for child in self._started:
                last_first.callback(self.end, child)


@contextmanager
def process(*command, cwd, env=None, grace=GRACE_SECONDS):
    """One program, in ``cwd``, where its ``log`` is, too."""
    with Processes(cwd, grace) as started:
        yield started.start(*command, env=env)


def _tell(child, how):
    with suppress(ProcessLookupError):
        os.killpg(child.pid, how)


def _members(child):
    """Processes of the group that still run."""
    found = []
    for one in psutil.process_iter(["status"]):
        with suppress(OSError, psutil.Error):
            if os.getpgid(one.pid) == child.pid and one.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found
