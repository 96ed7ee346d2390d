"""An address in a store, used as a path is: ``path_of("s3://bucket/m.npy")`` has a name, a parent, a size.

What reads files asks a Place what it would ask a Path, so that each format is written once.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple, TypeAlias, TypeVar, overload
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from lazypipe.errors import DataError
from lazypipe.stores.errors import StoreError, told
from lazypipe.stores.filesystems import FILE_SYSTEMS, LIST_SECONDS, OPTIONS, answer

# Names of what changes with an object in what fsspec tells of it: tags and hashes, else times.
TOLD = ("ETag", "etag", "blob_id", "xet_hash",
        "LastModified", "Last-Modified", "mtime", "updated", "last_modified", "created")  # fmt: skip
UNTOLD = uuid4().hex  # instead of them, another in each process: no later run may take such an object for unchanged


class Status(NamedTuple):
    """What a store tells of an object; ``st_mtime_ns`` is another number whenever it was written with other bytes.

    Where the store does not tell that, it is another number in each process.
    """

    st_size: int
    st_mtime_ns: int
    tag: str  # the ETag, or the time of the last change; nothing where the store tells neither
    is_dir: bool


class Place:
    """An address in a store of objects: reading it, and what lies below it. Pickles to the address alone."""

    __slots__ = ("_known", "uri")

    def __init__(self, uri: str, known: Status | None = None):
        self.uri = uri
        self._known = known  # as it was listed a moment ago

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.uri,)

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"Place({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __lt__(self, other: Place) -> bool:
        return self.uri < other.uri

    def __truediv__(self, name: str) -> Place:
        name = str(name).strip("/")
        return Place(f"{self.uri}/{name}") if name else self

    @property
    def scheme(self) -> str:
        return self.uri.partition("://")[0]

    @property
    def key(self) -> PurePosixPath:
        """Bucket (or host) and key, as a path."""
        return PurePosixPath("/" + self.uri.partition("://")[2])

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def stem(self) -> str:
        return self.key.stem

    @property
    def suffix(self) -> str:
        return self.key.suffix

    @property
    def parent(self) -> Place:
        return Place(f"{self.scheme}:/{self.key.parent}") if self.key.parent != self.key else self

    def with_name(self, name: str) -> Place:
        return self.parent / name

    def with_suffix(self, suffix: str) -> Place:
        return self.parent / f"{self.stem}{suffix}"

    def relative_to(self, other: AnyPath) -> PurePosixPath:
        """ValueError where it does not lie below ``other``."""
        if not isinstance(other, Place) or other.scheme != self.scheme:
            raise ValueError(f"{self} is not below {other}")
        return self.key.relative_to(other.key)

    def is_relative_to(self, other: AnyPath) -> bool:
        return isinstance(other, Place) and other.scheme == self.scheme and self.key.is_relative_to(other.key)

    def absolute(self) -> Place:
        return self

    def expanduser(self) -> Place:
        return self

    def resolve(self) -> Place:
        return self

    def samefile(self, other: object) -> bool:
        return str(other) == self.uri

    def is_symlink(self) -> bool:
        return False

    @property
    def file_system(self) -> Any:
        """That of this process."""
        return FILE_SYSTEMS.of(self.scheme, self.uri)

    def stat(self) -> Status:
        """FileNotFoundError where there is nothing; StoreError where the store does not tell."""
        if self._known is not None:
            return self._known
        with told(self.uri):
            info = answer(self.file_system, "info", self.uri)
        if info.get("size") is None and info.get("type") != "directory":
            raise StoreError(f"{self.uri}: the server does not tell its size. Download it, and read the copy.")
        return status_of(info)

    def found(self) -> Place:
        """The same, its status known; FileNotFoundError and IsADirectoryError where it is no object."""
        try:
            status = self.stat()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri) from error
        if status.is_dir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.uri)
        return Place(self.uri, status)

    def exists(self) -> bool:
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        try:
            return self.stat().is_dir
        except FileNotFoundError:
            return False

    def is_file(self) -> bool:
        try:
            return not self.stat().is_dir
        except FileNotFoundError:
            return False

    def iterdir(self) -> Iterator[Place]:
        """What lies right below it, in the order of names."""
        with told(self.uri):
            found = answer(self.file_system, "ls", self.uri, detail=True)
        return iter(sorted(place for info in found if (place := self._below(info)) != self))

    def rglob(self, pattern: str) -> Iterator[Place]:
        """Every object below it whose name fits."""
        with told(self.uri):
            found = answer(self.file_system, "find", self.uri, detail=True, seconds=LIST_SECONDS)
        places = (self._below(info) for info in found.values())
        return (place for place in places if fnmatch.fnmatchcase(place.name, pattern))

    def glob(self, pattern: str) -> Iterator[Place]:
        """What lies right below it and fits."""
        if not any(letter in pattern for letter in "*?["):
            return iter([self / pattern] if (self / pattern).exists() else [])
        return (place for place in self.iterdir() if fnmatch.fnmatchcase(place.name, pattern))

    def _below(self, info: dict[str, Any]) -> Place:
        """A place that was listed."""
        uri: str = self.file_system.unstrip_protocol(info["name"]).rstrip("/")
        scheme, _, rest = uri.partition("://")
        return Place(f"{self.scheme}://{rest.lstrip('/') if scheme == 'memory' else rest}", status_of(info))

    @overload
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...
    @overload
    def open(
        self, mode: Literal["r"] = "r", *, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None,
    ) -> IO[str]: ...  # fmt: skip
    def open(
        self, mode: str = "r", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> Any:
        """The object as a file that is read in ranges, 64 KiB at least."""
        from lazypipe.stores.file import BLOCK_NBYTES, RangedFile

        file = io.BufferedReader(RangedFile(self.found()), BLOCK_NBYTES)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with self.open("r", encoding=encoding, errors=errors) as file:
            return file.read()


AnyPath: TypeAlias = Path | Place
SomePath = TypeVar("SomePath", Path, Place, Path | Place)  # where what comes back is of the kind that was given


def is_remote(source: object) -> bool:
    """Whether a path or an address is that of a store."""
    if isinstance(source, Place):
        return True
    text = str(source)
    return "://" in text and not text.startswith("file://")


@contextmanager
def on_disk(path: AnyPath) -> Iterator[Path]:
    """A local path of a whole file: its own, or that of a copy while this lasts. For small files alone."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lazypipe-") as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield copy


def path_of(source: str | AnyPath) -> AnyPath:
    """The absolute path of a path or a ``file://`` address, the place of an address of a store.

    Raises DataError for an address that no store is known for, and for one that carries a password or a query:
    credentials come from the environment.
    """
    if isinstance(source, Place):
        return source
    text = str(source)
    if not isinstance(source, str) or "://" not in text:
        return Path(source).expanduser().absolute()
    address = urlsplit(text)
    if address.scheme == "file":
        return Path(unquote(address.path)).expanduser().absolute()
    shown = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
    if address.scheme not in OPTIONS:
        raise DataError(f"{shown}: cannot read from {address.scheme}://. Use one of {_known()}, or a local path.")
    if "@" in address.netloc or address.query:
        what = "a name or a password" if "@" in address.netloc else "a query, which may hold a secret"
        raise DataError(f"{shown}: its address carries {what}. Leave it out: credentials come from the environment.")
    rest = text.partition("://")[2].strip("/")
    if not rest or ("/" not in rest and address.scheme != "memory"):
        raise DataError(f"{shown}: names no object. Write it as {address.scheme}://bucket/name.")
    return Place(f"{address.scheme}://{rest}")


def as_given(source: str | AnyPath) -> AnyPath:
    """The same as ``path_of``, but a local path is not made absolute: lines and records name it as it was given."""
    return path_of(source) if isinstance(source, Place) or "://" in str(source) else Path(source).expanduser()


def _known() -> str:
    return ", ".join(f"{scheme}://" for scheme in OPTIONS if scheme != "memory")


def status_of(info: dict[str, Any]) -> Status:
    """What fsspec tells of an object, of any store."""
    mark = next((info[key] for key in TOLD if info.get(key)), "")
    tag = mark.isoformat() if isinstance(mark, datetime) else str(mark)
    number = int.from_bytes(hashlib.blake2b((tag or UNTOLD).encode(), digest_size=6).digest(), "big")
    return Status(int(info.get("size") or 0), number, tag, info.get("type") == "directory")
