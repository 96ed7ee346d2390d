"""The tables (Markdown) and the figure of spikes.py."""

from pathlib import Path
from typing import Any

from lazypipe.figures import BLUE, GREEN, GREY, VERMILION
from lazypipe.sizes import MIB, show_bytes

TOP = """# Spike-triggered averages: lazypipe beside its peers

By `python benchmarks/spikes.py`: {machine}; {versions}. The peers: {peers}.

Each contender ran in a process of its own on all cores, warm, on a file that the page cache holds, with the best
of a few settings: the fastest four of a short trial were measured on the whole. Seconds are the median of three
runs (of 15 below 0.2 s, one above 20 s).
× is the time as a multiple of lazypipe's. Own memory is the peak of what the process allocated, shared memory
included; resident memory counts mapped pages of the file too. Errors are the largest of the mean and of the SD
against exact int64 sums, in the units of the samples, over the first, the middle and the last unit. Every SD
divides by n. lazypipe had a budget of {memory}.
"""
TABLE = """
### {what}

| contender | setting | seconds | GB/s | G additions/s | × lazypipe | own | resident | error of mean | of SD |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""
LENGTHS = """
## Memory as the recording grows

384 channels of int16 at 30 kHz, 50 units of 10 to 50 spikes a second, lazypipe. Reading the file alone: {reading}.

| recording | asked | seconds | GB/s | own | resident | planned |
|---:|---|---:|---:|---:|---:|---:|
"""


def write(report: dict[str, Any], folder: Path) -> None:
    text = TOP.format(
        machine=report["machine"].removeprefix("machine: "),
        versions=show_versions(report["versions"]),
        peers=show_versions(report["peers"]),
        memory=report["memory"],
    )
    for data in report["recordings"]:
        samples, channels = data["shape"]
        text += f"\n## {data['title']}\n\n"
        text += f"{samples:,} samples x {channels} {data['dtype']}, {data['nbytes'] / 1e9:.3g} GB; "
        units = "one unit" if data["n_units"] == 1 else f"{data['n_units']} units"
        reading = show_reading(data["reading"])
        text += f"{data['n_spikes']:,} spikes of {units}. Reading the file alone: {reading}.\n"
        for case in data["cases"]:
            text += TABLE.format(what=case["what"])
            ours = min((row["seconds"] for row in case["rows"] if row["ours"] and "seconds" in row), default=None)
            text += "".join(table_row(row, data, case, ours, report["limit"]) for row in case["rows"])
        text += offset_note(data)
    if "lengths" in report:
        text += LENGTHS.format(reading=show_reading(report["lengths"]["reading"]))
        text += "".join(length_row(row) for row in report["lengths"]["rows"])
        draw(report["lengths"]["rows"], folder / "spikes_memory.png")
    (folder / "spikes.md").write_text(text)
    print(text)


def table_row(row: dict[str, Any], data: dict[str, Any], case: dict[str, Any], ours: float | None, limit: float) -> str:
    title = f"**{row['title']}**" if row["ours"] else row["title"]
    if "seconds" not in row:
        what = f"> {limit:g} s" if "over" in row else row["failure"].replace("|", "/")
        return f"| {title} | {row['setting']} | {what} |" + " |" * 7 + "\n"
    cells = [
        title,
        row["setting"],
        show_seconds(row["seconds"]),
        f"{data['nbytes'] / row['seconds'] / 1e9:.3g}",
        f"{case['additions'] / row['seconds'] / 1e9:.3g}",
        show_seconds(row["seconds"] / ours) if ours else "",
        show_bytes(row["anonymous"]),
        show_bytes(row["resident"]),
        *(f"{row[key]:.1e}" if key in row else "" for key in ("mean_error", "std_error")),
    ]
    return "| " + " | ".join(cells) + " |\n"


def offset_note(data: dict[str, Any]) -> str:
    """The range of the SDs found, where some of them are wrong."""
    text = ""
    for case in data["cases"]:
        for row in case["rows"]:
            if row.get("std_error", 0) > 0.01 * row.get("stds_wanted", [0])[0]:
                (least, most), (low, high) = row["stds"], row["stds_wanted"]
                text += f"\n{row['title']}, {case['what']}: SDs of {least:.3g} to {most:.3g} "
                text += f"where they are {low:.3g} to {high:.3g}.\n"
    return text


def length_row(row: dict[str, Any]) -> str:
    if "seconds" not in row:
        return f"| {row['gigabytes']:g} GB | {row['what']} | {row.get('failure', 'too long')} |" + " |" * 4 + "\n"
    return (
        f"| {row['gigabytes']:g} GB | {row['what']} | {show_seconds(row['seconds'])} | "
        f"{row['gigabytes'] / row['seconds']:.2f} | {show_bytes(row['anonymous'])} | {show_bytes(row['resident'])} | "
        f"{show_bytes(row['planned'])} |\n"
    )


def show_seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.3g}"


def show_reading(rates: list[float]) -> str:
    return f"{rates[0]:.1f} GB/s on one thread, {rates[1]:.1f} on all cores"


def show_versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Memory stays, time grows in proportion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [row for row in rows if "seconds" in row]
    colours = dict(zip(dict.fromkeys(row["what"] for row in rows), (BLUE, VERMILION, GREEN), strict=False))
    for what, colour in colours.items():
        mine = sorted((row for row in rows if row["what"] == what), key=lambda row: row["gigabytes"])
        length = [row["gigabytes"] for row in mine]
        left.plot(length, [row["resident"] / MIB for row in mine], color=colour, marker="o", label=f"{what}: resident")
        left.plot(length, [row["planned"] / MIB for row in mine], color=colour, linestyle=":", label=f"{what}: planned")
        right.plot(length, [row["seconds"] for row in mine], color=colour, marker="o", label=what)
        slope = mine[-1]["seconds"] / length[-1]
        right.plot(length, [slope * n for n in length], color=GREY, linestyle="--", linewidth=0.9)
    right.plot([], [], color=GREY, linestyle="--", linewidth=0.9, label="in proportion")
    left.set_ylim(0, None)
    left.set_ylabel("peak memory of the process (MiB)")
    right.set_yscale("log")
    right.set_ylabel("time (s)")
    seconds = [2.0**k for k in range(-4, 10)]
    shown = [s for s in seconds if min(r["seconds"] for r in rows) / 2 < s < 2 * max(r["seconds"] for r in rows)]
    right.set_yticks(shown, [f"{tick:g}" for tick in shown])
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("recording (GB)")
        ticks = sorted({row["gigabytes"] for row in rows})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
