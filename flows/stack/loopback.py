"""HTTP to servers of this machine: no proxy, short waits, JSON."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SECONDS = 5.0


def fetch(url: str, body: Any = None, seconds: float = SECONDS) -> bytes:
    """What a GET (a POST where there is a ``body``) of ``url`` gives; OSError where it fails."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with OPENER.open(request, timeout=seconds) as answer:
        content: bytes = answer.read()
    return content


def fetch_json(url: str, body: Any = None, seconds: float = SECONDS) -> Any:
    """The same as values; OSError where it is no JSON."""
    try:
        return json.loads(fetch(url, body, seconds))
    except ValueError as error:
        raise OSError(f"{url} answers no JSON") from error
