"""What no log, result or tracking store may hold: passwords in addresses and in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
SHORTEST = 6  # characters of a value of the environment: what is shorter is in ordinary words, too
SURE = 12  # from so many on it is hidden in the middle of a word, too

# As JSON Schema and Python both read it: an address that says with which password to log in.
PASSWORD_IN_ADDRESS = (
    r"^[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*:[^/?#]*@|[^#]*[?&][^=&#]*[Pp][Aa][Ss][Ss][Ww][Oo]?[Rr]?[Dd]=)"
)

SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|AUTH_STRING|WEBHOOK|TOKEN(?!IZ)|CREDENTIAL|(?:^|_)KEYS?(?:_|$)|(?:API|ACCESS|PRIVATE)KEY"
)
USER_OF_ADDRESS = re.compile(r"(?<=://)(?:[^\s/?#'\"@:]*:(?!\d+/)[^\s'\"]*|[^\s/?#'\"]*)@")
NAMED = re.compile(
    r"(?i)((?:[?&;][\w.-]*(?:key|sig|signature|auth)[\w.-]*|\b[\w.-]*(?:password|passwd|secret|token|credential)[\w.-]*)=)"
    r"[^&;\s'\"#,]+"
)
AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{6,}")


def hidden(text: str) -> str:
    """``text`` with ``***`` for what is secret.

    That is who and which password in an address (``http://user:password@host``), what a query or an assignment gives
    for a password, token or key, and the values of environment variables whose names tell that they are secret.
    """
    return _hiding()(text)


def hidden_in(values: Any) -> Any:
    """The same of every text in nested mappings, lists and tuples; names of mappings stay."""
    hide = _hiding()

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return hide(value)
        if isinstance(value, Mapping):
            return {name: walk(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner) for inner in value]
        return value

    return walk(values)


def holds_password(address: str) -> bool:
    """Whether ``address`` says with which password to log in."""
    return re.match(PASSWORD_IN_ADDRESS, address) is not None


def _hiding() -> Callable[[str], str]:
    """What hides, for the environment as it is now."""
    secrets = sorted(set(_of_environment()), key=len, reverse=True)

    def hide(text: str) -> str:
        if "://" in text:
            text = USER_OF_ADDRESS.sub(f"{MASK}@", text)
        if "=" in text:
            text = NAMED.sub(rf"\g<1>{MASK}", text)
        text = AUTHORIZATION.sub(rf"\g<1> {MASK}", text)
        for secret in secrets:
            if len(secret) >= SURE:
                text = text.replace(secret, MASK)
            elif secret in text:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", MASK, text)
        return text

    return hide


def _of_environment() -> Iterator[str]:
    """Values that are secret, each as it is and as an address has it."""
    for name, value in os.environ.items():
        found = []
        public = name.upper().endswith("_ID") or (value.startswith("/") and os.path.exists(value))
        if SECRET_NAME.search(name.upper()) and not public:  # neither who one is nor the path of a key file is secret
            found += [value, *value.partition(":")[2:]] if "AUTH_STRING" in name.upper() else [value]
        if "://" in value and "@" in value:
            user = USER_OF_ADDRESS.search(value)
            found += [unquote(user[0].removesuffix("@").partition(":")[2])] if user else []
        for secret in found:
            if len(secret) >= SHORTEST:
                yield from (secret, quote(secret, safe=""), quote_plus(secret))
