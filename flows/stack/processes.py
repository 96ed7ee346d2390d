"""Processes that outlive the command that started them: recorded in a file each, found again, ended whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from lazypipe.atomic import replacing
from lazypipe.secrets import hidden
from lazypipe.sizes import MIB

MARK = "LAZYPIPE_STACK"  # in the environment of all that a stack starts: the folder it belongs to
SAME_START_SECONDS = 2.0  # a start is told in ticks since boot, whose time a clock that is set moves
ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception)\b.*: |\b(FATAL|ERROR|CRITICAL|Error)\b.*: ")
LOGS = "logs"  # their folder in that of the stack
LOG_NBYTES = 20 * MIB  # a longer log is set aside when its process is started anew
GRACE_SECONDS = 15.0  # from the request to end, to the end by force


@dataclass(frozen=True)
class Record:
    """A process that was started: enough to know it from one that has its number later."""

    name: str
    pid: int
    started: float  # seconds since 1970, as the system tells it
    stop: int = signal.SIGTERM

    def process(self) -> psutil.Process | None:
        """The process, None where it is no more."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < SAME_START_SECONDS
            if same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def spawn(
    folder: Path,
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    stop: int = signal.SIGTERM,
    rights: Mapping[str, Any] | None = None,
) -> tuple[subprocess.Popen[bytes], Record]:
    """Start a process in a session of its own, its output in its log; recorded at once."""
    log = log_of(folder, name)
    log.parent.mkdir(exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_NBYTES:
        log.replace(log.with_suffix(".log.before"))
    with open(log, "ab") as output:
        output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        output.flush()
        child = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**env, MARK: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **(rights or {}),
        )
    record = Record(name, child.pid, psutil.Process(child.pid).create_time(), stop)
    save(folder, record)
    return child, record


def log_of(folder: Path, name: str) -> Path:
    """Where a process writes what it says."""
    return folder / LOGS / f"{name}.log"


def save(folder: Path, record: Record) -> None:
    """Write a record whole, in place of the one before."""
    path = folder / "processes" / f"{record.name}.json"
    path.parent.mkdir(exist_ok=True)
    with replacing(path, overwrite=True) as partial:
        partial.write_text(json.dumps(asdict(record)))


def records(folder: Path) -> dict[str, Record]:
    """What was started in this folder and not ended by ``down``, the first first."""
    found = []
    for path in (folder / "processes").glob("*.json"):
        with suppress(ValueError, TypeError, OSError):  # a torn file: its process is found by its mark
            told = json.loads(path.read_text())
            found.append(Record(**{field.name: told[field.name] for field in fields(Record) if field.name in told}))
    return {record.name: record for record in sorted(found, key=lambda record: record.started)}


def forget(folder: Path, name: str) -> None:
    """Delete a record."""
    (folder / "processes" / f"{name}.json").unlink(missing_ok=True)


def family(record: Record) -> list[psutil.Process]:
    """A recorded process with its descendants and its session; nothing where it is no more."""
    process = record.process()
    if process is None:
        return []
    found = {process.pid: process}
    with suppress(psutil.Error):
        found |= {child.pid: child for child in process.children(recursive=True)}
    for other in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(other.pid) == record.pid:
                found[other.pid] = other
    return list(found.values())


def marked(folder: Path) -> list[psutil.Process]:
    """All processes whose environment says that they belong to the stack in ``folder``."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder) and process.pid != os.getpid():
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], requests: int | Mapping[int, int], grace: float = GRACE_SECONDS) -> None:
    """Ask processes to end, all by one signal or each by its own, and end by force those that do not."""
    for process in processes:
        request = requests if isinstance(requests, int) else requests.get(process.pid)
        if request is not None:
            with suppress(psutil.Error):
                process.send_signal(request)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE_SECONDS)


def last_line(log: Path) -> str:
    """The line of a log that tells best why its process ended: the last one with an error, else the last one."""
    with suppress(OSError):
        text = log.read_bytes()[-20_000:].decode(errors="replace").rpartition("\n--- ")[2]
        lines = [line.strip() for line in text.splitlines()[1:] if any(letter.isalnum() for letter in line)]
        told = [line for line in lines if ERROR.search(line)] or lines
        if told:
            return hidden(told[-1][:300].rstrip("."))
    return "it said nothing"
