"""Short HTTP questions: they wait seconds, speak JSON, and take no proxy to this machine."""

from __future__ import annotations

import json
import time
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SECONDS = 5.0


class Answer(NamedTuple):
    """What came back, when it was asked for and when it came."""

    content: bytes
    headers: Mapping[str, str]
    sent: float  # seconds since 1970
    received: float


def ask(url: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None) -> Answer:
    """GET ``url``, or POST where there is a ``body``, or what ``method`` says; OSError where that fails."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    opener = DIRECT if is_here(urlsplit(url).hostname or "") else urllib.request.build_opener()
    sent = time.time()
    with opener.open(request, timeout=SECONDS) as answer:
        return Answer(answer.read(), answer.headers, sent, time.time())


def ask_json(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """What comes back, as values; OSError where that fails, or it is no JSON."""
    try:
        return json.loads(ask(url, body, headers).content)
    except ValueError as error:
        raise OSError(f"{url} answers no JSON") from error


def is_here(host: str) -> bool:
    """Whether a host, by name or address, is this machine."""
    own = (one.address for interface in psutil.net_if_addrs().values() for one in interface)
    return is_loopback(host) or host in own


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def basic(login: str) -> dict[str, str]:
    """The header that ``user:password`` makes."""
    return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def date_of(answer: Answer) -> float | None:
    """The second, since 1970, in which a server says that it answered."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
