"""Files that come into a folder, each taken once: which are there, which are whole, and what became of each.

What became of them stands in a ledger, one state of a state folder, that is saved after every file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lazypipe as lp
from jobs._key import as_they_are, files_of
from lazypipe.checkpoint import StateFolder, require_same
from lazypipe.errors import DiskFullError
from lazypipe.secrets import hidden
from lazypipe.stores.errors import StoreError

LEDGER = "ledger"
NO_FAULT = (lp.EngineError, DiskFullError, StoreError)  # of the file: the cluster, the disk or the store failed


@dataclass(frozen=True)
class Incoming:
    """A file, or a folder such as a .zarr, and what belongs to it."""

    name: str
    path: Path
    companions: tuple[Path, ...] = ()

    @property
    def places(self) -> tuple[Path, ...]:
        return self.path, *self.companions

    def mark(self) -> str | None:
        """What can be seen of all its files without reading them; None where one is missing.

        Another mark means that they changed.
        """
        try:
            return as_they_are(self.places) if all(place.exists() for place in self.places) else None
        except FileNotFoundError:  # it went meanwhile
            return None

    def older_mark(self) -> str:
        """The same as an older ledger has it: size of all, latest change, number."""
        found = [status for place in self.places for _, status in files_of(place)]
        found += [place.stat() for place in self.places if place.is_dir()]
        return json.dumps([sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0), len(found)])

    def nbytes(self) -> int:
        """Of the file itself, 0 where it is gone."""
        try:
            return sum(status.st_size for _, status in files_of(self.path))
        except FileNotFoundError:  # it went meanwhile
            return 0


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of a file: how it was, since when, and what became of it."""

    mark: str
    seen: float  # seconds since 1970 when it was first seen so
    status: Literal["waiting", "taken", "failed"] = "waiting"
    result: str = ""
    times: int = 0  # how often it was taken, whatever it held
    tries: int = 0  # how often it failed as it is now
    error: str = ""


class Ledger:
    """The entries of a state folder that is held. ``made_with`` is what all of them must have been made with."""

    def __init__(self, folder: StateFolder, made_with: Mapping[str, Any], files: Iterable[Incoming]):
        self.folder, self.made_with = folder, made_with
        self.entries = read_ledger(folder, made_with)
        self.put(up_to_date(self.entries, files))

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Note these, by name, and save the ledger, once, where that changes it."""
        if any(self.entries.get(name) != entry for name, entry in entries.items()):
            self.entries |= entries
            self.folder.save(
                LEDGER, {"made_with": self.made_with, "files": {n: asdict(e) for n, e in self.entries.items()}}, {}
            )


def read_ledger(folder: StateFolder, made_with: Mapping[str, Any]) -> dict[str, Entry]:
    """Entries by name. Raises DataError where they were made with something else, or the ledger is torn."""
    state = folder.load(LEDGER)
    if state is None:
        return {}
    require_same(folder.path, state.header["made_with"], made_with)
    marks = {name: fields["mark"] for name, fields in state.header["files"].items()}
    marks |= {name: json.dumps(mark) for name, mark in marks.items() if not isinstance(mark, str)}  # an older ledger
    return {name: Entry(**fields | {"mark": marks[name]}) for name, fields in state.header["files"].items()}


def up_to_date(entries: Mapping[str, Entry], files: Iterable[Incoming]) -> dict[str, Entry]:
    """These, with the mark of today for that of an older ledger where it is still that of the file."""
    found = dict(entries)
    for file in files:
        entry = entries.get(file.name)
        if entry and entry.mark.startswith("[") and entry.mark == file.older_mark():
            found[file.name] = replace(entry, mark=file.mark() or entry.mark)
    return found


def settled(
    files: Iterable[Incoming], ledger: Ledger, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> list[Incoming]:
    """Those that are all there and have not changed for so long, as far as they are not taken already.

    A file is watched, as the clocks of those who write it may differ from this one: here for that long where some
    were not seen before, else since an earlier run saw it.
    """
    files = list(files)
    young = [seconds - (time.time() - entry.seen) for entry in _watched(files, ledger) if entry.status == "waiting"]
    if young and max(young) > 0:
        sleep(min(seconds, max(young)))
    found = []
    for file, entry in zip(files, _watched(files, ledger), strict=True):
        if file.mark() == entry.mark and entry.status != "taken" and time.time() - entry.seen >= seconds:
            found.append(file)
    return found


def _watched(files: Iterable[Incoming], ledger: Ledger) -> list[Entry]:
    """The entry of each file as it is now: a new one where it changed, which keeps the place of its result."""
    now = time.time()
    new = {}
    for file in files:
        mark, entry = file.mark() or "", ledger.entries.get(file.name)
        if entry is None or entry.mark != mark or entry.seen > now:
            new[file.name] = Entry(mark, now, result=entry.result, times=entry.times) if entry else Entry(mark, now)
    ledger.put(new)
    return [ledger.entries[file.name] for file in files]


def take(file: Incoming, ledger: Ledger, place: str, work: Callable[[Incoming, bool], Any]) -> Entry:
    """Do ``work(file, is_ours)`` and mark the file taken once it is done; failed, with the error, if it fails.

    ``is_ours`` says that nothing is at ``place``, the result's, but what was made of this file. What is no fault of the
    file (``NO_FAULT``) is noted and raised again.
    """
    entry = ledger.entries[file.name]
    is_ours = entry.result == place or not Path(place).exists()
    if is_ours:
        entry = replace(entry, result=place)
        ledger.put({file.name: entry})
    try:
        work(file, is_ours)
    except NO_FAULT as error:
        ledger.put({file.name: replace(entry, error=one_line(error))})
        raise
    except Exception as error:
        done = replace(entry, status="failed", tries=entry.tries + 1, error=one_line(error))
    else:
        done = replace(entry, status="taken", result=place, times=entry.times + 1, tries=0, error="")
    if file.mark() != entry.mark:
        done = replace(entry, status="waiting", error="it changed while it was read")
    ledger.put({file.name: done})
    return done


def is_given_up(entry: Entry, tries: int) -> bool:
    """Whether it failed so often that it waits for another content."""
    return entry.status == "failed" and entry.tries >= tries


def one_line(error: BaseException) -> str:
    text = hidden(" ".join(str(error).split()))
    return text if isinstance(error, lp.LazypipeError) else f"{type(error).__name__}: {text}"[:300]
