"""Mean and covariance of all windows of a recording: what windows around spikes are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.engines import Engine
from lazypipe.errors import DataError
from lazypipe.models.spike_triggered.passes import fold_in_time
from lazypipe.models.spike_triggered.question import Question
from lazypipe.models.spike_triggered.stimulus import (
    Stimulus,
    checked_channels,
    may_miss,
    pieces_of,
    plan_missing,
    require_data,
    require_dimensions,
    without_missing,
)
from lazypipe.plan import FoldPlan, Host
from lazypipe.stats.window_products import Ends, Moments, WindowProducts
from lazypipe.stats.windows import Windows

TITLE = "covariance of all windows"


@dataclass(frozen=True, eq=False)
class Prior:
    """The pass over all windows of a recording, in segments of its time; and one before it that looks for NaN."""

    question: Question
    stimulus: Stimulus
    windows: Windows  # of the spikes
    not_finite: np.ndarray  # (n_units,) windows that a NaN left out
    shift: np.ndarray  # (k,) taken off all samples
    n_segments: int = 1

    @classmethod
    def of(cls, question: Question, channels: Any, exclude: Any, n_segments: int = 1) -> Prior:
        """From metadata alone: the shift is yet zero, and NaN are still there."""
        recording, length = question.recording, len(question.lags)
        chosen = checked_channels(channels, recording)
        require_dimensions(length, chosen, recording.uri)
        stimulus = Stimulus.of(recording, chosen, pieces_of(recording, exclude))
        require_data(question, stimulus)
        none = np.zeros(question.windows.n_units, np.int64)
        return cls(question, stimulus, question.windows, none, np.zeros(len(chosen)), n_segments)

    @property
    def length(self) -> int:
        return self.windows.length

    @property
    def n_dimensions(self) -> int:
        return self.length * len(self.shift)

    @property
    def looks_for_nan(self) -> bool:
        return self.question.nan == "omit" and may_miss(self.stimulus.stored)

    @property
    def edges(self) -> np.ndarray:
        """(n_segments + 1,) rows; a window belongs to the segment of its last one."""
        n_rows = self.stimulus.matrix.shape[0]
        return np.array([n_rows * i // self.n_segments for i in range(self.n_segments + 1)])

    def plans(self, host: Host, reserved: int) -> tuple[FoldPlan, ...]:
        """Of the passes that are due; ``reserved`` bytes are held on the driver besides."""
        matrix = self.stimulus.matrix
        reserved += self.question.nbytes
        completing = 8 * (3 + self.n_segments) * self.n_dimensions**2
        fold = fold_in_time(TITLE, self.statistic(), matrix, host, reserved + completing)
        return (plan_missing(matrix, host, reserved), fold) if self.looks_for_nan else (fold,)

    def statistic(self) -> WindowProducts:
        """Ranges of windows, cut where segments meet."""
        cuts = self.edges[1:-1] - self.length + 1
        parts = [
            (a, b, segment)
            for start, stop in self.stimulus.starts(self.length).tolist()
            for segment, (low, high) in enumerate(zip([0, *cuts], [*cuts, stop], strict=True))
            if (a := max(start, low)) < (b := min(stop, high))
        ]
        table = np.array(parts, np.int64).reshape(-1, 3)
        stimulus = self.stimulus
        return WindowProducts(
            table[:, :2], table[:, 2], self.n_segments, self.length, self.shift, stimulus.channels, stimulus.stored
        )  # fmt: skip

    def ready(self, engine: Engine, plans: tuple[FoldPlan, ...]) -> Prior:
        """With the shift, and samples that are not finite taken for gaps where that is asked for."""
        found = self
        if self.looks_for_nan:
            stimulus, windows, not_finite = without_missing(self.stimulus, self.windows, engine, plans[0])
            if not len(stimulus.starts(self.length)):
                raise DataError(
                    f"{stimulus.recording.uri}: all windows of {self.length:,} samples hold a NaN. Shorten the window."
                )
            found = replace(self, stimulus=stimulus, windows=windows, not_finite=not_finite)
        return replace(found, shift=found.stimulus.shift())

    def moments(self, engine: Engine, plan: FoldPlan) -> list[Moments]:
        """Of the windows of each segment, about the shift."""
        statistic = self.statistic()
        total = engine.fold(statistic, self.stimulus.matrix, plan)
        return [statistic.completed(total, i, self._ends(statistic, i)) for i in range(self.n_segments)]

    def _ends(self, statistic: WindowProducts, segment: int) -> Iterator[Ends]:
        """Read here and now: two windows a range."""
        for start, stop in statistic.ranges[statistic.segments == segment].tolist():
            head, tail = (self.stimulus.read(Span(a, a + self.length - 1)) - self.shift for a in (start, stop))
            yield Ends(head, tail)

    def in_units(self, mean: np.ndarray) -> np.ndarray:
        """A mean (..., D) of values less the shift, as the recording's units have it."""
        n_lags = self.length
        return (mean + np.tile(self.shift, n_lags)) * self.scale + np.tile(self.stimulus.offset, n_lags)

    @property
    def scale(self) -> np.ndarray:
        """(D,) units a stored value."""
        return np.tile(self.stimulus.gain, self.length)
