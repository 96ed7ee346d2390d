"""``status``: each server, whether it answers, where it is, what it takes, since when."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from flows.stack import folder as folders
from flows.stack import processes
from flows.stack.servers import Server, servers
from flows.stack.up import NO_ANSWER
from jobs._tables import aligned
from lazypipe.sizes import show_bytes


class Seen(NamedTuple):
    """One server as it is now."""

    name: str
    state: str  # up, silent (it runs and does not answer), down
    pid: int
    address: str
    memory: int
    since: float
    ahead: float = 0.0  # seconds by which its clock is ahead of ours


def seen(place: Path) -> list[Seen]:
    """Every server that was started and not ended by ``down``."""
    config = folders.saved(place)
    known = processes.records(place)
    if config is None or not known:
        return []
    asked = [server for server in servers(config) if server.name in known]
    with ThreadPoolExecutor(max(1, len(asked))) as threads:  # one that is silent takes seconds
        return list(threads.map(lambda server: look(known[server.name], server), asked))


def look(record: processes.Record, server: Server) -> Seen:
    """One server, asked."""
    if record.process() is None:
        return Seen(server.name, "down", record.pid, server.page or server.address, 0, 0)
    state, ahead = "up", 0.0
    try:
        server.answers(record.started)
        ahead = server.ahead()
    except NO_ANSWER:
        state = "silent"
    memory = sum(map(memory_of, processes.family(record)))
    return Seen(server.name, state, record.pid, server.page or server.address, memory, record.started, ahead)


def memory_of(process: psutil.Process) -> int:
    """Bytes of memory of a process, what it shares with others counted in parts where the system tells."""
    try:
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    except psutil.Error:
        return 0


def table(found: Sequence[Seen]) -> list[str]:
    """A line a server."""
    rows: list[tuple[str, ...]] = [("server", "state", "pid", "memory", "since", "address")]
    for one in found:
        since = datetime.fromtimestamp(one.since).strftime("%Y-%m-%d %H:%M") if one.since else "-"
        memory = show_bytes(one.memory) if one.memory else "-"
        rows.append((one.name, one.state, str(one.pid), memory, since, one.address))
    return aligned(rows, left=True, ruled=True)
