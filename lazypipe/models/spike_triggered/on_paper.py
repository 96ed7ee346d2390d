"""A question about a recording and spikes that are not there, to plan for."""

from __future__ import annotations

from typing import cast

import numpy as np

from lazypipe.errors import PlanError
from lazypipe.io.on_paper import URI, matrix_on_paper
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.models.spike_triggered.question import Question, window_in_samples
from lazypipe.stats.spike_triggered import NanPolicy
from lazypipe.stats.windows import Clipped, Dropped, Edges, Windows


def question_on_paper(
    n_samples: int,
    n_channels: int,
    dtype: str,
    sampling_rate: float,
    window: tuple[float, float],
    n_units: int,
    n_spikes: int,
    window_unit: str = "samples",
    edges: str = "drop",
    nan: str = "raise",
) -> Question:
    """Of ``n_spikes`` spikes of each unit, whose windows are all whole; takes no memory."""
    if n_samples < 1:
        raise PlanError(f"{URI}: a recording without a sample. Give a longer duration.")
    recording = Recording(matrix_on_paper((n_samples, n_channels), dtype), sampling_rate)
    lags = before, after = window_in_samples(window, window_unit, sampling_rate)
    samples = np.broadcast_to(np.zeros(1, np.int64), n_units * n_spikes)
    of_units = np.arange(n_units + 1) * n_spikes
    none = np.zeros(0, np.int64)
    windows = Windows(samples, of_units, after - before, Clipped(*[none] * 5), max(after, 1) - before, edges == "nan")
    spikes = Spikes(np.arange(n_units), samples, of_units, URI)
    dropped = Dropped(*[np.zeros(n_units, np.int64)] * 3)
    return Question(recording, spikes, lags, windows, dropped, cast(Edges, edges), cast(NanPolicy, nan))
