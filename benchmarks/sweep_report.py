"""The tables (Markdown) and the figure of sweep.py, and which targets are reached."""

import math
from pathlib import Path
from typing import Any

from grids import SMALL
from spikes_report import show_seconds

from lazypipe.figures import BLUE, GREEN, GREY, VERMILION
from lazypipe.sizes import show_bytes

GAP = 1e-6
POINTS = 0.002  # of validation accuracy: 0.2 points
TOP = """# Regularization × sample size: lazypipe beside its peers

By `python benchmarks/sweep.py{quick}`: {machine}; {versions}.

{letters}

Logistic regression of entries / 255, {n_sizes} sizes ({sizes}) × {n_strengths} strengths C ({strengths}):
{n_cells} cells, each with its training and validation accuracy. Every contender ran in a process of its own, warm.
lazypipe goes from the .npy to the table, under a budget of {memory}: on one thread with the serial engine, on two
with Dask in process. scikit-learn has the rows / 255 as float32 in memory, its own default tolerance and no limit
of iterations; its way to two threads is the fastest of BLAS threads and joblib's processes and threads on a part.
GridSearchCV has one fold, the validation rows, and no refit. Spark has the rows cached in the JVM and takes no
accuracies. Seconds are {runs}; CPU-seconds are of all processes; × is the
time as a multiple of lazypipe's on as many threads. Memory is the peak, summed over processes.

A cell's true gap is (its objective − the optimum) / the optimum, in float64 at its own coefficients. The optima
are scikit-learn's in float64 ({solvers}, tol 1e-8), started where lazypipe ended; strong convexity bounds their own
gaps by {bound:.0e} (|dF/dW|² / 2λ, relative; their gradients in the intercepts are {intercepts:.0e} at most).
"""
WHOLE = """
## {what}

| contender | threads | setting | seconds | CPU-seconds | × | allocated | resident | planned | worst gap | > 1e-6 |
|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""
BY_SIZE = """
## Size by size, one thread

Seconds of all strengths of a size; passes and iterations are summed over them, gaps the largest of them.

| rows | lazypipe | passes | gap | scikit-learn | iterations | gap | × | bound of the optimum's gap |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""
SINGLES = """
## One size by itself, {n_strengths} strengths

| contender | threads | setting | {rows} |
|---|---:|---|{lines}|
"""
PRODUCTS = """
## Skinny products

A pass over {rows:,} rows in memory: rows (n × 784) by weights (784 × columns) and residuals (columns × n) by rows,
block by block as in a fit, GFLOP/s of float32; beside them the whole pass, softmax included, and square products
in the same run.

| threads | columns | rows × weights | residuals × rows | both | of GEMM | whole pass | of GEMM | GEMM |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""
SAMPLES = """
## Samples a second by mini-batches

A task a thread, each with one BLAS thread and its own rows in memory, batches of {batch}; a sample counts once for
all strengths of its task. Of the GEMM rate: 4 × weights additions and multiplications a sample and strength (mlp:
6 × those of the output layer).

| model | threads | strengths | rows × epochs | samples/s | × strengths | GFLOP/s | of GEMM |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
CURVES = """
## Learning curves

![learning curves of logistic, sgd and mlp](sweep_curves.png)

{models} at {n_sizes} sizes × {n_strengths} strengths on two threads, {epochs} epochs (1,000 steps at least) of sgd and
mlp ({hidden} hidden units): {seconds} s, {resident} resident at the peak, {planned} planned.
"""


def write(report: dict[str, Any], folder: Path) -> None:
    stages = report["stages"]
    told = Told(report)
    text = told.top() + told.targets()
    for part, what in (("whole", "The whole grid"), ("small", f"Sizes up to {SMALL:,} rows")):
        text += told.whole(part, what)
    text += told.by_size() + told.singles() + told.accuracies() + told.products() + told.samples() + told.curves()
    failed = [f"{name}: {stage['failure']}" for name, stage in stages.items() if stage.get("failure")]
    text += "".join(f"\nFailed: {line}.\n" for line in failed)
    (folder / "sweep.md").write_text(text)
    if told.gaps or told.part("lazypipe-1", "whole"):
        draw(told, folder / "sweep.png")
    print(text)


class Told:
    """A report, and what its tables say."""

    def __init__(self, report: dict[str, Any]):
        self.report, self.stages, self.asked = report, report["stages"], report["identity"]
        self.sizes, self.strengths = self.asked["sizes"], self.asked["strengths"]
        self.gaps = {line["label"]: cells_of(line) for line in self.lines("gaps") if "label" in line}
        told = next((line for line in self.lines("optima") if "cells" in line), {"cells": []})
        wanted = set(self.sizes)
        self.optima = {cell: row for cell, row in cells_of(told).items() if cell[0] in wanted}

    def lines(self, stage: str) -> list[dict[str, Any]]:
        return self.stages.get(stage, {}).get("lines", [])

    def part(self, run: str, part: str) -> dict[str, Any] | None:
        """What a run came to in a part; None where it came to nothing."""
        row = self.stages.get(run, {}).get("parts", {}).get(part)
        return row if row and "seconds" in row else None

    def times(self, run: str, part: str) -> float | None:
        """As a multiple of lazypipe's seconds on as many threads."""
        mine, ours = self.part(run, part), self.part(f"lazypipe-{run.rpartition('-')[2]}", part)
        return mine["seconds"] / ours["seconds"] if mine and ours else None

    @property
    def runs(self) -> list[str]:
        """By contender, then by threads."""
        return [name for name, stage in self.stages.items() if "parts" in stage]

    @property
    def threads(self) -> list[int]:
        return sorted({self.stages[run]["threads"] for run in self.runs})

    def top(self) -> str:
        report, optima = self.report, self.optima.values()
        return TOP.format(
            quick=" --quick" if self.asked["quick"] else "",
            runs="of one run" if self.asked["quick"] else "the median of three runs, or one of more than 20 s",
            machine=report["machine"].removeprefix("machine: "),
            versions=report["versions"], letters=report["letters"], memory=self.asked["memory"],
            n_sizes=len(self.sizes), sizes=", ".join(f"{size:,}" for size in self.sizes),
            n_strengths=len(self.strengths), strengths=", ".join(f"{C:g}" for C in self.strengths),
            n_cells=len(self.sizes) * len(self.strengths),
            solvers=" and ".join(sorted({cell["solver"] for cell in optima})) or "none yet",
            bound=max((cell["bound"] for cell in optima), default=math.nan),
            intercepts=max((cell["of_intercepts"] for cell in optima), default=math.nan),
        )  # fmt: skip

    def targets(self) -> str:
        """Each with what was found."""
        lines = [line for found in (self._speed(), self._quality(), self._rates(), self._memory()) for line in found]
        text = "\n## Targets\n\n| target | found | |\n|---|---|---|\n"
        return text + "".join(
            f"| {what} | {found} | {'reached' if good else '**missed**'} |\n" for what, found, good in lines
        )

    def _speed(self) -> list[tuple[str, str, bool]]:
        lines = []
        for part, what, goal in (("whole", "the whole grid", 15), ("small", f"n <= {SMALL:,}", 2)):
            for n in self.threads:
                ratio = self.times(f"scikit-{n}", part)
                if ratio is not None:
                    label = f"{what}, {count(n, 'thread')}: >= {goal} × scikit-learn"
                    lines.append((label, f"{ratio:.1f} ×", ratio >= goal))
        return lines

    def _quality(self) -> list[tuple[str, str, bool]]:
        ours = self.gaps.get("lazypipe-1")
        if not ours:
            return []
        lines = []
        worst = max(ours, key=lambda cell: ours[cell]["gap"])
        above = sum(row["gap"] > GAP for row in ours.values())
        label = f"every true gap <= {GAP:.0e} ({len(ours)} cells)"
        found = f"{ours[worst]['gap']:.1e} at {worst[0]:,} rows, C = {worst[1]:g}; {above} above"
        lines.append((label, found, above == 0))
        apart = self.apart("lazypipe-1")
        largest, differ = max(map(abs, apart.values())), sum(value != 0 for value in apart.values())
        label = "validation accuracy within 0.2 points of the optimum's, in every cell"
        found = f"{100 * largest:.2f} points at most; {differ} of {len(apart)} cells differ at all"
        return [*lines, (label, found, largest <= POINTS)]

    def apart(self, run: str) -> dict[tuple[int, float], float]:
        """Validation accuracy less that of the optimum; lazypipe's is the one its table says."""
        told = {cell: row["validation_accuracy"] for cell, row in self.gaps.get(run, {}).items()}
        if (whole := self.part(run, "whole")) is not None:
            said = {cell: row["validation_accuracy"] for cell, row in cells_of(whole).items()}
            told |= {cell: value for cell, value in said.items() if value is not None}
        return {
            cell: value - self.optima[cell]["validation_accuracy"]
            for cell, value in told.items()
            if cell in self.optima
        }

    def _rates(self) -> list[tuple[str, str, bool]]:
        lines = []
        for line in self.lines("products"):
            widest = max(line["products"], key=lambda row: row["columns"])
            for name, what in (("forward", "rows × weights"), ("transposed", "residuals × rows")):
                share = widest[name] / line["gemm"]
                label = f"{what}, {widest['columns']} columns, {count(line['threads'], 'thread')}: >= 40% of GEMM"
                lines.append((label, f"{share:.0%}", share >= 0.4))
        goals = {"sgd": 500_000, "mlp": 50_000}
        for line in self.lines("samples"):
            if "rate" in line and line["threads"] == 2 and line["strengths"] == 1:
                goal = goals[line["model"]]
                label = f"{line['model']}, one strength, two tasks at once: >= {goal:,} samples/s"
                lines.append((label, f"{line['rate']:,.0f}", line["rate"] >= goal))
        return lines

    def _memory(self) -> list[tuple[str, str, bool]]:
        lines = []
        for n in self.threads:
            if (row := self.part(f"lazypipe-{n}", "whole")) is not None:
                label = f"measured peak, {count(n, 'thread')}: at most the planned one"
                found = f"{show_bytes(row['resident'])} of {show_bytes(row['planned'])}"
                lines.append((label, found, row["resident"] <= row["planned"]))
        return lines

    def whole(self, part: str, what: str) -> str:
        sizes = [size for size in self.sizes if part == "whole" or size <= SMALL]
        text = WHOLE.format(what=f"{what}: {len(sizes) * len(self.strengths)} cells")
        n_rows = 0
        for run in self.runs:
            stage = self.stages[run]
            if part not in stage["parts"]:
                continue
            n_rows += 1
            row, times = stage["parts"][part], self.times(run, part)
            cells = [bold(stage), stage["threads"], row.get("setting", "")]
            if "seconds" not in row:
                cells += [no_answer(row), *[""] * 7]
            else:
                gaps = [told["gap"] for cell, told in self.gaps.get(run, {}).items() if cell[0] in sizes]
                cells += [
                    show_seconds(row["seconds"]), show_seconds(row["cpu"]), f"{times:.3g}" if times else "",
                    show_bytes(row["anonymous"]), show_bytes(row["resident"]),
                    show_bytes(row["planned"]) if row["planned"] else "",
                    f"{max(gaps):.1e}" if gaps else "",
                    f"{sum(gap > GAP for gap in gaps)} of {len(gaps)}" if gaps else "",
                ]  # fmt: skip
            text += line_of(cells)
        return (text + (self._notes() if part == "whole" else "")) if n_rows else ""

    def _notes(self) -> str:
        text = ""
        first, second = (self.part(f"lazypipe-{n}", "whole") for n in (1, 2))
        if first and second:
            one, other = ([without_seconds(row) for row in part["cells"]] for part in (first, second))
            said = "the same, bit for bit" if one == other else "NOT the same"
            text += f"\nlazypipe's tables on one thread and on two are {said}."
        if (equal := self.stages.get("lazypipe-1", {}).get("refit_equal")) is not None:
            text += (
                " The true gaps are of the same fits done once more, for their coefficients: their objectives are "
                + ("those of the timed ones, bit for bit." if equal else "NOT those of the timed ones.")
            )
        scikit = self.part("scikit-1", "whole")
        if first and scikit:
            alone = sum(row["seconds"] for row in scikit["cells"])
            ratio = alone / first["seconds"]
            text += f" scikit-learn's fits without their accuracies take {show_seconds(alone)} s on one thread, "
            text += f"{ratio:.1f} × all of lazypipe's."
        return f"{text}\n" if text else ""

    def by_size(self) -> str:
        ours, theirs = self.part("lazypipe-1", "whole"), self.part("scikit-1", "whole")
        if not ours:
            return ""
        text = BY_SIZE
        for size in self.sizes:
            mine, other = (
                [row for row in part["cells"] if row["size"] == size] if part else [] for part in (ours, theirs)
            )
            seconds = [sum(row["seconds"] for row in rows) for rows in (mine, other)]
            cells = [f"{size:,}", show_seconds(seconds[0]), sum(row["iterations"] for row in mine)]
            cells.append(self._worst("lazypipe-1", size))
            if other:
                cells += [
                    show_seconds(seconds[1]),
                    sum(row["iterations"] for row in other),
                    self._worst("scikit-1", size),
                ]
                cells.append(f"{seconds[1] / seconds[0]:.3g}")
            else:
                cells += [""] * 4
            bounds = [row["bound"] for (n, _), row in self.optima.items() if n == size]
            text += line_of([*cells, f"{max(bounds):.0e}" if bounds else ""])
        if theirs:
            text += "\nscikit-learn's seconds here are of its fits alone, lazypipe's of everything.\n"
        return text

    def _worst(self, run: str, size: int) -> str:
        gaps = [row["gap"] for (n, _), row in self.gaps.get(run, {}).items() if n == size]
        return f"{max(gaps):.1e}" if gaps else ""

    def singles(self) -> str:
        sizes = self.asked["singles"]
        runs = [run for run in self.runs if any(str(size) in self.stages[run]["parts"] for size in sizes)]
        if not runs or not sizes:
            return ""
        rows = " | ".join(f"{size:,} rows | × lazypipe | largest gap" for size in sizes)
        text = SINGLES.format(n_strengths=len(self.strengths), rows=rows, lines="|".join(["---:"] * 3 * len(sizes)))
        for run in runs:
            stage = self.stages[run]
            setting = next((row["setting"] for row in stage["parts"].values() if "setting" in row), "")
            cells = [bold(stage), stage["threads"], setting]
            for size in sizes:
                row, times = stage["parts"].get(str(size), {}), self.times(run, str(size))
                cells.append(f"{show_seconds(row['seconds'])} s" if "seconds" in row else no_answer(row))
                cells += [f"{times:.3g}" if times else "", self._worst(run, size)]
            text += line_of(cells)
        return text

    def accuracies(self) -> str:
        """How far each run is from the optimum's validation accuracy."""
        if not self.optima:
            return ""
        text = "\n## Validation accuracy beside the optimum's\n\n"
        text += "| contender | threads | cells | the same | within 0.2 points | largest difference, points |\n"
        text += "|---|---:|---:|---:|---:|---:|\n"
        for run in self.runs:
            if apart := self.apart(run):
                values = [abs(value) for value in apart.values()]
                stage = self.stages[run]
                near = sum(value <= POINTS for value in values)
                text += line_of(
                    [bold(stage), stage["threads"], len(values), values.count(0), near, f"{100 * max(values):.2f}"]
                )
        return text

    def products(self) -> str:
        lines = self.lines("products")
        if not lines:
            return ""
        text = PRODUCTS.format(rows=lines[0]["rows"])
        for line in lines:
            for row in line["products"]:
                share, of_pass = row["both"] / line["gemm"], row["pass"] / line["gemm"]
                cells = [f"{row[name]:.0f}" for name in ("forward", "transposed", "both")]
                cells += [f"{share:.0%}", f"{row['pass']:.0f}", f"{of_pass:.0%}", f"{line['gemm']:.0f}"]
                text += line_of([line["threads"], row["columns"], *cells])
        return text

    def samples(self) -> str:
        lines = [line for line in self.lines("samples") if "rate" in line]
        text = SAMPLES.format(batch=lines[0]["batch"]) if lines else ""
        for line in lines:
            flops = 4 * 784 * 10 if line["model"] == "sgd" else (4 * 784 + 6 * 10) * line["hidden"]
            rate = line["rate"] * line["strengths"]
            gflops = rate * flops / 1e9
            name = line["model"] if line["model"] == "sgd" else f"{line['model']}, 784-{line['hidden']}-10"
            text += line_of(
                [
                    name, line["threads"], line["strengths"], f"{line['rows']:,} × {line['epochs']}",
                    f"{line['rate']:,.0f}", f"{rate:,.0f}", f"{gflops:.0f}", f"{gflops / line['gemm']:.0%}",
                ]
            )  # fmt: skip
        failed = [line for line in self.lines("samples") if line.get("failure") or line.get("failed")]
        return text + "".join(f"\n{line['model']}: {line.get('failure') or line['failed']}\n" for line in failed)

    def curves(self) -> str:
        told = next((line for line in self.lines("curves") if "cells" in line), None)
        if told is None:
            return ""
        text = CURVES.format(
            models=", ".join(told["models"]), n_sizes=len({row["size"] for row in told["cells"]}),
            n_strengths=len(self.strengths), epochs=told["epochs"], hidden=f"{told['hidden']:,}",
            seconds=show_seconds(told["seconds"]), resident=show_bytes(told["resident"]),
            planned=show_bytes(told["planned"]),
        )  # fmt: skip
        text += "\n| model | best validation accuracy | rows | C | seconds of its cells |\n|---|---:|---:|---:|---:|\n"
        for model in told["models"]:
            rows = [row for row in told["cells"] if row["model"] == model]
            scored = [row for row in rows if row["validation_accuracy"] is not None]
            seconds = show_seconds(sum(row["seconds"] or 0 for row in rows))
            if scored:
                best = max(scored, key=lambda row: row["validation_accuracy"])
                text += line_of(
                    [model, f"{best['validation_accuracy']:.4f}", f"{best['size']:,}", f"{best['C']:g}", seconds]
                )
            else:
                text += line_of([model, "none", "", "", seconds])
        return text


def cells_of(line: dict[str, Any]) -> dict[tuple[int, float], dict[str, Any]]:
    return {(row["size"], row["C"]): row for row in line["cells"]}


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


def bold(stage: dict[str, Any]) -> str:
    return f"**{stage['title']}**" if stage["ours"] else stage["title"]


def no_answer(row: dict[str, Any]) -> str:
    return f"> {row['over']:g} s" if "over" in row else row.get("failure", "").replace("|", "/")


def count(n: int, what: str) -> str:
    return f"{'one' if n == 1 else 'two' if n == 2 else n} {what}{'s' * (n != 1)}"


def line_of(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def draw(told: Told, path: Path) -> None:
    """Seconds and true gaps over the size, on one thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for run, label, colour, marker in (
        ("lazypipe-1", "lazypipe", BLUE, "o"),
        ("scikit-1", "scikit-learn, a loop", GREY, "s"),
        ("search-1", "scikit-learn GridSearchCV", GREEN, "^"),
        ("spark-1", "Spark ML", VERMILION, "D"),
    ):
        if points := seconds_by_size(told, run):
            style = {"linestyle": "-" if run in ("lazypipe-1", "scikit-1") else "none"}
            left.plot(*zip(*sorted(points.items()), strict=True), color=colour, marker=marker, label=label, **style)
        gaps = told.gaps.get(run, {})
        if gaps:
            # What rounding leaves below the optimum is drawn at the least gap that the picture shows.
            values = [max(row["gap"], 1e-10) for row in gaps.values()]
            right.plot(
                [n for n, _ in gaps], values, color=colour, marker=marker, linestyle="none", alpha=0.7, label=label
            )
    left.set_ylabel(f"seconds of all {len(told.strengths)} strengths, one thread")
    right.set_ylabel("true gap of each cell, (F − F*) / F*, at least 1e-10")
    right.axhline(GAP, color=GREY, linestyle="--", linewidth=0.9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("training rows")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GREY, alpha=0.2, linewidth=0.6)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def seconds_by_size(told: Told, run: str) -> dict[int, float]:
    """Of the whole grid's run, or of single sizes where there is none."""
    whole = told.part(run, "whole")
    if whole is not None:
        found: dict[int, float] = {}
        for row in whole["cells"]:
            found[row["size"]] = found.get(row["size"], 0.0) + row["seconds"]
        return found
    parts = ((size, told.part(run, str(size))) for size in told.asked["singles"])
    return {size: row["seconds"] for size, row in parts if row}
