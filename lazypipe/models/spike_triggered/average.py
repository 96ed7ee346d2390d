"""Spike-triggered averages of all units over all channels, in one reading of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.building import place_of
from lazypipe.checkpoint import local_folder
from lazypipe.checks import require_restart
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError
from lazypipe.models.spike_triggered.job import Job
from lazypipe.models.spike_triggered.question import Question, ask
from lazypipe.models.spike_triggered.result import SpikeTriggeredAverage
from lazypipe.plan import Plan
from lazypipe.stats.spike_triggered import SpikeTriggered, panel_width
from lazypipe.stores import AnyPath

RESULTS = ("float64", "float32")


def spike_triggered_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    window_unit: str = "samples",
    edges: str = "drop",
    weights: str = "count",
    nan: str = "raise",
    exclude: Sequence[tuple[int, int]] = (),
    spread: bool = True,
    ddof: int = 1,
    dtype: str = "float64",
    chunk_length: int | None = None,
    state: str | Path | None = None,
    restart: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> SpikeTriggeredAverage:
    """Mean, standard deviation and standard error of a recording around the spikes of each unit.

    Parameters
    ----------
    recording : Recording, path or array: (n_samples,), (n_samples, n_channels) or (n_samples, height, width).
    spikes : Spikes, path, {unit: samples} or samples (n,) of one unit.
    window : (start, stop) from the spike, half open: (-149, 1) ends with the spike's own sample.
    window_unit : "samples", or "s" or "ms", rounded to samples once.
    edges : windows that reach beyond the recording, a gap or what is excluded: "drop" them, or use the lags that
        were recorded ("nan": a lag that none has is NaN).
    weights : several spikes of a unit in one sample "count" each, or as one ("binary").
    nan : a value that is not finite within a window is an error ("raise"), a reason to leave the window out, all
        its channels ("omit"), or spoils its lag and channel alone ("propagate").
    exclude : (start, stop) intervals in samples, half open, that no window may touch, as if they were gaps.
    spread : False computes the mean alone, in half the memory.
    ddof : the variance divides by n - ddof.
    dtype : of mean and deviation, "float64" or "float32"; sums are exact, or in float64, before that.
    chunk_length : samples a block; None takes what suits the budget. Changes no bit of the answer.
    state : a folder that keeps the sums after every epoch of blocks. Called again after a kill it redoes one; on
        a recording that grew it reads the new samples alone. ``restart`` forgets it first.
    out : a new Zarr store, ``sta.zarr``: write mean and deviation there, a tile of units (and channels) a task, for
        averages larger than memory; they are read where they are indexed. Killed and called again, it goes on
        with the tiles that are missing. ``overwrite`` replaces a store that is there.
    engine : from ``open_engine``; None works on threads of this process.

    Returns
    -------
    SpikeTriggeredAverage with ``unit_ids``, ``lags``, ``times``, ``mean``, ``std``, ``sem``, ``n_used``,
    ``n_dropped``; in the recording's units (µV) where it tells them.

    Notes
    -----
    One pass over the recording where the sums of all units fit the budget a few times, else a pass a tile of
    units (and channels); see ``plan_spike_triggered_average``. Integers of 16 bits or fewer are summed as
    integers, exactly; floats in float64 about a value of the data. Memory: blocks, and 8 bytes (12 where squares
    grow beyond 32 bits) a sum of integers, 16 of floats; independent of the recording's length but for 16 bytes
    a spike. The estimator is that of Dayan & Abbott, Theoretical Neuroscience (2001), chapter 1.

    Raises
    ------
    ConfigError, MemoryPlanError : before any data is read.
    DataError : spikes and recording that do not fit together, NaN, a state of something else, data that changed.
    """
    require_restart(state, restart)
    question = ask(recording, spikes, window, window_unit, edges, weights, nan, exclude)
    with engine_or_own(engine) as running:
        statistic = _statistic(question, spread, ddof, dtype)
        job = Job(question, statistic, running, chunk_length, *_places(state, restart, out))
        planned, plan = job.plan()
        n_new = question.recording.n_samples
        if job.out is not None:
            found = job.write(planned, plan, overwrite)
        elif job.state is not None:
            found, n_new = job.resume(planned)
        else:
            found = job.compute(planned)
    n_lags = len(question.lags)
    used = found.used[:, 0] if edges == "drop" else np.broadcast_to(found.used, (len(found.used), n_lags)).copy()
    dropped = question.dropped_with(found.not_finite)
    return SpikeTriggeredAverage(
        question.spikes.unit_ids, question.lags, found.mean, found.std, used, dropped, question.recording, plan, n_new
    )


def plan_spike_triggered_average(
    recording: Any,
    spikes: Any,
    window: tuple[float, float],
    *,
    engine: Engine,
    spread: bool = True,
    ddof: int = 1,
    dtype: str = "float64",
    chunk_length: int | None = None,
    state: str | Path | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Plan:
    """What ``spike_triggered_average`` would take on ``engine``: from metadata and the spikes."""
    question = ask(recording, spikes, window, **options)
    return plan_question(question, engine, spread, ddof, dtype, chunk_length, state, out)


def plan_question(
    question: Question,
    engine: Engine,
    spread: bool = True,
    ddof: int = 1,
    dtype: str = "float64",
    chunk_length: int | None = None,
    state: str | Path | None = None,
    out: str | Path | None = None,
) -> Plan:
    """The same of a question that is asked already."""
    statistic = _statistic(question, spread, ddof, dtype)
    return Job(question, statistic, engine, chunk_length, *_places(state, False, out)).plan()[1]


def _places(
    state: str | Path | None, restart: bool, out: str | Path | None
) -> tuple[Path | None, bool, AnyPath | None]:
    """Where the sums are saved and the result is written, checked."""
    if out is None:
        return None if state is None else local_folder(state), restart, None
    if state is not None:
        raise ConfigError("state: a store on disk (out=, --arrays) keeps its own state. Leave state out.")
    if place_of(out).suffix not in ("", ".zarr"):
        raise ConfigError(f"out (--arrays): {str(out)!r} is no .zarr, which averages are written to. Name it sta.zarr.")
    return None, False, place_of(out)


def _statistic(question: Question, spread: bool, ddof: int, dtype: str) -> SpikeTriggered:
    if dtype not in RESULTS:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(RESULTS)}.")
    if not isinstance(ddof, int | float | np.integer | np.floating) or not ddof >= 0:
        raise ConfigError(f"ddof: {ddof!r} is no number of 0 or above. Use 1 (unbiased) or 0.")
    if isinstance(ddof, np.generic):
        ddof = ddof.item()  # as records take it
    recording = question.recording
    panel = panel_width(question.windows, recording.n_samples, recording.n_channels)
    return SpikeTriggered(
        question.windows, recording.columns, recording.dtype.name, None, spread, ddof, question.nan, dtype, panel
    )
