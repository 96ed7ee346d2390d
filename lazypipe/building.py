"""Stores that take several runs to write: held by one run at a time, gone on with, put in place when whole."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lazypipe.atomic import require_replaceable, require_space, staging_of
from lazypipe.errors import DataError
from lazypipe.stores import AnyPath, Place, as_given, upload

LOCK = ".lock"
SHARED = "Write to a folder that all workers share (to a store: set TMPDIR to one)."
START_OVER = "Delete that folder, or pass overwrite=True (--overwrite), to start over."


def place_of(out: str | AnyPath) -> AnyPath:
    """Where a store goes: behind a link, not in place of it."""
    place = as_given(out)
    return Path(os.path.realpath(place)) if isinstance(place, Path) else place


@contextmanager
def building(
    out: AnyPath,
    overwrite: bool,
    identity: Mapping[str, Any],
    kind: str,
    attributes_of: Callable[[AnyPath], Mapping[str, Any]],
    create: Callable[[Path], None],
    nbytes: int,
) -> Iterator[Path]:
    """Yield the folder to fill, begun by an earlier run or by ``create`` now; put it at ``out`` on success.

    What goes to an object store is filled in the temporary folder ($TMPDIR), where the next run finds it, too.

    ``identity`` is what the attributes of a store that is gone on with must say; ``kind`` names such stores, and
    ``attributes_of`` raises DataError of what is none. Raises DataError where ``out`` exists and not
    ``overwrite``, where ``nbytes`` of disk are not free, where the store was begun from other data or options,
    or another run is writing it.
    """
    require_free_or_own(out, overwrite, attributes_of, kind)
    partial = (staging_of(out) / out.name if isinstance(out, Place) else out).with_name(f".{out.name}.partial-tiles")
    with held(partial, "cannot be written", f"another run is writing these {kind}", "write elsewhere"):
        require_free_or_own(out, overwrite, attributes_of, kind)  # again: another run may just have put it there
        difference = _difference(partial, identity, attributes_of, kind)
        if difference and (partial / "zarr.json").exists() and not overwrite:
            raise DataError(f"{partial}: {difference}. {START_OVER}")
        if difference:
            _clear(partial)
            try:
                require_space(out, nbytes)
            except DataError:
                (partial / LOCK).unlink()
                partial.rmdir()
                raise
            create(partial)
        yield partial
        if isinstance(out, Place):
            upload(partial, out, leave_out=(LOCK,))
            shutil.rmtree(partial.parent, ignore_errors=True)
        else:
            _put_in_place(partial, out)


def require_free_or_own(
    out: AnyPath, overwrite: bool, attributes_of: Callable[[AnyPath], Mapping[str, Any]], kind: str
) -> None:
    """Raise DataError where ``out`` is there and not to be replaced, or is no store of ``kind``."""

    def is_own(path: AnyPath) -> bool:
        try:
            attributes_of(path)
        except DataError:
            return False
        return True

    require_replaceable(out, overwrite, is_own, f"store of {kind}")


@contextmanager
def held(folder: Path, refused: str, busy: str, remedy: str) -> Iterator[None]:
    """Let one run at a time use a folder, which is made; DataError tells others who does, or why it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise DataError(f"{folder}: {refused} ({why}). {remedy.capitalize()}.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # Lustre without its option flock, some NFS
            raise DataError(
                f"{folder}: {refused} (its file system has no locks: {error.strerror}). {remedy.capitalize()}."
            ) from error
        if not _is_at(lock, folder / LOCK):  # it went with a store that was put in place meanwhile
            raise BlockingIOError
        with suppress(OSError):  # a full disk: nobody is told who holds it
            os.truncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)
        yield
    except BlockingIOError as error:
        who = os.pread(lock, 200, 0).decode(errors="replace") or "it does not say which"
        raise DataError(f"{folder}: {busy} ({who}). Wait for it, or {remedy}.") from error
    finally:
        os.close(lock)  # which unlocks it, as the end of the process does


def _difference(
    partial: Path, identity: Mapping[str, Any], attributes_of: Callable[[AnyPath], Mapping[str, Any]], kind: str
) -> str:
    """Why a run cannot go on with what is in ``partial``; nothing where it can."""
    try:
        attributes = attributes_of(partial)
    except DataError:
        return f"is torn, {kind} that were begun cannot go on"
    for key, wanted in identity.items():
        if attributes.get(key) != wanted:
            return f"{kind} of another run are there, with {key} {attributes.get(key)!r}; this one has {wanted!r}"
    return ""


def _clear(partial: Path) -> None:
    """Delete what another run began; the lock stays."""
    for child in partial.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name != LOCK:
            child.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _put_in_place(partial: Path, out: Path) -> None:
    """Move a whole store to its name; one that was there goes once the new one stands."""
    old = out.with_name(f".{out.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    (out / LOCK).unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
