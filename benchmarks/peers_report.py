"""The tables (Markdown) and the figure of peers.py."""

from pathlib import Path
from typing import Any

from lazypipe.figures import BLUE, GREY, VERMILION
from lazypipe.sizes import show_bytes

MAPPED_ALPHA = 0.3
POOR = 1e-5  # an error of a covariance that a reader has to know of
# What a reader may compare: contenders that reached the same accuracy.
CLASSES = (
    (1e-6, "subspace angle to float64 up to 1e-6"),
    (1e-3, "angle up to 1e-3"),
    (float("inf"), "angle above 1e-3, or no answer"),
)

TALL = """
## Covariance of {shape}, float32

GFLOP/s are of N D (D + 1) useful operations; % of float32 GEMM on all cores in this run ({gemm:.0f} GFLOP/s).
× is the time per row as a multiple of lazypipe's on Dask. The error is the largest, in units of s_i s_j, against
float64. MLlib ran on the rows named; its seconds for all of them are at that rate.

| contender | setting | seconds | GFLOP/s | of GEMM | × lazypipe | anonymous | resident | error |
|---|---|---:|---:|---:|---:|---:|---:|---:|
"""
WIDE = """
## PCA of {shape}, float32, ten components, eigenvalues about 1/i

The angle is the largest between the spaces of the components found and of those in float64. × is the time as a
multiple of the fastest lazypipe run that reached 1e-6, 1e-3 or any angle, as the contender did. Passes are times
that the data are gone through, from the file or in memory. MLlib ran on every n-th column, to the width named; its
seconds for all of them are at that rate; above 65,535 columns it does not centre, so its rows were centred before.
`covariance_eigh` needs the D x D matrix, {square}, and is not offered on the shorter side.

| contender | setting | seconds | passes | angle | × lazypipe | anonymous | resident |
|---|---|---:|---:|---:|---:|---:|---:|
"""


def write(report: dict[str, Any], folder: Path) -> None:
    lines = [
        "# lazypipe beside its peers",
        "",
        f"By `python benchmarks/peers.py`: {report['machine'].removeprefix('machine: ')}; {report['versions']}.",
        "",
        "Each contender ran in a process of its own on all cores, on a file that the page cache holds, with the best",
        "of a few settings found by a short trial; seconds are the median of three runs, or one of more than 20 s,",
        "from the file to the answer (of MLlib: from rows cached in the JVM). Memory is the peak of that process while",
        "it ran; of Spark the sum over the JVM, which fills the heap that it is given, and the Python workers.",
        "Resident memory counts the mapped pages of the file too, which the system takes back when others need them.",
    ]
    text = "\n".join(lines) + "\n"
    for kind, heading in (("tall", TALL), ("wide", WIDE)):
        if kind in report:
            part = report[kind]
            judge(kind, part)
            n, d = part["shape"]
            text += heading.format(shape=f"{n:,} x {d:,}", gemm=part["gemm"], square=show_bytes(4 * d * d))
            text += "".join(table_row(kind, row, part, report["limit"]) for row in part["rows"])
    (folder / "peers.md").write_text(text)
    draw(report, folder / "peers.png")
    print(text)


def judge(kind: str, part: dict[str, Any]) -> None:
    """Give every row the seconds for the whole matrix, its class and its multiple of lazypipe's time."""
    n, d = part["shape"]
    for row in part["rows"]:
        row["class"] = len(CLASSES) - 1
        if "seconds" in row:
            row["of_all"] = row["shape"][0] * row["shape"][1] / (n * d)
            row["whole"] = row["seconds"] / row["of_all"]
            if kind == "wide":
                row["class"] = next(i for i, (goal, _) in enumerate(CLASSES) if row["accuracy"] <= goal)
    done = [row for row in part["rows"] if "whole" in row]
    for row in done:
        ours = [o["whole"] for o in done if o["ours"] and o["class"] <= row["class"]]
        if kind == "tall":
            ours = [o["whole"] for o in done if o["name"] == "lazypipe_dask"]
        if ours:
            row["times"] = row["whole"] / min(ours)


def table_row(kind: str, row: dict[str, Any], part: dict[str, Any], limit: float) -> str:
    title = f"**{row['title']}**" if row["ours"] else row["title"]
    setting = row.get("setting", "")
    memory = [show_bytes(row[key]) if key in row else "" for key in ("anonymous", "resident")]
    if "seconds" not in row:
        what = f"> {limit:g} s" if "over" in row else row["failure"].replace("|", "/")
        cells = [title, setting, what, *[""] * 3, *memory]
        return "| " + " | ".join(cells + ([""] if kind == "tall" else [])) + " |\n"
    if row["of_all"] < 1:
        setting += f"; on {row['shape'][0]:,} x {row['shape'][1]:,}"
    seconds = show_seconds(row["seconds"]) + (f" (≈ {show_seconds(row['whole'])} for all)" if row["of_all"] < 1 else "")
    times = f"{row['times']:.2f}" if "times" in row else ""
    if kind == "wide":
        cells = [str(row["passes"] or ""), f"{row['accuracy']:.1e}", times, *memory]
    else:
        rate = row["shape"][0] * row["shape"][1] * (row["shape"][1] + 1) / row["seconds"] / 1e9
        cells = [f"{rate:.1f}", f"{rate / part['gemm']:.0%}", times, *memory, f"{row['accuracy']:.1e}"]
    return "| " + " | ".join([title, setting, seconds, *cells]) + " |\n"


def show_seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


def draw(report: dict[str, Any], path: Path) -> None:
    """Bars of seconds (logarithmic) and of memory, the fastest first, in groups of the same accuracy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    kinds = [kind for kind in ("tall", "wide") if kind in report]
    laid_out = {kind: lay_out(kind, report[kind]) for kind in kinds}
    heights = [max(place for place, _ in laid_out[kind][0]) + 2 for kind in kinds]
    figure = Figure(figsize=(13, 0.33 * sum(heights) + 1.2 * len(kinds) + 0.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(kinds), 2, squeeze=False, height_ratios=heights, width_ratios=(1.5, 1))
    for (left, right), kind in zip(grid, kinds, strict=True):
        rows, headings = laid_out[kind]
        draw_panel(kind, left, right, rows, headings, report["limit"])
        n, d = report[kind]["shape"]
        what = "Covariance" if kind == "tall" else "Ten principal components"
        left.set_title(f"{what} of {n:,} × {d:,} float32", loc="left", fontweight="bold")
    figure.legend(
        handles=[
            Patch(color=BLUE, label="lazypipe"),
            Patch(color=GREY, label="what people would use instead"),
            Patch(color=GREY, alpha=MAPPED_ALPHA, label="memory: mapped files"),
            Patch(facecolor="white", edgecolor=GREY, hatch="////", label="projected from a slice, at the same rate"),
        ],
        loc="outside upper center",
        ncols=4,
        frameon=False,
    )
    figure.savefig(path)


def lay_out(kind: str, part: dict[str, Any]) -> tuple[list[tuple[float, dict]], list[tuple[float, str]]]:
    """(height, row) from the top and (height, heading)."""
    rows, headings, place = [], [], 0.0
    for number, (_, heading) in enumerate(CLASSES):
        members = [row for row in part["rows"] if row["class"] == number]
        if kind == "wide" and members:
            headings.append((place, heading))
            place += 1
        for row in sorted(members, key=lambda row: row.get("whole", 1e9 if "over" in row else 1e12)):
            rows.append((place, row))
            place += 1
    return rows, headings


def draw_panel(kind: str, left: Any, right: Any, rows: list, headings: list, limit: float) -> None:
    most = max([row["whole"] for _, row in rows if "whole" in row], default=1.0)
    least = min([row["whole"] for _, row in rows if "whole" in row], default=0.1)
    if any("over" in row for _, row in rows):
        most = max(most, limit)
    left.set_xscale("log")
    left.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    left.set_xlim(least / 3, most * 12)  # room for the labels
    for place, row in rows:
        colour = BLUE if row["ours"] else GREY
        label, weight = label_of(kind, row, limit), "bold" if row["ours"] else "normal"
        if "whole" in row:
            projected = {"facecolor": "white", "edgecolor": colour, "hatch": "////"} if row["of_all"] < 1 else {}
            left.barh(place, row["whole"], height=0.72, **({"color": colour} | projected))
            left.text(row["whole"] * 1.08, place, label, va="center", fontsize=8, fontweight=weight)
        elif "over" in row:
            left.barh(place, limit, height=0.72, color=colour)
            left.text(limit * 1.08, place, label, va="center", fontsize=8, color=VERMILION)
        else:
            left.text(least / 2.7, place, label, va="center", fontsize=8, color=VERMILION)
        if "anonymous" in row:
            own, mapped = row["anonymous"] / 2**30, max(0, row["resident"] - row["anonymous"]) / 2**30
            right.barh(place, own, height=0.72, color=colour)
            right.barh(place, mapped, left=own, height=0.72, color=colour, alpha=MAPPED_ALPHA)
            right.text(
                own + mapped,
                place,
                f" {show_bytes(row['anonymous'])}{' (slice)' if row.get('of_all', 1) < 1 else ''}",
                va="center",
                fontsize=8,
                fontweight=weight,
            )
    for place, heading in headings:
        left.text(least / 2.9, place + 0.15, heading, va="center", fontsize=9, fontstyle="italic")
        for axes in (left, right):
            axes.axhline(place - 0.5, color=GREY, linewidth=0.6, alpha=0.5)
    last = max(place for place, _ in rows)
    left.set_yticks([place for place, _ in rows], [row["title"] for _, row in rows], fontsize=9)
    for tick, (_, row) in zip(left.get_yticklabels(), rows, strict=True):
        if row["ours"]:
            tick.set(color=BLUE, fontweight="bold")
    right.set_yticks([])
    right.set_xlim(0, 1.2 * right.get_xlim()[1])
    left.set_xlabel("seconds, from the file to the answer (logarithmic; shorter is better)")
    right.set_xlabel("peak memory, GiB (the label: without mapped files)")
    for axes in (left, right):
        axes.set_ylim(last + 0.6, -0.6)
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def label_of(kind: str, row: dict[str, Any], limit: float) -> str:
    if "over" in row:
        return f"> {limit:g} s"
    if "seconds" not in row:
        text = row["failure"].split(" for an array")[0]
        return text if len(text) < 70 else text[:67] + "…"
    label = f"{'≈ ' if row['of_all'] < 1 else ''}{show_seconds(row['whole'])} s"
    if row.get("passes") is not None:
        label += f", {row['passes']} passes" if row["passes"] > 1 else ", 1 pass"
    if kind == "wide":
        label += f", angle {row['accuracy']:.0e}"
    elif row["accuracy"] > POOR:
        label += f", error {row['accuracy']:.0e} of sᵢsⱼ"
    return label
