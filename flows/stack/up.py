"""``up``: start what is missing, each as soon as what it needs answers, and wait until all answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from flows.stack import folder as folders
from flows.stack import ports, postgres, processes, registering
from flows.stack.config import StackConfig
from flows.stack.down import end
from flows.stack.servers import Server, environment, servers
from jobs._config import leaves
from jobs._messages import option
from lazypipe.errors import ConfigError, EngineError

PAUSE_SECONDS = 0.3
SQLITE = (
    "Prefect and MLflow keep their data in SQLite, which several workers lock for each other. "
    "PostgreSQL would be better: {why}."
)
MAY_CHANGE = ("folder", "spark", "patience")  # between one up and the next, while servers run
NO_ANSWER = (OSError, ValueError, KeyError, TypeError)


def up(config: StackConfig, kinds: Collection[str] = ()) -> bool:
    """Start what does not run yet, all of it or those ``kinds`` and what they need; whether there was something.

    Where that fails, what was started now is ended; where only the deployments are at fault, the servers stay.
    Raises ConfigError for a project or a server that there is not, and a port that is taken; DataError for a folder
    that another command holds; EngineError for a server that ends or does not answer.
    """
    place = config.place
    if not config.project_place.is_dir():
        raise ConfigError(f"--project: {config.project}: no such folder. Name the one of prefect.yaml.")
    with folders.held(place):
        known = processes.records(place)
        running = {name for name, record in known.items() if record.process()}
        require_same(config, running)
        if any(name.startswith("spark") for name in known):
            config = config.model_copy(update={"spark": True})
        wanted = chosen(servers(config), kinds)
        if not wanted:  # all others are in every stack
            raise ConfigError("postgres: is not in this stack, whose data are in SQLite. Pass --database postgres.")
        missing = [server for server in wanted if server.name not in running]
        why = postgres.chosen(config).why
        if why and any(server.kind in postgres.DATABASES for server in missing):
            print(f"Warning: {SQLITE.format(why=why)}", file=sys.stderr)
        ports.require_unused(missing, config.host)
        folders.save(config)
        starting = Starting(config, wanted, running)
        try:
            starting.go()
        except BaseException:
            end(place, list(starting.started.values()))
            raise
        deployed = "worker" in starting.names and registering.deploy(config, environment(config))
    return bool(missing) or deployed


def chosen(servers: list[Server], kinds: Collection[str]) -> list[Server]:
    """Those of ``kinds`` and what they need; all where none are named."""
    names = {server.name for server in servers if not kinds or server.kind in kinds}
    for server in reversed(servers):
        if server.name in names:
            names |= set(server.needs)
    return [server for server in servers if server.name in names]


def require_same(config: StackConfig, running: Collection[str]) -> None:
    """Raise ConfigError where what runs was started with other settings."""
    before = folders.saved(config.place)
    if not running or before is None:
        return
    was, now = (dict(leaves(one.model_dump(exclude=set(MAY_CHANGE)))) for one in (before, config))
    for name in was:
        if was[name] != now[name]:
            difference = f"runs with {option(name)} {was[name]}, not {now[name]}"
            raise ConfigError(f"{config.place}: {difference}. Call down first, or leave that as it is.")


class Starting:
    """Servers on their way up."""

    def __init__(self, config: StackConfig, wanted: list[Server], running: Collection[str]):
        self.config = config
        self.waiting = [server for server in wanted if server.name not in running]
        self.silent = [server for server in wanted if server.name in running]
        self.names = {server.name for server in wanted}
        self.answering: set[str] = set()
        self.started: dict[str, processes.Record] = {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.begin = time.monotonic()

    def go(self) -> None:
        """Until every server answers."""
        while self.waiting or self.silent:
            for server in list(self.waiting):
                if self.answering >= set(server.needs) & self.names:
                    self.start(server)
            for server in list(self.silent):
                self.require_alive(server)
                try:
                    server.answers(self.since(server))
                    server.settle()
                except NO_ANSWER as error:  # a database that comes back is felt for some seconds more
                    self.require_patience(server, error)
                else:
                    self.answered(server)
            time.sleep(PAUSE_SECONDS)

    def start(self, server: Server) -> None:
        """Start a process."""
        server.prepare()
        self.children[server.name], self.started[server.name] = processes.spawn(
            self.config.place,
            server.name,
            server.command,
            server.env,
            Path("/") if server.user else self.config.project_place,
            server.stop,
            postgres.rights(server.user),
        )
        self.waiting.remove(server)
        self.silent.append(server)

    def answered(self, server: Server) -> None:
        """A server answers: what needs it may come."""
        self.silent.remove(server)
        seconds = time.monotonic() - self.begin
        if server.name in self.started:
            print(f"{server.name} answers after {seconds:.1f} s", file=sys.stderr, flush=True)
        self.answering.add(server.name)

    def require_alive(self, server: Server) -> None:
        """Raise EngineError with a server's last words where it has ended."""
        child = self.children.get(server.name)
        if child is not None and child.poll() is not None:
            log = processes.log_of(self.config.place, server.name)
            how = f"ended at its start with code {child.returncode}"
            raise EngineError(f"{server.name}: {how}: {processes.last_line(log)}. See {log}.")

    def require_patience(self, server: Server, error: Exception) -> None:
        """Raise EngineError where a server took too long."""
        patience = self.config.patience
        if time.monotonic() - self.begin > patience:
            why = f"does not answer within {patience:g} s ({error})"
            log = processes.log_of(self.config.place, server.name)
            raise EngineError(f"{server.name}: {why}. See {log}, or pass a longer --patience.")

    def since(self, server: Server) -> float:
        """When a server was started."""
        record = self.started.get(server.name) or processes.records(self.config.place)[server.name]
        return record.started
