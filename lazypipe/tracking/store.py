"""Tracking stores: whether one answers, how its errors read, where its experiments and pages are."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from lazypipe.errors import ConfigError, EngineError, RefusedError
from lazypipe.secrets import hidden

CONNECT_SECONDS = 4
LONGEST = 200  # characters of what a store said
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
WRITTEN = f"Write it as one of {', '.join(['sqlite', *PORTS])}://..."
SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # what a PostgreSQL server answers in one byte, whoever asks
BUSY = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
# What connections raise that is no OSError, by name: not all of these libraries are there, or loaded.
CONNECTIONS = {
    "http.client.HTTPException", "urllib3.exceptions.HTTPError", "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.InterfaceError", "sqlalchemy.exc.TimeoutError", "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
}  # fmt: skip
START = "Start one with `make up` or `mlflow server`, or pass --tracking.enabled false."


def load_libraries() -> None:
    """Import what a run will need, so that a plan made afterwards counts its memory."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for library in ("alembic", "urllib3.connectionpool"):  # the latter tells of each try
        logging.getLogger(library).setLevel(logging.ERROR)
    import mlflow
    import mlflow.pyfunc

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.utils.logging_utils.disable_logging()


def require_store(uri: str) -> None:
    """Raise ConfigError or EngineError, within seconds, where ``uri`` cannot hold runs."""
    try:
        address = urlsplit(uri)
        _ = address.port  # which raises where it is no number
    except ValueError as error:
        raise ConfigError(f"tracking.uri: {hidden(uri)!r} is no address ({error}). {WRITTEN}") from error
    scheme = address.scheme.split("+")[0]
    if scheme == "sqlite":
        file = sqlite_file(uri)
        if not uri.partition(":///")[2]:  # MLflow would keep it in memory, and lose it
            raise ConfigError(f"{uri}: names no file. Write it as sqlite:///FILE (--tracking.uri).")
        if not file.parent.is_dir():
            raise ConfigError(f"{uri}: no such folder {file.parent}. Make it, or change --tracking.uri.")
        if file.is_dir():  # MLflow would try again and again
            raise ConfigError(f"{uri}: is a folder. Name a file in it, or change --tracking.uri.")
        return
    if scheme not in PORTS:
        raise ConfigError(f"tracking.uri: {hidden(uri)!r} is no tracking store. {WRITTEN}")
    try:
        if scheme in ("http", "https"):
            _ask_server(uri)
        elif address.hostname:  # without one it is a database on a socket of this machine
            _ask_database(address, scheme)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: of a name that DNS cannot have
        why = str(getattr(error, "reason", None) or error) or type(error).__name__
        why = f"nothing within {CONNECT_SECONDS} s" if "timed out" in why else why
        raise EngineError(f"{hidden(uri)}: no MLflow store answers ({hidden(why)}). {START}") from error


def _ask_server(uri: str) -> None:
    """EngineError for a server that is not well, OSError for one that does not answer."""
    address = urlsplit(uri)
    host = address.netloc.rpartition("@")[2]
    health = address._replace(netloc=host, path=address.path.rstrip("/") + "/health", query="", fragment="").geturl()
    try:
        with urllib.request.urlopen(urllib.request.Request(health), timeout=CONNECT_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= http.client.INTERNAL_SERVER_ERROR:
            raise EngineError(
                f"{hidden(uri)}: the MLflow server answers {error.code} {error.reason}. See its log, or pass "
                f"--tracking.enabled false."
            ) from error  # below that it is there: what it refuses is told by the first request proper
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):
            raise  # whom MLflow trusts is another matter: it has certificates of its own


def _ask_database(address: SplitResult, scheme: str) -> None:
    """OSError for a database that does not answer."""
    port = address.port or PORTS[scheme]
    with socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS) as connection:
        if scheme == "postgresql":
            connection.sendall(SSL_REQUEST)
            if not connection.recv(1):
                raise ConnectionError("the connection was closed")


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Raise EngineError, in one line, for what a store, or what reaches it, raises."""
    try:
        yield
    except (ConfigError, EngineError):
        raise
    except Exception as error:  # of MLflow, of its database driver, of HTTP: each has its own family
        raise EngineError(f"{hidden(uri)}: MLflow cannot use this store: {said(error)}. See --tracking.uri.") from error


def said(error: BaseException) -> str:
    """What a store said, short and without secrets."""
    text = " ".join(str(error).split("\n[SQL")[0].split()) or type(error).__name__
    for known in ("Connection refused", "timed out", "Connection reset"):
        if known in text:
            return known.lower()  # what is around it names objects of a library
    return hidden(text)[:LONGEST].rstrip(".")


def is_away(error: BaseException) -> bool:
    """Whether the store may take later what it did not take now: it did not answer, is busy, or is not well."""
    status = _status(error)
    if status is not None:
        return status in BUSY or status >= http.client.INTERNAL_SERVER_ERROR
    if isinstance(error, RefusedError):
        return False
    if isinstance(error, OSError):
        return error.filename is None  # else it is of a file, and no connection
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return isinstance(error, EngineError) or bool(kinds & CONNECTIONS)


def _status(error: BaseException) -> int | None:
    """Of HTTP, where a server, or MLflow in its place, told one."""
    told = getattr(error, "get_http_status_code", None)
    found = told() if told is not None else getattr(getattr(error, "response", None), "status_code", None)
    return None if found is None else int(found)


def page_of(uri: str, experiment_id: str, run_id: str) -> str | None:
    """The address of a run's page, without a login, where the store is a server."""
    if not uri.startswith(("http://", "https://")):
        return None
    address = urlsplit(uri)
    place = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
    return f"{hidden(place).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def sqlite_file(uri: str) -> Path:
    """The file of a store of SQLite."""
    return Path(unquote(uri.partition(":///")[2])).absolute()


def experiment_id_of(client: Any, name: str, uri: str) -> str:
    """The experiment of that name, made if it is new."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # Beside the database, and not in whatever folder the first run happened to start from.
        place = (sqlite_file(uri).parent / "mlruns" / name).as_uri() if uri.startswith("sqlite") else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another run may have made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
