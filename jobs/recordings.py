"""New recordings of a folder: ``python -m jobs recordings --folder incoming --spikes '{stem}.spikes.npz' ...``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field, ValidationError, field_validator

import lazypipe as lp
from jobs import sta
from jobs._cli import command
from jobs._config import Config, RunConfig
from jobs._incoming import Entry, Incoming, Ledger, is_given_up, read_ledger, settled, take, up_to_date
from jobs._key import METADATA
from jobs._messages import explain
from jobs._recording import CuttingConfig, ReadingConfig
from jobs._tables import aligned
from jobs.sta import AverageConfig, StaConfig
from lazypipe.checkpoint import StateFolder
from lazypipe.io.recordings import FORMATS
from lazypipe.io.sources import require_there
from lazypipe.sizes import show_bytes

HEAD = ("recording", "size", "status", "what")
STATE = ".taken"


class FolderConfig(Config):
    """A folder that recordings come into, each with its spikes."""

    folder: str = Field(min_length=1, description="folder that recordings come into")
    make_folder: bool = Field(False, description="make the folder where it is missing, and wait for what will come")
    spikes: str = Field(
        "{stem}.spikes.npz",
        min_length=1,
        description="path of the spikes of a recording, from that folder: {stem} is the recording's name without its "
        "suffix, {name} with it; a recording waits for its spikes",
    )
    pattern: str | None = Field(
        None, min_length=1, description="names of recordings, such as '*.ap.bin'; without it all that have a known "
        "suffix"
    )  # fmt: skip
    settle: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds for which a recording and its spikes must not have changed before they are taken",
    )
    tries: int = Field(
        3, ge=1, description="how often a recording that fails is tried, once a run; then it waits for another content"
    )

    @field_validator("spikes")
    @classmethod
    def _of_each(cls, value: str) -> str:
        if "{stem}" not in value and "{name}" not in value:
            raise ValueError(f"{value!r} names the same spikes for every recording; put {{stem}} or {{name}} into it")
        return value


class RecordingsConfig(RunConfig, AverageConfig, ReadingConfig, CuttingConfig, FolderConfig):
    r"""The job sta for every new recording of a folder, once each, a result folder a recording.

      python -m jobs recordings --folder incoming --spikes '{stem}.spikes.npz' --out results/recordings \
        --sampling-rate 30000 --window -1 2 --window-unit ms

    A recording is taken once it and its spikes have stopped changing. One that fails does not stop the others, and is
    tried again next time; one that changed after it was taken is taken again. What was taken stands in a ledger, so
    that a run that was killed redoes only the recording that it was at.
    """

    out: str = Field("results/recordings", min_length=1, description="folder for the result folders")
    state: str | None = Field(
        None,
        min_length=1,
        description=f"folder that keeps the ledger of what was taken; without it {STATE} in the out folder",
    )
    restart: bool = Field(False, description="forget what was taken, and take everything again")


@dataclass(frozen=True)
class Row:
    """What became of a recording."""

    name: str
    nbytes: int
    status: str  # taken, new, waiting, failed, given up
    what: str  # its result, what it waits for, or the error

    def cells(self) -> tuple[str, ...]:
        return self.name, show_bytes(self.nbytes), self.status, self.what


@dataclass(frozen=True)
class Taken:
    """What a run found: a row a recording, and those that it took or failed at."""

    rows: tuple[Row, ...]
    new: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """How many there are of each status."""
        counts = {status: sum(row.status == status for row in self.rows) for status in dict.fromkeys(STATUSES)}
        told = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n)
        return [f"recordings  {told or 'none'}"]

    def failure(self) -> str:
        """One line for what failed in this run; nothing where nothing did."""
        rows = [row for row in self.rows if row.name in self.failed]
        if not rows:
            return ""
        more = f"; {len(rows) - 1} more failed" if len(rows) > 1 else ""
        return f"{rows[0].name}: {rows[0].what.rstrip('.')}{more}."


STATUSES = ("new", "taken", "waiting", "failed", "given up")


def plan(config: RecordingsConfig) -> Taken:
    """What is there and what a run would look at; refuses what cannot work, and changes nothing."""
    files = incoming(config)
    folder = StateFolder(state_of(config))
    entries = {} if config.restart else up_to_date(read_ledger(folder, _made_with(config)), files)
    return Taken(tuple(_row(file, entries.get(file.name), config) for file in files))


def run(config: RecordingsConfig) -> Taken:
    """Take every recording that is new, or changed, and whole; those that failed before come last.

    Raises EngineError where the cluster fails: what was done until then is in the ledger.
    """
    files = incoming(config)
    if config.make_folder:
        _make(config.folder)
    new: list[str] = []
    failed: list[str] = []
    with StateFolder(state_of(config), config.restart) as folder:
        ledger = Ledger(folder, _made_with(config), files)
        ready = [
            file
            for file in settled(files, ledger, config.settle)
            if not is_given_up(ledger.entries[file.name], config.tries)
        ]
        for file in sorted(ready, key=lambda file: (bool(ledger.entries[file.name].error), file.name)):
            again = ", which changed since it was taken" if ledger.entries[file.name].times else ""
            print(f"recordings: {file.name}{again}", file=sys.stderr)
            place = _place(file, ledger, config)
            done = take(file, ledger, place, partial(_work, config, place))
            if done.status == "taken":
                new.append(file.name)
            elif done.status == "failed":
                failed.append(file.name)
                print(f"recordings: {file.name}: {done.error}", file=sys.stderr)
        rows = [_row(file, ledger.entries[file.name], config, new) for file in files]
    return Taken(tuple(rows), tuple(new), tuple(failed))


def incoming(config: RecordingsConfig) -> list[Incoming]:
    """The recordings of the folder, whole or not, by name; refuses options that suit none."""
    folder = Path(config.folder).expanduser().absolute()
    for name, why in (("folder", "can be watched"), ("out", "can hold the ledger"), ("state", "can be locked")):
        if "://" in (given := getattr(config, name) or ""):
            raise lp.ConfigError(f"{name}: {given} is no local folder, which alone {why}. Mount it.")
    if not folder.is_dir() and not config.make_folder:
        raise lp.DataError(f"{folder}: no such folder. Make it (--make-folder), or pass another --folder.")
    if folder.is_dir():
        require_there(folder)
    if Path(config.out).expanduser().is_file():
        raise lp.DataError(f"{config.out}: is a file, where a folder for the results is wanted. Pass another --out.")
    _sta(config, "recording", "spikes", "result", False)
    try:
        found = sorted(folder.glob(config.pattern or "*"))
    except (ValueError, NotImplementedError) as error:
        raise lp.ConfigError(f"pattern: {config.pattern!r}: {str(error).lower()}. Give one such as '*.bin'.") from None
    paths = [path for path in found if _is_recording(path, config)]
    spikes = {_spikes_of(path, folder, config) for path in paths}
    return [
        Incoming(path.relative_to(folder).as_posix(), path, tuple(_companions(path, folder, config)))
        for path in paths
        if path not in spikes
    ]


def _make(folder: str) -> None:
    try:
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise lp.DataError(f"{folder}: cannot be made ({error.strerror}). Pass another --folder.") from error


def _is_recording(path: Path, config: RecordingsConfig) -> bool:
    if path.name.startswith("."):
        return False
    known = [suffix for one in FORMATS for suffix in one.suffixes if suffix != METADATA]
    return config.pattern is not None or path.suffix.lower() in known


def _spikes_of(path: Path, folder: Path, config: RecordingsConfig) -> Path:
    name = config.spikes.replace("{stem}", path.stem).replace("{name}", path.name)
    return folder / Path(name).expanduser()


def _companions(path: Path, folder: Path, config: RecordingsConfig) -> Iterator[Path]:
    yield _spikes_of(path, folder, config)
    if path.with_suffix(METADATA).exists():
        yield path.with_suffix(METADATA)


def _row(file: Incoming, entry: Entry | None, config: RecordingsConfig, new: Iterable[str] = ()) -> Row:
    spikes, mark, nbytes = file.companions[0], file.mark(), file.nbytes()
    if not spikes.exists():
        return Row(file.name, nbytes, "waiting", f"for its spikes, {spikes.name}")
    if entry is None or entry.mark != mark:
        return Row(file.name, nbytes, "waiting", "it changed" if entry else "it was not seen before")
    if is_given_up(entry, config.tries):
        return Row(file.name, nbytes, "given up", f"{_times(entry.tries)}, until it changes: {entry.error}")
    if entry.status == "failed":
        return Row(file.name, nbytes, "failed", f"{_times(entry.tries)} of {config.tries}: {entry.error}")
    if entry.status == "taken":
        return Row(file.name, nbytes, "new" if file.name in new else "taken", entry.result)
    return Row(file.name, nbytes, "waiting", entry.error or f"until it has not changed for {config.settle:g} s")


def _times(n: int) -> str:
    return "1 try" if n == 1 else f"{n} tries"


def state_of(config: RecordingsConfig) -> Path:
    """The folder of the ledger."""
    return Path(config.state or Path(config.out) / STATE).expanduser()


def _made_with(config: RecordingsConfig) -> Mapping[str, Any]:
    """What all results of a ledger have in common."""
    ours = ("spikes", *CuttingConfig.model_fields, *ReadingConfig.model_fields, *AverageConfig.model_fields)
    values = config.model_dump(mode="json")
    return {"folder": str(Path(config.folder).expanduser().absolute())} | {name: values[name] for name in ours}


def _place(file: Incoming, ledger: Ledger, config: RecordingsConfig) -> str:
    """The result folder: the one that it had, else by its name, without the suffix where no other has that."""
    if had := ledger.entries[file.name].result:
        return had
    taken = {entry.result for name, entry in ledger.entries.items() if name != file.name}
    name = Path(file.name)
    found = Path(config.out) / name.with_suffix("")
    return str(Path(config.out) / name if str(found) in taken else found)


def _work(config: RecordingsConfig, place: str, file: Incoming, is_ours: bool) -> None:
    sta.run(_sta(config, str(file.path), str(file.companions[0]), place, config.overwrite or is_ours))


def _sta(config: RecordingsConfig, source: str, spikes: str, out: str, overwrite: bool) -> StaConfig:
    """What the job sta is asked for; refuses, in one line, what it would."""
    names = [name for name in StaConfig.model_fields if name in RecordingsConfig.model_fields]
    values = {name: getattr(config, name) for name in names if name not in ("state", "restart")}
    values |= {"source": source, "spikes": spikes, "out": out, "overwrite": overwrite, "reuse": not config.restart}
    try:
        return StaConfig.model_validate(values)
    except ValidationError as error:
        raise lp.ConfigError(explain(error, StaConfig, {})) from error


def show(taken: Taken) -> None:
    """A line a recording. Raises DataError where one failed, once all others are told."""
    if taken.rows:
        print("\n".join(aligned([HEAD, *(row.cells() for row in taken.rows)], left=True)))
    print("\n".join(taken.lines()))
    if taken.failed:
        raise lp.DataError(f"{taken.failure()} The others are done; the next run tries again.")


def main(argv: list[str] | None = None) -> int:
    return command("recordings", RecordingsConfig, run, argv, show)


if __name__ == "__main__":
    sys.exit(main())
