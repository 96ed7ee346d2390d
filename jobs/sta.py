"""Spike-triggered averages: ``python -m jobs sta --source rec.npy --spikes spikes.npz --window -149 1``."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import Config, RunConfig, restart_of_a_state
from jobs._recording import Inputs, RecordingConfig, open_inputs
from jobs._run import Answer, Result, Work
from jobs._tables import aligned, markdown
from lazypipe.engines import Engine
from lazypipe.models.spike_triggered.record import UnitLine, group_of, lines_of, table_of
from lazypipe.plan import Plan
from lazypipe.progress import PassDone

if TYPE_CHECKING:
    from lazypipe.models.spike_triggered.significance import Significance

HEAD = ("unit", "used", "dropped", "channel", "peak at", "peak", "baseline", "z")
REASONS = {
    "edge": "beyond an edge",
    "gap": "across a gap or an excluded stretch",
    "nan": "with a value that is not finite",
    "beyond_end": "beyond the end",
}
SHOWN = 12  # units in the summary
REPORTED = 24  # and in the report, and on the page of the run
LOGGED = 20  # units with metrics of their own; past about 100 metrics MLflow's pages slow down


class AverageConfig(Config):
    """What is made of the windows."""

    spread: bool = Field(
        True, description="standard deviation and standard error, too; false: the mean alone, in half the memory"
    )
    ddof: int = Field(1, ge=0, description="the variance divides by the number of spikes less ddof")
    result_dtype: Literal["float64", "float32"] = Field(
        "float64", description="type of mean and standard deviation as they are saved"
    )
    chunk_length: int | None = Field(
        None, ge=1, description="samples read at a time; without it what suits the budget; changes no bit of the answer"
    )
    significance: bool = Field(
        False,
        description="test each lag of each unit's best channel against all circular shifts of its spikes, with a "
        "confidence band by bootstrap; two more passes over the recording, or two for each group of units that fits",
    )
    level: float = Field(
        0.05, gt=0, lt=1, description="with significance: rate of false discoveries among the lags of a unit"
    )
    confidence: float = Field(
        0.95, gt=0, lt=1, description="with significance: share of the bootstrap's means that the band holds"
    )
    n_bootstrap: int = Field(1000, ge=1, description="with significance: how often the bootstrap draws")
    seed: int = Field(0, ge=0, description="with significance: of the bootstrap's random draws")

    @field_validator("significance")
    @classmethod
    def _of_whole_windows(cls, value: bool, info: ValidationInfo) -> bool:
        edges, nan = info.data.get("edges"), info.data.get("nan")
        if value and (edges == "nan" or nan == "propagate"):
            raise ValueError(
                f"needs whole windows, not edges={edges} with nan={nan}. Use edges=drop, nan=raise or omit"
            )
        return value


class StaConfig(RunConfig, AverageConfig, RecordingConfig):
    r"""The average of a recording around the spikes of each unit (neuron), with its spread: what a cell saw before
    it fired, its waveform on a probe, or what a field potential did around it.

      python -m jobs sta --source rec.dat --n-channels 384 --dtype int16 --sampling-rate 30000 --gain 2.34 --unit µV \
        --spikes spikes.npz --window -1 2 --window-unit ms --out results/waveforms

    spikes.npz holds, for each spike, its sample and its unit: numpy.savez("spikes.npz", samples=..., units=...).
    """

    state: str | None = Field(
        None,
        min_length=1,
        description="folder that keeps the sums so far: after a kill the job goes on where it was, and on a recording "
        "that grew it reads the new samples alone",
    )
    restart: bool = Field(False, description="forget what the state folder holds, and start over")
    arrays: str | None = Field(
        None,
        min_length=1,
        description="write mean and standard deviation to this .zarr as they are made, where they are larger than "
        "memory; killed and started again, the job goes on with what is missing",
    )

    _restarts = field_validator("restart")(restart_of_a_state)


def run(config: StaConfig) -> Result:
    """Average, save ``sta.zarr`` (mean, std and sem: units x lags x channels) and ``counts.csv``, and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: StaConfig) -> Plan | Result:
    """What ``run`` would take, from metadata and the spikes."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The result as a short table: a line a unit."""
    figures = result.figures
    print("\n".join(aligned(rows(figures, SHOWN))))
    if len(figures["units"]) > SHOWN:
        print(f"... {len(figures['units']) - SHOWN:,} more units in counts.csv")
    dropped = ", ".join(f"{n:,} {REASONS.get(why, why)}" for why, n in figures["n_dropped"].items() if n)
    left_out = f"; left out: {dropped}" if dropped else ""
    print(f"spikes    {figures['n_used']:,} of {figures['n_spikes']:,} used{left_out}")
    (start, stop), rate = figures["window"], figures["sampling_rate"]
    time = f", {1000 * start / rate:g} to {1000 * (stop - 1) / rate:g} ms" if rate else ""
    unit = figures["unit"] or "units of the data"
    print(f"lags      {stop - start:,}: {start:,} to {stop - 1:,} samples{time}; values in {unit}")
    if figures["arrays"]:
        print(f"arrays    {figures['arrays']}: zarr.open_group reads any part of mean and std")
    n_samples, n_new = figures["source"]["shape"][0], figures["n_new_samples"]
    read = "" if n_new == n_samples else f", {n_new:,} read, the others were in the state"
    passes = f"{figures['passes']} pass{'es' * (figures['passes'] != 1)}"
    print(f"samples   {n_samples:,}{read}; {passes}, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def rows(figures: dict[str, Any], most: int) -> list[tuple[str, ...]]:
    """The head of the summary, and as many units; z where it was asked for."""
    n_cells = len(HEAD) if figures["config"]["significance"] else len(HEAD) - 1
    return [row[:n_cells] for row in (HEAD, *map(_cells, figures["units"][:most]))]


def _cells(unit: dict[str, Any]) -> tuple[str, ...]:
    """What a summary tells of a unit, in the order of ``HEAD``."""
    counts = str(unit["unit"]), f"{unit['used']:,}", f"{sum(unit[f'dropped_{why}'] for why in REASONS):,}"
    if unit["peak_value"] is None:
        return *counts, "-", "-", "-", "-", "-"
    ms = unit["peak_lag_ms"]
    lag = f"{unit['peak_lag']:,} samples" if ms is None else f"{round(ms, 3):g} ms"
    peak = f"{unit['peak_value']:.5g}", f"{unit['baseline']:.5g}", "-" if unit["z"] is None else f"{unit['z']:.1f}"
    return *counts, str(unit["best_channel"]), lag, *peak


def table(figures: dict[str, Any]) -> list[str]:
    """A line a unit as a markdown table, the rest counted."""
    shown = rows(figures, REPORTED)
    left = figures["n_units"] - (len(shown) - 1)
    return [*markdown(shown), *(["", f"{left:,} more units are in counts.csv."] if left else [])]


def main(argv: list[str] | None = None) -> int:
    return command("sta", StaConfig, run, argv, show)


def work_of(config: StaConfig) -> Work:
    import zarr  # noqa: F401  # which the result is written with: before the plan counts the memory of libraries

    windows: dict[str, Any] = {name: getattr(config, name) for name in ("window_unit", "edges", "weights", "nan")}
    options = windows | {name: getattr(config, name) for name in ("spread", "ddof", "chunk_length", "state")}
    options |= {"dtype": config.result_dtype, "out": config.arrays}

    notes = ["significance is planned once the best channels are known; two more passes, or two a group of units"]
    notes *= config.significance

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        found = lp.plan_spike_triggered_average(
            inputs.recording, inputs.spikes, config.window, exclude=inputs.exclude, engine=engine, **options
        )
        return replace(found, notes=(*found.notes, *notes))

    def average(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        sta = lp.spike_triggered_average(
            inputs.recording,
            inputs.spikes,
            config.window,
            exclude=inputs.exclude,
            restart=config.restart,
            overwrite=config.overwrite,
            engine=engine,
            **options,
        )
        return _answer(config, inputs, sta, tested(inputs, engine, sta) if config.significance else None)

    def tested(inputs: Inputs, engine: Engine, sta: lp.SpikeTriggeredAverage) -> Significance:
        from lazypipe.models.spike_triggered.significance import spike_triggered_significance

        names = ("level", "confidence", "n_bootstrap", "seed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lp.DroppedSpikesWarning)  # told by the average
            return spike_triggered_significance(
                inputs.recording,
                inputs.spikes,
                config.window,
                exclude=inputs.exclude,
                average=sta,
                engine=engine,
                **windows,
                **{name: getattr(config, name) for name in names},
            )

    if config.significance:  # loaded before the plan is made, which counts the memory of libraries
        import lazypipe.models.spike_triggered.significance  # noqa: F401
    return Work("sta", planned, average, config.arrays, lambda: open_inputs(config))


def _answer(
    config: StaConfig, inputs: Inputs, sta: lp.SpikeTriggeredAverage, significance: Significance | None
) -> Answer:
    from lazypipe.figures import spike_triggered, units

    lines = lines_of(sta, inputs.spikes, significance)
    n_dropped = {why: int(n.sum()) for why, n in sta.n_dropped.items()}
    counts = {
        "n_units": len(lines),
        "n_spikes": sum(line.spikes for line in lines),
        "n_used": sum(line.used for line in lines),
        "n_new_samples": sta.n_new_samples,
    }
    plan = sta.plan if significance is None else _plan_of_both(sta, significance)
    figures = counts | {
        "n_dropped": n_dropped,
        "units": [line.cells() for line in lines],
        "window": [int(sta.lags[0]), int(sta.lags[-1]) + 1],
        "sampling_rate": sta.recording.sampling_rate,
        "unit": sta.recording.unit,
        "spikes": {"uri": inputs.spikes.uri, "n_spikes": len(inputs.spikes.samples)},
        "passes": plan.passes,
        "arrays": config.arrays,
    }
    metrics = {name: float(n) for name, n in counts.items()}
    metrics |= {f"n_dropped_{why}": float(n) for why, n in n_dropped.items()}
    for line in lines[:LOGGED]:
        metrics |= _metrics(line)
    told = {"spikes": inputs.spikes.uri, "edges": config.edges, "weights": config.weights, "ddof": config.ddof}
    return Answer(
        model=sta,
        plan=plan,
        arrays={},
        figures=figures,
        metrics=metrics,
        pictures=lambda: {"sta.png": spike_triggered(sta, significance), "units.png": units(sta, significance)},
        tables={"counts": table_of(lines)},
        note="\n".join(table(figures | {"config": {"significance": config.significance}})),
        groups={"sta": group_of(sta, told, significance, is_stored=config.arrays is not None)},
    )


def _plan_of_both(sta: lp.SpikeTriggeredAverage, significance: Significance) -> Plan:
    """One plan for the average and the test of its lags, during which an average in memory is held."""
    first, second = sta.plan, significance.plan
    held = first.output_nbytes if isinstance(sta.mean, np.ndarray) else 0
    later = tuple(replace(fold, reserved=fold.reserved + held) for fold in second.folds)
    return replace(
        first,
        folds=first.folds + later,
        passes=(first.passes or 1) + (second.passes or 1),
        output_nbytes=first.output_nbytes + second.output_nbytes,
    )


def _metrics(line: UnitLine) -> dict[str, float]:
    """Of one unit, by a name that MLflow takes."""
    name = re.sub(r"[^\w.\- ]", "_", str(line.unit), flags=re.ASCII)
    values = {"peak": line.peak_value, "peak_lag_ms": line.peak_lag_ms, "used": line.used, "z": line.z}
    return {f"unit_{name}/{what}": float(value) for what, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
