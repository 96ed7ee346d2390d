"""What soak.py found, as Markdown and a figure; and whether all is well."""

from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.figures import BLUE, GREY, VERMILION

TOP = """# A soak of scheduled runs

By `python benchmarks/soak.py --minutes {minutes:g} --runs {runs}`: {machine}; {versions}. Databases on {database}. Load
of the machine, per core, was {first:.1f} when it began and {last:.1f} when it ended, the benchmark's own work included.

{verdict}

- scheduled every {interval:.0f} s, {at_once} at a time; {begun} began and {completed} completed in {took:.1f} minutes
- {most} at once at most; results of {bits} kind{s} of bits in {results} folders; MLflow has {tracked}
- {errors} error lines in the log of the Prefect server

| of a run | median | longest |
|---|---:|---:|
"""
SECONDS = {
    "late": "from its time to a worker that takes it",
    "starting": "until its process runs the flow",
    "running": "the flow",
}
GROWTH = """
Growth an hour with its 95% interval, from minute means after the first fifth of the time; memory that processes share
counts once. "Files" are open file descriptors, sockets among them.

| server | memory | growth an hour | files | growth an hour | first, most, last |
|---|---:|---:|---:|---:|---:|
"""


def write(report: dict[str, Any], folder: Path) -> int:
    """The exit code: 0 where every run completed, two at a time, with the same bits, tracked once."""
    summary, asked = report["summary"], report["asked"]
    wrong = faults(report)
    tracked = ", ".join(f"{count} {state}" for state, count in report["tracked"].items())
    text = TOP.format(
        minutes=asked["minutes"], runs=asked["runs"], machine=report["machine"].removeprefix("machine: "),
        versions=report["versions"], database="PostgreSQL" if report["postgres"] else "SQLite", first=report["load"][0],
        last=report["load"][-1], verdict="\n".join(f"**{one}**" for one in wrong) or "Every run completed, once.",
        interval=60 * asked["minutes"] / asked["runs"], at_once=asked["at_once"], begun=summary["begun"],
        completed=summary["completed"], took=report["minutes"], most=summary["at_once"], bits=report["bits"],
        s="" if report["bits"] == 1 else "s", results=report["results"], tracked=tracked, errors=report["log_errors"],
    )  # fmt: skip
    for name, (median, most) in summary["seconds"].items():
        text += f"| {SECONDS[name]} | {median:.1f} s | {most:.1f} s |\n"
    text += GROWTH
    for name, grown in summary["growth"].items():
        memory, files = grown["memory"], grown["files"]
        edges = f"{grown['first_files']}, {grown['most_files']}, {grown['last_files']}"
        text += f"| {name} | {rate(memory, ' MiB')} | {rate(files, '')} | {edges} |\n"
    (folder / "soak.md").write_text(text)
    draw(report, folder / "soak.png")
    print(text)
    return 1 if wrong else 0


def faults(report: dict[str, Any]) -> list[str]:
    """What is not as it must be, a line each."""
    summary, found = report["summary"], []
    if summary["begun"] < report["asked"]["runs"]:
        found.append(f"Only {summary['begun']} of {report['asked']['runs']} runs began in time.")
    if failed := summary["failed"]:
        found.append(f"{len(failed)} did not complete: {failed[0]}")
    if summary["at_once"] > report["asked"]["at_once"]:
        found.append(f"{summary['at_once']} ran at once.")
    if report["bits"] != 1:
        found.append(f"Results of {report['bits']} kinds of bits.")
    if not failed and report["tracked"] != {"FINISHED": summary["completed"]}:
        found.append(f"MLflow has {report['tracked']}, Prefect {summary['completed']} completed.")
    return found


def rate(growth: dict[str, float] | None, unit: str) -> str:
    """Two cells: the mean, and how it grows."""
    if growth is None:
        return "| too short to tell"
    return f"{growth['mean']:,.0f}{unit} | {growth['per_hour']:+.1f} ± {growth['half_width']:.1f}{unit}"


def draw(report: dict[str, Any], path: Path) -> None:
    """Memory and open files of every server over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(report["samples"])
    figure = Figure(figsize=(9, 1.5 * len(names) + 0.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(names), 2, sharex=True, squeeze=False)
    for (left, right), name in zip(grid, names, strict=True):
        minutes, memory, files = np.array(report["samples"][name], dtype=float).T
        for axes, values, colour, of in ((left, memory, BLUE, "memory"), (right, files, VERMILION, "files")):
            axes.axvspan(0, minutes[-1] / 5, color=GREY, alpha=0.12, linewidth=0)
            axes.plot(minutes, values, color=colour, linewidth=1.2)
            axes.set_ylim(0, 1.25 * values.max())
            axes.set_xlim(0, minutes[-1])
            axes.spines[["top", "right"]].set_visible(False)
            grown = report["summary"]["growth"][name][of]
            if grown is not None:
                unit = " MiB" if of == "memory" else ""
                said = f"{grown['per_hour']:+.1f} ± {grown['half_width']:.1f}{unit} an hour"
                axes.text(0.99, 0.05, said, transform=axes.transAxes, ha="right", fontsize=8)
        left.set_title(name, loc="left", fontsize=9, fontweight="bold")
        left.set_ylabel("memory (MiB)", fontsize=8)
        right.set_ylabel("open files", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("time (minutes); grey: left out of the slopes")
    figure.savefig(path)
