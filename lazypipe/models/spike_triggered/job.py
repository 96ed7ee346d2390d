"""How the question is answered: in one fold, tile by tile, from a state, or into a store on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lazypipe.atomic import room_at
from lazypipe.blocks import Span
from lazypipe.building import building
from lazypipe.checkpoint import StateFolder
from lazypipe.engines import Engine
from lazypipe.engines.checkpointed import Beside, Checkpointed
from lazypipe.errors import ConfigError
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered import store
from lazypipe.models.spike_triggered.making import MakeTile, WriteTile, in_units, with_open_windows
from lazypipe.models.spike_triggered.planning import (
    Tile,
    WindowPlan,
    epoch_rows,
    part_of,
    plan_in_tiles,
    plan_in_time,
    plan_saved,
    plan_windows,
)
from lazypipe.models.spike_triggered.question import Question
from lazypipe.plan import FoldPlan, Host, Plan, or_say_what_fits
from lazypipe.stats.digests import digest
from lazypipe.stats.provisional import typical_values
from lazypipe.stats.spike_triggered import (
    Moments,
    SpikeTriggered,
    WindowMoments,
    WindowSums,
    block_dtype,
)
from lazypipe.stores import AnyPath

TITLE = "spike-triggered average"
REMEDY = "or write it to disk (out='sta.zarr'; --arrays sta.zarr), or ask for dtype='float32' or fewer lags."


@dataclass(frozen=True, eq=False)
class Job:
    """A question, how it is answered, and where."""

    question: Question
    statistic: SpikeTriggered  # yet without its shift
    engine: Engine
    chunk_length: int | None
    state: Path | None = None  # folder of states
    restart: bool = False  # forget them
    out: AnyPath | None = None  # store on disk

    @property
    def matrix(self) -> Matrix:
        return self.question.recording.matrix

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_units, n_lags, n_channels)"""
        windows = self.question.windows
        return windows.n_units, windows.length, self.question.recording.n_channels

    @property
    def output_nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.statistic.result).itemsize * (2 if self.statistic.spread else 1)

    @property
    def reserved(self) -> int:
        """Bytes on the driver all the while: the spikes, and the result where it stays in memory."""
        return self.question.nbytes + (self.output_nbytes if self.out is None else 0)

    def plan(self) -> tuple[WindowPlan, Plan]:
        """MemoryPlanError, with what would do, where nothing fits the budget."""
        chunk = self.chunk_length
        if chunk is not None and (not isinstance(chunk, int | np.integer) or chunk < 1):
            raise ConfigError(
                f"chunk_length: {self.chunk_length} is no number of samples. Give 1 or more, or leave it out."
            )
        recording = self.question.recording
        output, reserved = self.output_nbytes, self.reserved

        def make(host: Host) -> WindowPlan:
            asked = TITLE, self.statistic, self.matrix, host
            if self.state is not None:
                return plan_saved(*asked, reserved, self.chunk_length)
            if self.out is not None:
                tiles = plan_in_tiles(*asked, self.engine.slots, reserved, self.chunk_length, shares=False)
                return replace(tiles, fold=tiles.fold.doing(returned_nbytes=0, written_nbytes=output))
            return plan_windows(*asked, self.engine.slots, reserved, self.chunk_length)

        planned = or_say_what_fits(make, self.engine.host, REMEDY)
        notes = () if self.out is None else (f"written to {room_at(self.out)}",)
        shape = recording.n_samples, recording.n_channels
        plan = Plan(
            TITLE, recording.uri, shape, str(recording.dtype), self.engine.host.compiling, (planned.fold,),
            max(1, len(planned.tiles)), output_nbytes=output, nbytes=self.matrix.nbytes, notes=notes,
        )  # fmt: skip
        return planned, plan

    def compute(self, planned: WindowPlan) -> WindowMoments:
        """In one fold, a fold a tile, or a tile a task."""
        statistic = replace(self.statistic, shift=_shift(self.question.recording))
        if not planned.tiles:
            return self._folded(statistic, TITLE)
        if planned.in_time:
            return self._joined(planned, self._folded_tiles(statistic, planned.tiles))
        recording, step = self.question.recording, planned.fold.step
        if not self.engine.host.shared:
            work = MakeTile(statistic, recording, step)
            return self._joined(planned, self.engine.map(work, planned.tiles, planned.fold))
        mean = np.empty(self.shape, statistic.result)
        std = np.empty(self.shape, statistic.result) if statistic.spread else None
        within = MakeTile(statistic, recording, step, Moments(mean, std))
        counts = [store.TileCounts(*part[:2]) for part in self.engine.map(within, planned.tiles, planned.fold)]
        return WindowMoments(*self._counts(planned.tiles, counts), mean, std)

    def _folded_tiles(self, statistic: SpikeTriggered, tiles: Sequence[Tile]) -> Iterator[WindowMoments]:
        """One after another."""
        for i, tile in enumerate(tiles):
            part = part_of(statistic, tile)
            yield self._folded(part, _title_of(i, len(tiles)), tile.channels)

    def _folded(self, statistic: SpikeTriggered, title: str, channels: Span | None = None) -> WindowMoments:
        """Epoch after epoch; of those ``channels`` of the recording, or of all."""
        n_rows, host = self.matrix.shape[0], self.engine.host
        epoch = epoch_rows(statistic, self.matrix, host)
        reserved = self.reserved + (statistic.state_nbytes(*self.matrix.shape) if epoch < n_rows else 0)
        total: WindowSums | None = None
        for start in range(0, n_rows, epoch):
            span = Span(start, min(start + epoch, n_rows))
            named = title if epoch >= n_rows else f"{title}, samples to {span.stop:,}"
            fold = plan_in_time(named, statistic, self.matrix, host, reserved, self.chunk_length, span)
            part = self.engine.fold(statistic, self.matrix, fold)
            total = part if total is None else statistic.merge(total, part)
        assert total is not None
        moments = statistic.moments(with_open_windows(statistic, self.matrix, total))
        return in_units(moments, self.question.recording, channels)

    def write(self, planned: WindowPlan, plan: Plan, overwrite: bool) -> WindowMoments:
        """Into the store at ``out``, a tile a task; of those that an earlier run wrote, none again."""
        assert self.out is not None
        question, recording = self.question, self.question.recording
        windows = question.windows
        identity = {
            "source": recording.uri,
            "fingerprint": self.matrix.fingerprint(),
            "gain": _digest_of(recording.gain),
            "offset": _digest_of(recording.offset),
            "unit": recording.unit,
            "window": list(question.window),
            "edges": question.edges,
            "nan": question.nan,
            "spread": self.statistic.spread,
            "ddof": self.statistic.ddof,
            "dtype": self.statistic.result,
            "spikes": f"{digest(windows.belonging_to(Span(0, self.matrix.shape[0] + windows.reach)))[0]:016x}",
            "tiles": len(planned.tiles),
        }
        told = {"sampling_rate": recording.sampling_rate}

        def create(partial: Path) -> None:
            store.create(
                partial, self.shape, planned.tiles, self.statistic.result, self.statistic.spread, {**identity, **told}
            )

        begun = building(
            self.out, overwrite, identity, "spike-triggered averages", store.attributes_of, create, plan.output_nbytes
        )
        with begun as partial:
            statistic = replace(self.statistic, shift=_shift(recording))
            target = store.Store(partial)
            work = WriteTile(MakeTile(statistic, recording, planned.fold.step), target)
            counts = list(self.engine.map(work, planned.tiles, planned.fold))
            used, not_finite = self._counts(planned.tiles, counts)
            vectors = {"unit_ids": question.spikes.unit_ids, "lags": question.lags, "n_used": used}
            dropped = {f"n_dropped_{reason}": n for reason, n in question.dropped_with(not_finite).items()}
            target.close(planned.tiles, vectors | dropped)
        std = store.opened(self.out, "std") if self.statistic.spread else None
        return WindowMoments(used, not_finite, store.opened(self.out, "mean"), std)

    def resume(self, planned: WindowPlan) -> tuple[WindowMoments, int]:
        """From what the folder holds, tile after tile; and how many samples were read for it."""
        assert self.state is not None
        n_new = [0]

        def tiles(folder: StateFolder) -> Iterator[WindowMoments]:
            for i, tile in enumerate(planned.tiles):
                found, n = self._resume_tile(tile, i, len(planned.tiles), folder)
                n_new.append(n)
                yield found

        with StateFolder(self.state, self.restart) as folder:
            return self._joined(planned, tiles(folder)), max(n_new)

    def _resume_tile(self, tile: Tile, i: int, n_tiles: int, folder: StateFolder) -> tuple[WindowMoments, int]:
        question, recording = self.question, self.question.recording
        part = part_of(self.statistic, tile)
        identity = {
            "statistic": "spike-triggered moments",
            "source": recording.uri,
            "within": _within(recording.matrix),
            "n_channels": recording.n_channels,
            "dtype": str(recording.dtype),
            "window": list(question.window),
            "edges": question.edges,
            "nan": question.nan,
            "spread": self.statistic.spread,
            "units": question.spikes.unit_ids.tolist(),
            "tile": [tile.units.start, tile.units.stop, tile.channels.start, tile.channels.stop],
        }
        beside = Beside("the spikes", part.windows.belonging_to)
        reserved = self.reserved + 2 * part.state_nbytes(*self.matrix.shape)
        host, chunk = self.engine.host, self.chunk_length
        epoch = epoch_rows(part, self.matrix, host)
        title = _title_of(i, n_tiles)
        saved = Checkpointed(folder, f"spikes-{i}" if n_tiles > 1 else "spikes", identity, beside, epoch)

        def context() -> dict[str, np.ndarray]:
            shift = _shift(recording)
            shifts = {} if shift is None else {"shift": shift[tile.channels.slice]}
            return {"panel": np.array(part.panel), **shifts}

        def make(context: dict[str, np.ndarray]) -> SpikeTriggered:
            nonlocal part
            # The saved ones, where there is a state: its sums lie as they did then.
            part = replace(part, shift=context.get("shift"), panel=int(context["panel"]))
            return part

        def cut(span: Span) -> FoldPlan:
            return plan_in_time(title, part, self.matrix, host, reserved, chunk, span)

        total, n_new = saved.fold(self.engine, SpikeTriggered, make, context, self.matrix, cut)
        moments = part.moments(with_open_windows(part, self.matrix, total))
        return in_units(moments, recording, tile.channels), n_new

    def _joined(self, planned: WindowPlan, found: Iterable[WindowMoments]) -> WindowMoments:
        """The tiles in one; each is let go of as it comes."""
        if len(planned.tiles) == 1:
            return next(iter(found))
        mean = np.empty(self.shape, self.statistic.result)
        std = np.empty(self.shape, self.statistic.result) if self.statistic.spread else None
        counts = []
        for tile, part in zip(planned.tiles, found, strict=True):
            place = tile.units.slice, slice(None), tile.channels.slice
            mean[place] = part.mean
            if std is not None:
                std[place] = part.std
            counts.append(store.TileCounts(part.used, part.not_finite))
            del part
        return WindowMoments(*self._counts(planned.tiles, counts), mean, std)

    def _counts(self, tiles: Sequence[Tile], counts: Sequence[store.TileCounts]) -> tuple[np.ndarray, np.ndarray]:
        """Of all units, from those of the tiles, in which channels do not matter."""
        n_units, n_lags, _ = self.shape
        used = np.zeros((n_units, 1 if self.question.edges == "drop" else n_lags), np.int64)
        not_finite = np.zeros(n_units, np.int64)
        for tile, part in zip(tiles, counts, strict=True):
            used[tile.units.slice] = part.used
            not_finite[tile.units.slice] = part.not_finite
        return used, not_finite


def _title_of(i: int, n_tiles: int) -> str:
    return TITLE if n_tiles == 1 else f"{TITLE}, tile {i + 1} of {n_tiles}"


def _digest_of(values: np.ndarray | None) -> str:
    """Of a gain or an offset, to tell one from another."""
    return "" if values is None else f"{digest(np.atleast_1d(values).astype(np.float64))[0]:016x}"


def _within(matrix: Matrix) -> str:
    """Which part of its file a matrix is: the name of an array, or where its rows begin."""
    name, segments = getattr(matrix, "name", ""), getattr(matrix, "segments", ())
    return f"{name} at byte {segments[0].offset:,}" if segments else str(name)


def _shift(recording: Recording) -> np.ndarray | None:
    """What to take off floats before they are squared (n_channels,); None for integers."""
    if block_dtype(recording.dtype) == np.int16:
        return None
    return typical_values(recording.matrix, recording.columns)
