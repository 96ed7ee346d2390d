"""PostgreSQL of this machine: a database folder of our own, reached by a socket in it, on no port and without password.

The socket lies in a folder that only its owner enters, which is what keeps others out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil

from flows.stack import clocks
from flows.stack.config import StackConfig
from lazypipe.errors import ConfigError, EngineError

ROLE = "lazypipe"
DATABASES = ("prefect", "mlflow")
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin")
USERS = ("postgres", "nobody")  # who runs it where root starts it: it refuses root
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_LENGTH = 103  # bytes of a socket's path, on every system
INIT_SECONDS = 60
STOP = signal.SIGINT  # a fast shutdown: sessions are ended, not waited for


class Database(NamedTuple):
    """Where Prefect and MLflow keep their data."""

    kind: str  # postgres or sqlite
    why: str  # it is not PostgreSQL, where that was not asked for


def chosen(config: StackConfig) -> Database:
    """What is in the folder already, else what is asked for, else PostgreSQL where it can run."""
    there = "postgres" if data(config).exists() else ""
    there = there or ("sqlite" if any(config.place.glob("*/*.db")) else "")
    if there and config.database not in ("auto", there):
        what = f"holds data in {there}, not {config.database}"
        raise ConfigError(f"{config.place}: {what}. Pass another --folder, or --database {there}.")
    kind = there or config.database
    if kind == "sqlite":
        return Database(kind, "" if config.database == "sqlite" else "the folder holds SQLite data")
    why = impossible(config)
    if why and kind == "postgres":
        raise ConfigError(f"--database postgres: {why}. Mend that, or pass another --folder with --database sqlite.")
    return Database("sqlite", why) if why else Database("postgres", "")


def impossible(config: StackConfig) -> str:
    """Why PostgreSQL cannot run in the folder; nothing where it can."""
    if binaries(config) is None:
        version = version_there(config)
        return (
            f"PostgreSQL {version}, which made {data(config)}, is not installed" if version else "it is not installed"
        )
    missing = [driver for driver in ("asyncpg", "psycopg2") if find_spec(driver) is None]
    if missing:
        return f"its driver {missing[0]} is not installed (pip install 'lazypipe[postgres]')"
    path = os.fsencode(sockets(config) / SOCKET_NAME)
    if len(path) > SOCKET_LENGTH:
        return f"{config.place} is too long for the path of a socket by {len(path) - SOCKET_LENGTH} bytes"
    if (name := user()) and not enters(name, config.place):
        return f"root starts it as the user {name}, who cannot enter {config.place}"
    return ""


def binaries(config: StackConfig) -> Path | None:
    """The folder of ``initdb`` and ``postgres``: of the version that made the data, else the newest."""
    version = version_there(config)
    for folder in places():
        if (folder / "initdb").exists() and (folder / "postgres").exists() and version in ("", major(folder)):
            return folder
    return None


def places() -> Iterator[Path]:
    """Where PostgreSQL may be, newer versions first; on Debian it is not on the PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in PLACES:
        yield from map(Path, sorted(glob(pattern), key=lambda path: [int(n) for n in re.findall(r"\d+", path)])[::-1])


def major(folder: Path) -> str:
    """The major version of the programs in a folder."""
    said = subprocess.run([folder / "postgres", "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)", said)
    return found[1] if found else ""


def version_there(config: StackConfig) -> str:
    """The major version that made the data; nothing where there are none."""
    file = data(config) / "PG_VERSION"
    return file.read_text().strip() if file.exists() else ""


def home(config: StackConfig) -> Path:
    """The folder of its data and its socket."""
    return config.place / "postgres"


def data(config: StackConfig) -> Path:
    """Its data."""
    return home(config) / "data"


def sockets(config: StackConfig) -> Path:
    """The folder of its socket."""
    return home(config) / "socket"


def user() -> str | None:
    """Who runs it; None: who runs this."""
    if os.geteuid() != 0:
        return None
    import pwd

    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


def enters(name: str, folder: Path) -> bool:
    """Whether a user may enter a folder, or the first above it that exists."""
    while not folder.exists():
        folder = folder.parent
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]
    return subprocess.run(command, check=False, capture_output=True, cwd="/", **rights(name)).returncode == 0


def rights(name: str | None) -> dict[str, Any]:
    """What makes ``subprocess`` run a command as a user."""
    import pwd

    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []} if name else {}


def command(config: StackConfig) -> tuple[str, ...]:
    """What runs it in the foreground."""
    program = (binaries(config) or Path()) / "postgres"
    settings = ("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700")
    return (str(program), "-D", str(data(config)), "-k", str(sockets(config)), *settings)


def making(config: StackConfig, folder: Path) -> tuple[str, ...]:
    """What makes its data."""
    program = (binaries(config) or Path()) / "initdb"
    options = ("--username", ROLE, "--auth", "trust", "--encoding", "UTF8", "--locale", "C")
    return (str(program), "--pgdata", str(folder), *options)


def creating(config: StackConfig, name: str) -> tuple[str, ...]:
    """What makes one of its databases."""
    program = (binaries(config) or Path()) / "createdb"
    return (str(program), "--host", str(sockets(config)), "--username", ROLE, name)


def prepare(config: StackConfig) -> None:
    """Make its folders and its data, whole or not at all."""
    name, partial = user(), home(config) / "data.partial"
    for folder in (home(config), sockets(config)):
        folder.mkdir(mode=0o700, exist_ok=True)
        if name:
            shutil.chown(folder, name)
    if data(config).exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
    command = making(config, partial)
    why = ""
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=INIT_SECONDS,
            **rights(name),
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
    except subprocess.TimeoutExpired:
        why = f"it was not done within {INIT_SECONDS} s"
    if why:
        raise EngineError(f"{command[0]}: made no database in {home(config)}: {why}. Pass --database sqlite.")
    partial.rename(data(config))


def query(config: StackConfig, *commands: str) -> list[Any]:
    """The rows of the last of some SQL commands; OSError where it does not answer."""
    import psycopg2  # type: ignore[import-untyped]

    try:
        session = psycopg2.connect(host=str(sockets(config)), user=ROLE, dbname="postgres", connect_timeout=5)
        with closing(session):
            session.autocommit = True
            with session.cursor() as cursor:
                for text in commands:
                    cursor.execute(text)
                return list(cursor.fetchall()) if cursor.description else []
    except psycopg2.Error as error:
        raise OSError(" ".join(str(error).split())) from error


def answers(config: StackConfig) -> None:
    """Raise OSError unless it answers."""
    query(config, "SELECT 1")


def ahead(config: StackConfig) -> float:
    """Seconds by which its clock is ahead of ours."""
    sent = time.time()
    ((now,),) = query(config, "SELECT extract(epoch FROM clock_timestamp())::float8")
    return clocks.ahead(now, now, sent, time.time())


def make_databases(config: StackConfig) -> None:
    """One for Prefect, one for MLflow."""
    there = {name for (name,) in query(config, "SELECT datname FROM pg_database")}
    for name in DATABASES:
        if name not in there:
            query(config, f'CREATE DATABASE "{name}"')


def prefect_uri(config: StackConfig) -> str:
    """Its database for Prefect."""
    return f"postgresql+asyncpg://{ROLE}@/prefect?host={quote(str(sockets(config)))}"


def mlflow_uri(config: StackConfig) -> str:
    """Its database for MLflow."""
    return f"postgresql+psycopg2://{ROLE}@/mlflow?host={quote(str(sockets(config)))}"


def left_running(config: StackConfig) -> list[psutil.Process]:
    """The server of the data in a stack's folder, where nothing else tells of it: it hides its environment."""
    folder = data(config)
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
        if process.cwd() == str(folder.resolve()) or str(folder) in process.cmdline():
            return [process]
    return []
