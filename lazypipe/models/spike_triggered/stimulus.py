"""The channels that a question is about, and where in them windows may lie."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lazypipe.blocks import Run, Span
from lazypipe.engines import Engine
from lazypipe.engines.tasks import blocks_of
from lazypipe.errors import ConfigError, DataError, PlanError
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.chosen import chosen_columns
from lazypipe.io.recordings.recording import Recording
from lazypipe.models.spike_triggered.passes import chunk_length, fitting, time_blocks
from lazypipe.models.spike_triggered.question import Question, excluded_spans
from lazypipe.plan import FoldPlan, Host, Plan
from lazypipe.stats.provisional import typical_values
from lazypipe.stats.spike_triggered import block_dtype
from lazypipe.stats.windows import Windows, recorded_pieces

MOST_DIMENSIONS = 4096  # lags x channels: its square is 128 MiB, and an eigendecomposition takes a minute or two


@dataclass(frozen=True, eq=False)
class Stimulus:
    """Some channels of a recording, and the pieces of it that windows may lie in."""

    recording: Recording
    channels: np.ndarray  # (k,) of the recording
    matrix: Matrix  # (n_rows, k) of these alone
    pieces: np.ndarray  # (n, 2) rows, in order

    @classmethod
    def of(cls, recording: Recording, channels: np.ndarray, pieces: np.ndarray) -> Stimulus:
        return cls(recording, channels, chosen_columns(recording.matrix, recording.columns.start + channels), pieces)

    @property
    def stored(self) -> str:
        return self.matrix.dtype.name

    @property
    def gain(self) -> np.ndarray:
        """(k,) units a stored value."""
        return self._of_channels(self.recording.gain, 1.0)

    @property
    def offset(self) -> np.ndarray:
        """(k,) units, added after the gain."""
        return self._of_channels(self.recording.offset, 0.0)

    def _of_channels(self, values: np.ndarray | None, default: float) -> np.ndarray:
        whole = np.broadcast_to(default if values is None else values, (self.recording.n_channels,))
        return whole[self.channels].astype(np.float64)

    def starts(self, length: int) -> np.ndarray:
        """(n, 2) first rows of all windows that lie whole in a piece; pieces without one are left out."""
        ranges = np.column_stack([self.pieces[:, 0], self.pieces[:, 1] - length + 1])
        return ranges[ranges[:, 0] < ranges[:, 1]]

    def read(self, rows: Span) -> np.ndarray:
        """Those rows (n, k), float64, read here and now."""
        values = np.empty((len(rows), len(self.channels)))
        with self.matrix.open() as reader:
            reader.read(rows, Span(0, len(self.channels)), values)
        return values

    def shift(self) -> np.ndarray:
        """(k,) a value that each channel takes: sums of differences from it round little."""
        return typical_values(self.matrix, Span(0, len(self.channels)))


def pieces_of(recording: Recording, exclude: Sequence[tuple[int, int]]) -> np.ndarray:
    """(n, 2) rows of the matrix: each stretch less what is excluded, in which windows may lie."""
    pieces, rows = recorded_pieces(recording.spans, excluded_spans(exclude))
    return np.column_stack([rows, rows + pieces[:, 1] - pieces[:, 0]])


def checked_channels(channels: Any, recording: Recording) -> np.ndarray:
    """``channels`` (k,) as asked, all for None; ConfigError, naming it, for one that the recording lacks."""
    if channels is None:
        return np.arange(recording.n_channels)
    wanted = [channels] if np.ndim(channels) == 0 else list(channels)
    if not wanted:
        raise ConfigError("channels: is empty. Name at least one, or leave it out.")
    for channel in wanted:
        if not isinstance(channel, int | np.integer) or not 0 <= channel < recording.n_channels:
            raise ConfigError(
                f"channels: {channel!r} is no channel of {recording.uri}, which has 0 to {recording.n_channels - 1:,}."
            )
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"channels: {wanted!r:.60} names one twice. Name each once.")
    return np.array(wanted, np.int64)


def require_dimensions(n_lags: int, channels: np.ndarray, uri: str) -> None:
    """PlanError where a covariance of lags x channels would be out of reach."""
    n = n_lags * len(channels)
    if n > MOST_DIMENSIONS:
        raise PlanError(
            f"{uri}: {n_lags:,} lags x {len(channels):,} channels are {n:,} dimensions, and {MOST_DIMENSIONS:,} are "
            f"the most that a covariance may have. Choose channels=[...], or a shorter window."
        )


def require_whole(edges: str, nan: str) -> None:
    """ConfigError for windows of which a part may be missing."""
    if edges != "drop":
        raise ConfigError(f"edges: {edges!r} keeps windows in part, and whole ones are needed here. Use 'drop'.")
    if nan == "propagate":
        raise ConfigError("nan: 'propagate' would spoil all that is computed here. Use 'omit' or 'raise'.")


def require_fraction(name: str, value: Any) -> None:
    """ConfigError unless it lies between 0 and 1, neither included."""
    if not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise ConfigError(f"{name}: {value!r} is not between 0 and 1.")


def require_seed(seed: Any) -> None:
    """ConfigError unless it is a whole number from 0 on."""
    if not isinstance(seed, numbers.Integral) or int(seed) < 0:
        raise ConfigError(f"seed: {seed!r} is no whole number of 0 or more.")


def require_count(name: str, value: Any) -> None:
    """ConfigError unless it is a whole number from 1 on."""
    if not isinstance(value, numbers.Integral) or int(value) < 1:
        raise ConfigError(f"{name}: {value!r} is no whole number of 1 or more.")


@dataclass(frozen=True, eq=False)
class FindMissing:
    """A task: the rows of a run that are not finite in some column, (n, 2) begin and end."""

    matrix: Matrix

    def __call__(self, run: Run) -> np.ndarray:
        found = []
        for block in blocks_of(self.matrix, "rows", run, False):
            wrong = np.concatenate([[False], ~np.isfinite(block.values).all(axis=1), [False]])
            found.append(np.flatnonzero(wrong[1:] != wrong[:-1]).reshape(-1, 2) + block.rows.start)
        return np.concatenate(found)


def plan_missing(matrix: Matrix, host: Host, reserved: int) -> FoldPlan:
    """The pass that looks for samples that are not finite."""
    step = chunk_length(matrix, 0, host)
    n_runs = max(1, min(256, matrix.shape[0] // step))
    cut = time_blocks(matrix.shape[0], n_runs, step)
    task = 10 * step * matrix.shape[1] + 32 * step + matrix.reader_nbytes(step, matrix.shape[1])
    return fitting("look for NaN", matrix, host, cut, task, reserved)


def without_missing(
    stimulus: Stimulus, windows: Windows, engine: Engine, plan: FoldPlan
) -> tuple[Stimulus, Windows, np.ndarray]:
    """The same with samples that are not finite as gaps, the windows that hold none, and how many units lose."""
    none = np.zeros(windows.n_units, np.int64)
    parts = list(engine.map(FindMissing(stimulus.matrix), plan.runs, plan))
    missing = np.concatenate(parts)
    if not len(missing):
        return stimulus, windows, none
    pieces = np.concatenate([list(_around(piece, missing)) or np.empty((0, 2), np.int64) for piece in stimulus.pieces])
    # A window holds a missing sample where the first one that ends after its begin starts before its end.
    after = np.searchsorted(missing[:, 1], windows.first, side="right")
    starts = np.append(missing[:, 0], np.iinfo(np.int64).max)
    spoilt = starts[after] < windows.first + windows.length
    unit = np.repeat(np.arange(windows.n_units), np.diff(windows.edges))
    edges = np.searchsorted(unit[~spoilt], np.arange(windows.n_units + 1))
    kept = replace(windows, first=windows.first[~spoilt], edges=edges)
    return replace(stimulus, pieces=pieces), kept, np.bincount(unit[spoilt], minlength=windows.n_units)


def _around(piece: np.ndarray, missing: np.ndarray) -> Iterator[tuple[int, int]]:
    """What is left of a piece between the rows that are missing."""
    at, stop = piece.tolist()
    a, b = np.searchsorted(missing[:, 1], at, side="right"), np.searchsorted(missing[:, 0], stop)
    for low, high in missing[a:b].tolist():
        if low > at:
            yield at, low
        at = high
    if at < stop:
        yield at, stop


def may_miss(stored: str) -> bool:
    """Whether samples of that dtype may be NaN."""
    return block_dtype(stored) != np.int16 and np.dtype(stored).kind == "f"


def plan_of(job: str, question: Question, host: Host, folds: Sequence[FoldPlan], passes: int, output: int) -> Plan:
    """The whole job in lines."""
    recording = question.recording
    return Plan(
        job, recording.uri, (recording.n_samples, recording.n_channels), str(recording.dtype), host,
        tuple(folds), passes, output_nbytes=output, nbytes=recording.matrix.nbytes,
    )  # fmt: skip


def require_data(question: Question, stimulus: Stimulus) -> None:
    """DataError where no window lies whole in the recording."""
    if not len(stimulus.starts(question.windows.length)):
        raise DataError(
            f"{question.recording.uri}: no piece of it is {question.windows.length:,} samples long, as the window is. "
            f"Shorten the window, or exclude less."
        )
