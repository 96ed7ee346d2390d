"""The tables (Markdown) of overheads.py."""

from pathlib import Path
from typing import Any

TOP = """# What is spent beside the work

By `python benchmarks/overheads.py`: {machine}; {versions}.

Medians of {repeats} runs, each in a process of its own, after one that is not counted. Seconds are those on the clock;
CPU seconds those of the process itself until then, without servers, JVMs and workers. Load is that of the machine when
a part began, per core, from other work: what is on the clock grows with it, CPU seconds hardly do.
"""
FIRST = """
## To the first block

PCA of {rows:,} × {columns:,} float32, from the start of the process until its first block is folded. At "first pass"
the engine is open, the plan made and the run created in MLflow (SQLite). Load {busy}.

| engine | MLflow | first pass | first block | CPU | whole run |
|---|---|---:|---:|---:|---:|
"""
FLOW = """
## To the first block of a flow

The same on the engine serial as a Prefect flow; "called" is when the flow is, with Python and Prefect imported. Load
{busy}.

| Prefect | called | first block | from the call to the block | CPU | whole run |
|---|---:|---:|---:|---:|---:|
"""
CHILDREN = """
## A run below an MLflow run

With 2 parameters and 4 metrics, as a sweep logs one for each size: {n} of them. Load {busy}.

| store | median | largest |
|---|---:|---:|
"""
ENGINES = """
## Dask against Spark

Covariance of {rows:,} × {columns:,} float32 ({gigabytes:.1f} GB, warm) under {memory}, one plan: the same tasks, the
same order of sums. "Opened" is until the engine can be used: for Spark the start of a JVM. "First" is the first run on
it, where workers import and start; × is the time as a multiple of Dask's on the same kind of place. Load {busy}.

| engine | opened | first | seconds | × Dask | bits |
|---|---:|---:|---:|---:|---|
"""


def write(report: dict[str, Any], folder: Path) -> None:
    busy = report["busy"]
    text = TOP.format(**{**report, "machine": report["machine"].removeprefix("machine: ")})
    if "first" in report:
        rows, columns = report["small"]
        text += FIRST.format(rows=rows, columns=columns, busy=busy["first"])
        for row in report["first"]:
            mlflow = "yes" if row["mlflow"] else "no"
            text += line(row["title"], mlflow, *(seconds(row[name]) for name in ("stage", "block", "cpu", "end")))
    if "flow" in report:
        text += FLOW.format(busy=busy["flow"])
        for row in report["flow"]:
            names = ("called", "block", "from_call", "cpu", "end")
            text += line(row["title"], *(seconds(row[name]) for name in names))
    if "children" in report:
        text += CHILDREN.format(n=report["children"][0]["n"], busy=busy["children"])
        for row in report["children"]:
            text += line(row["title"], *(f"{1000 * row[name]:.0f} ms" for name in ("each", "largest")))
    if "engines" in report:
        text += engines(report["engines"], busy["engines"])
    (folder / "overheads.md").write_text(text)


def engines(part: dict[str, Any], busy: float) -> str:
    rows, (n, d) = part["rows"], part["shape"]
    text = ENGINES.format(rows=n, columns=d, gigabytes=4e-9 * n * d, memory=part["memory"], busy=busy)
    bits = {one for row in rows for one in row["bits"]}
    for row in rows:
        dask = next(other for other in rows if other["kind"] == "dask" and other["cluster"] == row["cluster"])
        same = "the same" if len(bits) == 1 else ", ".join(one[:8] for one in row["bits"])
        times = f"{row['seconds'] / dask['seconds']:.2f}"
        text += line(row["title"], *(seconds(row[name]) for name in ("opened", "first", "seconds")), times, same)
    return text


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"
