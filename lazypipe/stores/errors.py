"""What a store says when it refuses, in one line: which address, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lazypipe.errors import LazypipeError
from lazypipe.secrets import hidden

LONGEST = 160  # characters of what a store said
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")
NO_ANSWER = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError",
    "FSTimeoutError", "TimeoutError", "ConnectionError", "ClientConnectionError", "ProxyConnectionError", "SSLError",
)  # fmt: skip


class StoreError(LazypipeError):
    """A store of objects cannot be reached, refuses, or gave what is not the object that was opened.

    No OSError and no ValueError: what reads formats takes those for damaged files.
    """


@contextmanager
def told(uri: str, refused: str = "cannot be read") -> Iterator[None]:
    """Raise StoreError for what a store, or the library that reaches it, raises; FileNotFoundError as it is."""
    try:
        yield
    except (LazypipeError, FileNotFoundError):
        raise
    except Exception as error:  # each library has errors of its own, few of them OSErrors
        raise explained(uri, error, refused) from error


def explained(uri: str, error: BaseException, refused: str = "cannot be read") -> StoreError:
    """The one line for an error of a store."""
    names = {kind.__name__ for kind in type(error).__mro__}
    said = hidden(" ".join(str(error).split())).rstrip(".") or type(error).__name__
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
    if isinstance(error, FileNotFoundError):
        return StoreError(f"{uri}: {refused}: no such object or bucket ({said}). Check the address.")
    if names & set(NO_CREDENTIALS):
        return StoreError(
            f"{uri}: {refused}: no credentials ({said}). Set those of the store in the environment "
            f"(of S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    if isinstance(error, PermissionError):
        return StoreError(
            f"{uri}: {refused}: the store does not allow it ({said}). Check the credentials in the environment, "
            f"and their rights."
        )
    if names & set(NO_ANSWER):
        return StoreError(
            f"{uri}: {refused}: the store does not answer ({said}). Check that it runs, and its address "
            f"(of S3: AWS_ENDPOINT_URL)."
        )
    return StoreError(f"{uri}: {refused} ({said}). Check the address and the store.")


def changed(uri: str) -> StoreError:
    """What to raise where an object is not the one that was opened."""
    return StoreError(f"{uri}: was written again, or deleted, while it was read. Start over.")
