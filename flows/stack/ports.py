"""Ports that must be free before anything is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from flows.stack.servers import Server
from jobs._messages import option
from lazypipe.errors import ConfigError

TAKEN = "is taken"
LARGEST = 65_535


def require_unused(servers: Iterable[Server], host: str) -> None:
    """Raise ConfigError, naming port, holder and option, unless every port can be listened on."""
    wanted: dict[int, str] = {}
    for server in servers:
        for name, port in server.ports.items():
            setting = option(name)
            if port > LARGEST:
                raise ConfigError(f"{setting}: {port} is no port. Pass a smaller one.")
            if port in wanted:
                raise ConfigError(f"{setting}: {port} is also {wanted[port]}. Give each a port of its own.")
            wanted[port] = setting
    for port, setting in wanted.items():
        if why := refused(host, port):
            remedy = f"Pass {setting.partition(' ')[0]} another port" if why == TAKEN else "Pass another --host"
            raise ConfigError(f"{setting}: {host}:{port} {why}{holder(port)}. {remedy}.")


def refused(host: str, port: int) -> str:
    """Why nobody can listen there now; nothing where one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            return TAKEN if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
    return ""


def holder(port: int) -> str:
    """`` by process 12 (nginx)`` where that can be seen."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
