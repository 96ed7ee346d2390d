"""A fold that saves its state after every group of runs: killed, it redoes one group; grown data, it folds
what is new.

Groups are whole subtrees of the merge tree, so saving changes no bit of the answer. What a state holds is
known by a hash of every block in it: where a file is no longer as it was, its blocks are read and
compared before anything is added to them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe import plan as plans
from lazypipe.blocks import Run, Span
from lazypipe.checkpoint import REMEDY, SUFFIX, StateFolder, require_same
from lazypipe.engines.base import Engine
from lazypipe.engines.tasks import MergeTree
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.plan import FAN_IN, FoldPlan
from lazypipe.stats.base import Statistic
from lazypipe.stats.digests import RECORD, blocks_alone, digest, digested
from lazypipe.stores import path_of

MOST_GROUPS = 16
CHANGED_SHOWN = 3

Context = dict[str, np.ndarray]


@dataclass
class Progressed:
    """A fold as far as it came: ``base`` of the first ``stop`` lines, and a tree of groups after them."""

    context: Context
    blocks: np.ndarray  # of RECORD
    files: dict[str, list[int]]  # path -> size, modification time in ns, first row
    beside: np.ndarray = field(default_factory=lambda: np.zeros(0, RECORD))  # likewise, of what enters besides
    base: Any = None
    stop: int = 0
    cut: tuple[tuple[int, int, int], ...] = ()  # of the part after ``stop``: the plan it was begun with
    n_runs_done: int = 0
    group: int = 0  # runs a group of that cut, whatever the workers are now: a tree has leaves of one size
    levels: list[list[Any]] | None = None

    @property
    def covered(self) -> int:
        """Lines that are in the state."""
        return self.cut[self.n_runs_done - 1][1] if self.n_runs_done else self.stop


@dataclass(frozen=True)
class Beside:
    """What enters a fold besides the matrix: a name, and an array of its share in a span of the rows.

    For the rows in a state it must be what it was.
    """

    name: str
    of: Callable[[Span], np.ndarray]


@dataclass(frozen=True)
class Checkpointed:
    """Where and how a fold is saved.

    ``identity`` tells one fold from another (JSON values): a state with another one is refused.
    ``folder`` holds it under ``name``. After every ``epoch`` lines, if that is given, what was folded is merged
    into one state, whatever the groups: for states too large to keep several.
    """

    folder: StateFolder
    name: str
    identity: dict[str, Any]
    beside: Beside | None = None
    epoch: int | None = None

    @property
    def path(self) -> Path:
        return self.folder.path / f"{self.name}{SUFFIX}"

    def fold(
        self,
        engine: Engine,
        kind: type[Statistic],
        make: Callable[[Context], Statistic],
        context: Callable[[], Context],
        matrix: Matrix,
        plan: Callable[[Span], FoldPlan],
    ) -> tuple[Any, int]:
        """Like ``engine.fold``, from where a saved state stands; and how many lines were folded now.

        ``make`` gives the statistic, of type ``kind``, with the arrays of ``context`` (a shift); a saved
        state brings its own.
        ``plan`` cuts a span of the rows (or columns).

        Raises DataError: a state of another fold, a torn one, data that shrank or changed.
        """
        length = matrix.shape[0 if vars(kind)["axis"] == "rows" else 1]
        done = self._load(kind) or Progressed(context(), np.zeros(0, RECORD), {})
        statistic = make(done.context)
        if done.covered > length:
            raise DataError(
                f"{matrix.uri}: has {length:,} {statistic.axis}, the state {self.path} holds {done.covered:,} of "
                f"it: it shrank. {REMEDY}"
            )
        if done.covered:
            self._require_unchanged(engine, statistic, matrix, done, plan(Span(0, done.covered)))
        done.files = versions(matrix)
        n_new = length - done.covered
        if done.n_runs_done and plan(self._next(done, length)).runs != _runs(done.cut):
            # The data grew or the budget changed since: what is done becomes the base of what follows.
            self._settle(statistic, done)
        while done.stop < length:
            cut = plan(self._next(done, length))
            done.cut = tuple((run.start, run.stop, run.step) for run in cut.runs)
            self._fold_groups(engine, statistic, matrix, cut, done)
            self._settle(statistic, done)
            self._save(done)
        return statistic.finish(copy.deepcopy(done.base)), n_new

    def _next(self, done: Progressed, length: int) -> Span:
        """The lines that come next, as far as they make one state."""
        return Span(done.stop, length if self.epoch is None else min(done.stop + self.epoch, length))

    def _fold_groups(
        self, engine: Engine, statistic: Statistic, matrix: Matrix, cut: FoldPlan, done: Progressed
    ) -> None:
        tree = MergeTree(statistic, done.levels)
        done.levels = tree.levels
        size = done.group = done.group or group_size(len(cut.runs), engine.slots, cut.bytes_read)
        whole = digested(statistic)
        for start in range(done.n_runs_done, len(cut.runs), size):
            runs = cut.runs[start : start + size]
            share = replace(
                cut,
                title=f"{cut.title}, {cut.axis} to {runs[-1].stop:,}" if len(cut.runs) > size else cut.title,
                runs=runs,
                bytes_read=cut.bytes_read * (runs[-1].stop - runs[0].start) // max(1, _length(cut.runs)),
            )
            state = engine.fold(whole, matrix, share)
            tree.push(state.inner)
            done.blocks = np.concatenate([done.blocks, state.blocks])
            if self.beside is not None:
                share_of = Span(runs[0].start, runs[-1].stop)
                record = (share_of.start, share_of.stop, digest(self.beside.of(share_of)))
                done.beside = np.concatenate([done.beside, np.array([record], RECORD)])
            done.n_runs_done = start + len(runs)
            if done.n_runs_done < len(cut.runs):  # else the whole is saved, merged
                self._save(done)

    def _settle(self, statistic: Statistic, done: Progressed) -> None:
        """Merge the tree of groups into the base."""
        stop = done.covered
        if done.levels is not None and any(done.levels):
            part = MergeTree(statistic, done.levels).total()
            done.base = part if done.base is None else statistic.merge(done.base, part)
        done.stop, done.cut, done.n_runs_done, done.group, done.levels = stop, (), 0, 0, None

    def _require_unchanged(
        self, engine: Engine, statistic: Statistic, matrix: Matrix, done: Progressed, plan: FoldPlan
    ) -> None:
        """Compare the blocks whose files are not as they were; DataError names those that changed."""
        if self.beside is not None:
            for start, stop, was in done.beside:
                if digest(self.beside.of(Span(int(start), int(stop)))) != tuple(was):
                    raise DataError(
                        f"{self.path}: {self.beside.name} of rows {start:,} to {stop:,} changed since it was saved. "
                        f"Pass --restart (restart=True) to start over."
                    )
        changed_spans = _changed_spans(matrix, statistic.axis, done)
        doubtful = [
            (int(start), int(stop))
            for start, stop, _ in done.blocks
            if any(start < b and a < stop for a, b in changed_spans)
        ]
        if not doubtful:
            return
        runs = tuple(Run(i, start, stop, stop - start) for i, (start, stop) in enumerate(doubtful))
        check = replace(plan, title="comparing what the state holds", runs=_joined(runs))
        found = engine.fold(blocks_alone(statistic), matrix, check)
        known = {(int(r["start"]), int(r["stop"])): tuple(r["digest"]) for r in done.blocks}
        changed = [
            (int(r["start"]), int(r["stop"]))
            for r in found.blocks
            if known.get((int(r["start"]), int(r["stop"]))) != tuple(r["digest"])
        ]
        if changed:
            shown = ", ".join(f"{start:,} to {stop:,}" for start, stop in changed[:CHANGED_SHOWN])
            more = f" and {len(changed) - CHANGED_SHOWN} more blocks" if len(changed) > CHANGED_SHOWN else ""
            raise DataError(
                f"{matrix.uri}: {statistic.axis} {shown}{more} changed since {self.path} was saved. "
                f"Pass --restart (restart=True) to start over."
            )

    def _save(self, done: Progressed) -> None:
        arrays: dict[str, np.ndarray] = {"blocks": done.blocks, "beside": done.beside}
        arrays |= {f"context.{key}": value for key, value in done.context.items()}
        if done.base is not None:
            arrays |= packed("base", done.base)
        counts = [len(states) for states in done.levels or []]
        for level, states in enumerate(done.levels or []):
            for i, state in enumerate(states):
                arrays |= packed(f"level.{level}.{i}", state)
        progress = {
            "stop": done.stop,
            "cut": done.cut,
            "n_runs_done": done.n_runs_done,
            "group": done.group,
            "levels": counts,
        }
        header = {"identity": self.identity, "progress": progress, "files": done.files}
        self.folder.save(self.name, header, arrays)

    def _load(self, kind: type[Statistic]) -> Progressed | None:
        saved = self.folder.load(self.name)
        if saved is None:
            return None
        header, arrays = saved
        if not {"identity", "progress", "files"} <= header.keys():
            raise DataError(f"{self.path}: is no state of a fold. {REMEDY}")
        require_same(self.path, header["identity"] or {}, self.identity)
        try:
            return self._progressed(header["progress"], header["files"], arrays, kind.State)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise DataError(f"{self.path}: is torn, or no state of a fold ({error!r}). {REMEDY}") from error

    @staticmethod
    def _progressed(progress: Any, files: Any, arrays: dict[str, np.ndarray], state: type) -> Progressed:
        return Progressed(
            context={key.removeprefix("context."): v for key, v in arrays.items() if key.startswith("context.")},
            blocks=arrays["blocks"],
            files=files,
            beside=arrays["beside"],
            base=unpacked("base", arrays, state),
            stop=progress["stop"],
            cut=tuple(tuple(run) for run in progress["cut"]),
            n_runs_done=progress["n_runs_done"],
            group=progress["group"],
            levels=[
                [unpacked(f"level.{level}.{i}", arrays, state) for i in range(n)]
                for level, n in enumerate(progress["levels"])
            ]
            or None,
        )


def group_size(n_runs: int, slots: int, nbytes: int) -> int:
    """Runs a group: a power of the fan-in, so that a group is a subtree; enough to keep all tasks busy.

    Data of less than a run's usual bytes, as an increment, are one group.
    """
    size = FAN_IN
    while size * MOST_GROUPS < n_runs or size < 2 * slots or (size < n_runs and nbytes <= plans.RUN_NBYTES):
        size *= FAN_IN
    return size


def packed(name: str, state: Any) -> Context:
    """A state, an array or a flat NamedTuple, as arrays by name."""
    if isinstance(state, np.ndarray):
        return {name: state}
    return {f"{name}.{field}": np.asarray(value) for field, value in zip(state._fields, state, strict=True)}


def unpacked(name: str, arrays: Context, kind: type) -> Any:
    """What ``packed`` took apart; None where it is not there."""
    if kind is np.ndarray:
        return arrays.get(name)
    fields = {field: arrays.get(f"{name}.{field}") for field in kind._fields}  # type: ignore[attr-defined]
    if any(value is None for value in fields.values()):
        return None
    return kind(**{field: value.item() if value.ndim == 0 else value for field, value in fields.items()})  # type: ignore[union-attr]


def versions(matrix: Matrix) -> dict[str, list[int]]:
    """Size, modification time and first row of every file of a matrix."""
    found: dict[str, list[int]] = {}
    for piece in matrix.pieces():
        if piece.path not in found:
            status = path_of(piece.path).stat()
            found[piece.path] = [status.st_size, status.st_mtime_ns, piece.rows.start]
    return found


def _changed_spans(matrix: Matrix, axis: str, done: Progressed) -> list[tuple[int, int]]:
    """Rows in files that are not those of the state; all columns where a file changed, for stripes.

    All rows where a file is gone: its rows are elsewhere now, or nowhere.
    """
    pieces = matrix.pieces()
    now = versions(matrix)
    if not pieces or not done.files.keys() <= now.keys():
        return [(0, done.covered)]
    changed = {piece.rows for piece in pieces if done.files.get(piece.path) != now[piece.path]}
    if axis == "columns":
        return [(0, done.covered)] if changed else []
    return [(rows.start, rows.stop) for rows in sorted(changed)]


def _joined(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs of one block each, with neighbours of equal length joined, up to 64 blocks a run."""
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        full = last is not None and (last.stop - last.start) % last.step == 0
        if (
            last
            and full
            and last.stop == run.start
            and run.step <= last.step
            and last.stop - last.start < 64 * last.step
        ):
            joined[-1] = replace(last, stop=run.stop)
        else:
            joined.append(replace(run, index=len(joined)))
    return tuple(joined)


def _runs(cut: Iterable[tuple[int, int, int]]) -> tuple[Run, ...]:
    return tuple(Run(i, *run) for i, run in enumerate(cut))


def _length(runs: Sequence[Run]) -> int:
    return runs[-1].stop - runs[0].start
