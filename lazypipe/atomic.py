"""Outputs appear whole or not at all: written beside their name, then moved into place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lazypipe.errors import DataError, DiskFullError
from lazypipe.sizes import show_bytes
from lazypipe.stores import AnyPath, Place, StoreError, as_given, stands, upload
from lazypipe.stores.uploads import require_writable

CAUSES: dict[int | None, str] = {  # None: NumPy tells no number
    errno.ENOSPC: "the disk is full. Free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up. Free some space or write elsewhere",
    errno.EACCES: "no right to write here. Write elsewhere or change the rights",
    errno.EPERM: "no right to write here. Write elsewhere or change the rights",
    errno.EFBIG: "a limit on the size of files (ulimit -f). Raise it or write elsewhere",
    None: "it was cut short, by a full disk or a limit on the size of files. Free some space or write elsewhere",
    errno.EROFS: "the file system is read-only. Write elsewhere",
    errno.ENOTDIR: "a folder of the path is a file. Write elsewhere",
    errno.EEXIST: "a folder of the path is a file. Write elsewhere",
    errno.ENAMETOOLONG: "a name of the path is too long. Shorten it",
}

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: AnyPath, overwrite: bool = False, n_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write a file or a folder at; move it there on success.

    What goes to a store is written to this machine's temporary folder ($TMPDIR), and uploaded on success.

    On any failure what was written is removed and ``path`` stays as it was. Missing parent folders are
    made. It goes behind a link, not in place of it.

    Raises DataError before anything is written if ``path`` exists and not ``overwrite``, or if less than
    ``n_bytes`` are free; and while writing, for a full disk, a quota, or missing rights. Where the disk is
    at fault that is a DiskFullError.
    """
    if isinstance(path, Place):
        with _staged(path, overwrite, n_bytes) as partial:
            yield partial
        return
    require_free(path, overwrite)
    path = _behind_links(path)
    partial = _partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        if n_bytes is not None:
            require_space(path, n_bytes)
        yield partial
        _move(partial, path)
    except OSError as error:
        if error.errno not in CAUSES:
            raise
        raise _told(error, f"{path}: cannot be written") from error
    finally:
        _remove(partial)


@contextmanager
def _staged(place: Place, overwrite: bool, n_bytes: int | None) -> Iterator[Path]:
    """Yield a path in the temporary folder; upload what was written there. It is deleted in any case."""
    require_free(place, overwrite)
    try:
        folder = staging_of(place)
        _remove_stale(folder)
        if n_bytes is not None:
            require_space(place, n_bytes)
        own = _partial_of(folder)
        own.mkdir(parents=True)
    except OSError as error:
        raise _told(error, f"{place}: cannot be written on its way, in {tempfile.gettempdir()} ($TMPDIR)") from error
    try:
        yield own / place.name
        _upload_or_keep(own / place.name, place)
    except OSError as error:
        if error.errno not in CAUSES:
            raise
        raise _told(error, f"{place}: cannot be written on its way, in {own} ($TMPDIR)") from error
    finally:
        _remove(own)


def _told(error: OSError, what: str) -> DataError:
    """What to raise for an error of writing; ``what`` says which output, and where."""
    kind = DiskFullError if error.errno in FULL else DataError
    return kind(f"{what}: {CAUSES.get(error.errno, f'{error.strerror}. Write elsewhere')}.")


def _upload_or_keep(path: Path, place: Place) -> None:
    """Upload a whole output; where the store does not take it, it is kept: it may have taken hours."""
    try:
        upload(path, place)
    except StoreError as error:
        kept = Path(tempfile.mkdtemp(prefix="lazypipe-kept-")) / path.name
        path.rename(kept)
        raise StoreError(f"{error} It is kept in {kept}.") from error


def staging_of(place: Place) -> Path:
    """Where an output is written before it is uploaded: the same for the same address, so that runs find it again."""
    digest = hashlib.sha256(place.uri.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()).absolute() / f"lazypipe-{digest}"


def is_there(path: AnyPath) -> bool:
    """Whether ``path`` is taken: by a file, a folder or a link, or by objects that no upload left half-written."""
    return stands(path) if isinstance(path, Place) else os.path.lexists(path)


def require_free(path: str | AnyPath, overwrite: bool = False) -> None:
    """Raise DataError where ``path`` is there already and not to be replaced, or nothing can be written there."""
    place = as_given(path)
    if isinstance(place, Place):
        require_writable(place)
    if not overwrite and is_there(place):
        raise DataError(f"{place}: exists. Pass --overwrite (overwrite=True) to replace it, or another name.")
    if isinstance(place, Path):
        require_makeable(place)


def require_makeable(path: Path) -> None:
    """Raise DataError where no file or folder can be made at ``path``, as far as that can be told beforehand."""
    try:
        target = _behind_links(path)
        with suppress(FileNotFoundError):
            os.lstat(_partial_of(target))
        above = next((folder for folder in target.parents if folder.exists()), target)  # nothing is above the root
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno not in CAUSES:
            raise
        raise _told(error, f"{path}: cannot be written") from error


def require_replaceable(path: AnyPath, overwrite: bool, is_own: Callable[[AnyPath], bool], what: str) -> None:
    """Raise DataError where ``path`` is there and not to be replaced, or is no ``what``."""
    require_free(path, overwrite)
    if overwrite and is_there(path) and not is_own(path):
        raise DataError(f"{path}: is no {what}, so it is not replaced. Write elsewhere.")


def require_space(path: AnyPath, n_bytes: int) -> None:
    """Raise DataError where the disk that ``path`` would be on has less than ``n_bytes`` free.

    Of a place in a store that is the disk of the temporary folder, where it is written first.
    """
    free = free_nbytes(path)
    if free < n_bytes and isinstance(path, Place):
        raise DiskFullError(
            f"{path}: needs {show_bytes(n_bytes)} of disk on its way, {show_bytes(free)} are free in "
            f"{tempfile.gettempdir()}. Free some, or set TMPDIR to another disk."
        )
    if free < n_bytes:
        raise DiskFullError(
            f"{path}: needs {show_bytes(n_bytes)} of disk, {show_bytes(free)} are free. Free some or write elsewhere."
        )


def free_nbytes(path: AnyPath) -> int:
    """Free bytes of the disk that ``path`` would be on; for a store that of the temporary folder."""
    path = staging_of(path) if isinstance(path, Place) else path
    folder = _behind_links(path.expanduser()).parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def room_at(path: AnyPath) -> str:
    """Where an output goes, and how much room there is, for a plan."""
    free = show_bytes(free_nbytes(path))
    if isinstance(path, Place):
        return f"{path}, by way of {tempfile.gettempdir()}, which all workers have to share; {free} of disk free there"
    return f"{path}; {free} of disk free"


def _behind_links(path: Path) -> Path:
    """The absolute path of what a path leads to, also where nothing is there yet."""
    return Path(os.path.realpath(path))


def _partial_of(path: Path) -> Path:
    """Where what goes to ``path`` is written first."""
    return path.parent / f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}"


def _move(partial: Path, path: Path) -> None:
    if partial.is_file():
        sync(partial)
    if path.is_dir():  # os.replace cannot replace a folder that holds something
        old = path.with_name(partial.name.replace(".partial-", ".old-"))
        path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            old.rename(path)
            raise
        _remove(old)
    else:
        os.replace(partial, path)
    sync(path.parent)


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _remove_stale(path: Path) -> None:
    """Delete what processes of this host that are no more left half-written of the same target.

    What has the number of this process was left by an earlier one: in a container all may have the number 1. A
    folder that was set aside when its process died is put back, if nothing has taken its place.
    """
    host = socket.gethostname()
    for kind in ("old", "partial"):
        prefix = f".{path.name}.{kind}-{host}-"
        for left in path.parent.iterdir():
            pid = left.name.removeprefix(prefix)
            if not left.name.startswith(prefix) or not pid.isdigit() or _another_has(int(pid)):
                continue
            if kind == "old" and not path.exists():
                left.rename(path)
            else:
                _remove(left)


def _another_has(pid: int) -> bool:
    """Whether a process other than this one has that number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, and is another user's
        return True
    return True
