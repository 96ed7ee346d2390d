"""Whether Prefect's server can be used, told in one line and within seconds."""

from __future__ import annotations

import os
from urllib.error import HTTPError
from urllib.parse import urlsplit

from flows.stack.clocks import ahead_by, complaint
from flows.stack.web import ask, basic
from lazypipe.errors import ConfigError, EngineError
from lazypipe.secrets import hidden

START = "Start it with `make up` or `python -m flows.stack start prefect`"
ANOTHER = f"{START}, or set PREFECT_API_URL to another"
ENV = 'eval "$(python -m flows.stack env)"'


def require_prefect(url: str | None = None) -> str:
    """The address of Prefect's interface, $PREFECT_API_URL without ``url``, once it has answered.

    Raises ConfigError where there is none, or it is no address; EngineError where nothing answers, or its clock is
    more than 5 s off.
    """
    url = url or os.environ.get("PREFECT_API_URL", "")
    if not url:
        raise ConfigError(f"PREFECT_API_URL: is not set, so there is no Prefect server. {START}, then call {ENV}.")
    shown = hidden(url)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"PREFECT_API_URL: {shown!r} is no address. Write it as http://host:4200/api.")
    try:
        answer = ask(f"{url.rstrip('/')}/health", headers=login())
    except HTTPError as error:
        if error.code in (401, 403):
            raise EngineError(f"{shown}: Prefect refuses who asks. Set PREFECT_API_AUTH_STRING or _KEY.") from error
        raise EngineError(f"{shown}: answers {error.code}, no Prefect server. {ANOTHER}.") from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{shown}: no Prefect server answers ({reason(error)}). {ANOTHER}.") from error
    if off := complaint(f"Prefect at {shown}", ahead_by(answer)):
        raise EngineError(off)
    return url


def login() -> dict[str, str]:
    """The header by which Prefect knows who asks, where one is set."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return basic(text) if (text := os.environ.get("PREFECT_API_AUTH_STRING")) else {}


def reason(error: Exception) -> str:
    """Why nothing answered, in few words."""
    return str(getattr(error, "reason", None) or error)
