"""Spike-triggered averages: ``python -m jobs sta --source rec.npy --spikes spikes.npz --window -149 1``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import RunConfig
from jobs._recording import Inputs, RecordingConfig, open_inputs
from jobs._run import Answer, Result, Work
from lazypipe.engines import Engine
from lazypipe.models.spike_triggered.record import UnitLine, group_of, lines_of, table_of
from lazypipe.plan import Plan
from lazypipe.progress import PassDone

HEAD = ("unit", "used", "dropped", "channel", "peak at", "peak", "baseline")
REASONS = {
    "edge": "beyond an edge",
    "gap": "across a gap",
    "nan": "with a value that is not finite",
    "beyond_end": "beyond the end",
}
SHOWN = 12  # units in the summary
LOGGED = 20  # units with metrics of their own; past about 100 metrics MLflow's pages slow down


class StaConfig(RunConfig, RecordingConfig):
    """The average of a recording around the spikes of each unit, with its spread: what the cell saw before it
    fired, or what the field did around it.

      python -m jobs sta --source rec.dat --n-channels 384 --dtype int16 --sampling-rate 30000 --gain 2.34 --unit µV \\
        --spikes spikes.npz --window -1 2 --window-unit ms --out results/waveforms

    spikes.npz holds samples and units of the same length: numpy.savez("spikes.npz", samples=..., units=...).
    """

    spread: bool = Field(
        True, description="standard deviation and error, too; false: the mean alone, in half the memory"
    )
    ddof: int = Field(1, ge=0, description="the variance divides by spikes - ddof")
    result_dtype: Literal["float64", "float32"] = Field("float64", description="type of mean and deviation")
    chunk_length: int | None = Field(
        None, ge=1, description="samples a block; without it what suits the budget; changes no bit of the answer"
    )
    state: str | None = Field(
        None,
        description="folder that keeps the sums: after a kill the job goes on where it was, and on a recording that "
        "grew it reads the new samples alone",
    )
    restart: bool = Field(False, description="forget what the state folder holds, and start over")


def run(config: StaConfig) -> Result:
    """Average, save ``sta.zarr`` (mean, std and sem: units x lags x channels) and ``counts.csv``, and log the run."""
    return _run.carry_out(config, _work(config))


def plan(config: StaConfig) -> Plan:
    """What ``run`` would take, from metadata and the spikes."""
    return _run.plan(config, _work(config))


def show(result: Result) -> None:
    """The result as a short table: a line a unit."""
    figures = result.figures
    print("\n".join(_aligned([HEAD, *map(cells, figures["units"][:SHOWN])])))
    if len(figures["units"]) > SHOWN:
        print(f"... {len(figures['units']) - SHOWN:,} more units in counts.csv")
    dropped = ", ".join(f"{n:,} {REASONS.get(why, why)}" for why, n in figures["n_dropped"].items() if n)
    print(
        f"spikes    {figures['n_used']:,} of {figures['n_spikes']:,} used"
        + (f"; left out: {dropped}" if dropped else "")
    )
    (start, stop), rate = figures["window"], figures["sampling_rate"]
    time = f", {1000 * start / rate:g} to {1000 * (stop - 1) / rate:g} ms" if rate else ""
    unit = figures["unit"] or "units of the data"
    print(f"lags      {stop - start:,}: {start:,} to {stop - 1:,} samples{time}; values in {unit}")
    n_samples = figures["source"]["shape"][0]
    told = (
        ""
        if figures["n_new_samples"] == n_samples
        else f", {figures['n_new_samples']:,} read, the others were in the state"
    )
    passes = f"{figures['passes']} pass{'es' * (figures['passes'] != 1)}"
    print(f"samples   {n_samples:,}{told}; {passes}, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def cells(unit: dict[str, Any]) -> tuple[str, ...]:
    """What the summary tells of a unit."""
    counts = str(unit["unit"]), f"{unit['used']:,}", f"{sum(unit[f'dropped_{why}'] for why in REASONS):,}"
    if unit["peak_value"] is None:
        return *counts, "-", "-", "-", "-"
    ms = unit["peak_lag_ms"]
    lag = f"{unit['peak_lag']:,} samples" if ms is None else f"{round(ms, 3):g} ms"
    return *counts, str(unit["best_channel"]), lag, f"{unit['peak_value']:.5g}", f"{unit['baseline']:.5g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def main(argv: list[str] | None = None) -> int:
    return command("sta", StaConfig, lambda config: show(run(config)), argv)


def _work(config: StaConfig) -> Work:
    names = ("window", "window_unit", "edges", "weights", "nan", "spread", "ddof", "chunk_length", "state")
    options: dict[str, Any] = {name: getattr(config, name) for name in names} | {"dtype": config.result_dtype}

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        return lp.plan_spike_triggered_average(
            inputs.recording, inputs.spikes, engine=engine, exclude=inputs.exclude, **options
        )

    def average(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        sta = lp.spike_triggered_average(
            inputs.recording, inputs.spikes, engine=engine, exclude=inputs.exclude, restart=config.restart, **options
        )
        return _answer(config, inputs, sta)

    return Work("sta", planned, average, open=lambda: _opened(config))


def _opened(config: StaConfig) -> Inputs:
    """The inputs; and the kernel compiled (100 MiB of numba and LLVM) for the plan to count among the libraries."""
    inputs = open_inputs(config)
    with lp.open_engine("serial") as engine:
        lp.spike_triggered_average(np.zeros((3, 1), inputs.dtype), [1], (0, 1), spread=config.spread, engine=engine)
    return inputs


def _answer(config: StaConfig, inputs: Inputs, sta: lp.SpikeTriggeredAverage) -> Answer:
    from lazypipe.figures import spike_triggered, units

    lines = lines_of(sta, inputs.spikes)
    n_dropped = {why: int(n.sum()) for why, n in sta.n_dropped.items()}
    figures = {
        "n_units": len(lines),
        "n_spikes": sum(line.spikes for line in lines),
        "n_used": sum(line.used for line in lines),
        "n_dropped": n_dropped,
        "units": [line.cells() for line in lines],
        "window": [int(sta.lags[0]), int(sta.lags[-1]) + 1],
        "sampling_rate": sta.recording.sampling_rate,
        "unit": sta.recording.unit,
        "spikes": {"uri": inputs.spikes.uri, "n_spikes": len(inputs.spikes.samples)},
        "n_new_samples": sta.n_new_samples,
        "passes": sta.plan.passes,
    }
    metrics = {name: float(figures[name]) for name in ("n_units", "n_spikes", "n_used", "n_new_samples")}
    metrics |= {f"n_dropped_{why}": float(n) for why, n in n_dropped.items()}
    for line in lines[:LOGGED]:
        metrics |= _metrics(line)
    attributes = {"spikes": inputs.spikes.uri, "edges": config.edges, "weights": config.weights, "ddof": config.ddof}
    return Answer(
        model=sta,
        plan=sta.plan,
        arrays={},
        figures=figures,
        metrics=metrics,
        pictures=lambda: {"sta.png": spike_triggered(sta), "units.png": units(sta)},
        tables={"counts": table_of(lines)},
        groups={"sta": group_of(sta, attributes)},
    )


def _metrics(line: UnitLine) -> dict[str, float]:
    """Of one unit, by a name that MLflow takes."""
    name = re.sub(r"[^\w.\- ]", "_", str(line.unit), flags=re.ASCII)
    values = {"peak": line.peak_value, "peak_lag_ms": line.peak_lag_ms, "used": line.used}
    return {f"unit_{name}/{what}": float(value) for what, value in values.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
