"""The page and the figure of model_check.py."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lazypipe as lp
from jobs._tables import markdown
from lazypipe.engines.base import Engine
from lazypipe.figures.canvas import BLUE, GREEN, GREY, ORANGE, VERMILION, blank
from lazypipe.io.on_paper import matrix_on_paper
from lazypipe.models.spike_triggered.average import plan_question
from lazypipe.models.spike_triggered.on_paper import question_on_paper
from lazypipe.plan import Plan
from lazypipe.scaling import Machine, OnPaper, Prediction, predict, where_it_stops
from lazypipe.sizes import GIB, MIB, show_bytes

FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "scale.png"
BASE = 480 * MIB  # of libraries, about
WORKERS = [2**i for i in range(11)]
PLACES = {"process": "threads of one process", "cluster": "a cluster of processes"}
BAND = 1.5


def line(row: dict[str, Any]) -> str:
    """A measurement beside its prediction."""
    total, seconds = row["predicted"]["total"], row["seconds"]
    return (
        f"  {row['case']:<44} {total:7.2f} s predicted, {seconds:7.2f} s measured, x {total / seconds:.2f}; others "
        f"took {row['others']:.2f} of a core; peak {show_bytes(row['peak'])} of {show_bytes(row['planned'])}"
    )


def write(found: dict[str, Any], path: Path) -> None:
    """The tables, as markdown."""
    ratios = sorted(row["predicted"]["total"] / row["seconds"] for row in found["rows"])
    within = sum(1 / BAND <= ratio <= BAND for ratio in ratios)
    lines = [
        "# What the model predicts, beside what was measured",
        "",
        f"By `python benchmarks/model_check.py`: {found['machine'].removeprefix('machine: ')}. Files are in the page",
        "cache. Seconds are the median of "
        f"{found['repeats']} runs; × is the prediction as a multiple of them. *Others* is how much",
        "of a core other processes took meanwhile. Memory is the peak of the largest process, planned and measured.",
        "",
        f"Of {len(ratios)} predictions {within} are within a factor of {BAND:g}; the smallest is {ratios[0]:.2f} ×,",
        f"the median {ratios[len(ratios) // 2]:.2f} ×, the largest {ratios[-1]:.2f} ×.",
        "",
        "## Rates, a worker",
        "",
        "Measured by loops of their own, with as many cores busy as there are workers.",
        "",
        *_rates(found["rates"]),
    ]
    for place, words in PLACES.items():
        rows = [row for row in found["rows"] if row["place"] == place]
        if rows:
            lines += ["", f"## On {words}", "", *_table(rows)]
    path.write_text("\n".join(lines) + "\n")


def _rates(machines: dict[str, dict[str, float]]) -> list[str]:
    units = {"page": "KiB", "piece": "µs", "task": "ms", "additions": "G/s"}
    units |= dict.fromkeys(("float32", "float64", "thin", "decomposition"), "GFLOP/s")
    head = ("rate", *(name.replace("process", "in process").replace("cluster", "cluster of") for name in machines))
    names = next(iter(machines.values()))
    rows = [
        (f"{name} ({units.get(name, 'GB/s')})", *(f"{machine[name]:.3g}" for machine in machines.values()))
        for name in names
        if name != "page"
    ]
    return markdown([head, *rows])


def _table(rows: list[dict[str, Any]]) -> list[str]:
    head = ("job", "workers", "predicted", "reading", "computing", "the rest", "measured", "×", "others", "memory")
    cells = []
    for row in rows:
        told = row["predicted"]
        rest = told["total"] - told["reading"] - told["computing"]
        cells.append(
            (
                row["case"],
                str(row["workers"]),
                *(
                    f"{seconds:.2f} s"
                    for seconds in (told["total"], told["reading"], told["computing"], max(rest, 0.0))
                ),
                f"{row['seconds']:.2f} s",
                f"{told['total'] / row['seconds']:.2f}",
                f"{row['others']:.2f}",
                f"{show_bytes(row['peak'])} of {show_bytes(row['planned'])}",
            )
        )
    return markdown([head, *cells])


def on_paper() -> dict[str, Callable[[int], Prediction]]:
    """The jobs of docs/scale.md, on so many workers."""
    question = question_on_paper(100 * 3600 * 30_000, 5_000, "int16", 30_000, (-30, 60), 500, 2 * 100 * 3600)

    def pca(engine: Engine) -> Plan:
        matrix = matrix_on_paper((1_000_000, 10_000_000), "float32", "panels", engine.host.memory)
        return lp.plan_pca(matrix, lp.PCA(10), engine)

    def averages(engine: Engine) -> Plan:
        return plan_question(question, engine)

    jobs = {
        "PCA, $10^6$ × $10^7$": (pca, 16),
        "recording, 64 GiB": (averages, 64),
        "recording, 16 GiB": (averages, 16),
    }

    def predicted(make: Callable[[Engine], Plan], memory: int, n: int) -> Prediction:
        return predict(make(cast(Engine, OnPaper(n, memory * GIB, BASE))), Machine(), n)

    return {name: partial(predicted, make, memory) for name, (make, memory) in jobs.items()}


def draw(found: dict[str, Any]) -> None:
    figure = blank(10.5, 3.7)
    time, memory, check = figure.subplots(1, 3)
    looks = zip(on_paper().items(), (BLUE, VERMILION, ORANGE), ("o", "s", "^"), strict=True)
    for (name, predicted), colour, marker in looks:
        predictions = [predicted(n) for n in WORKERS]
        days = [one.seconds.total / 86_400 for one in predictions]
        time.loglog(WORKERS, days, color=colour, label=name)
        stop = where_it_stops(predicted)
        if stop is not None and stop.workers in WORKERS:
            time.plot(stop.workers, days[WORKERS.index(stop.workers)], marker, color=colour, markersize=8)
        memory.loglog(WORKERS, [one.worker_nbytes / GIB for one in predictions], color=colour, label=name)
        memory.loglog(WORKERS, [one.driver_nbytes / GIB for one in predictions], color=colour, linestyle=":")
    time.plot([], [], "o", color=GREY, markersize=8, label="here it stops to scale")
    memory.plot([], [], color=GREY, linestyle=":", label="the driver")
    time.set_ylabel("predicted time (days)")
    memory.set_ylabel("predicted memory of a worker (GiB)")
    for axes in (time, memory):
        axes.set_xlabel("workers, of one core each")
        axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        _plain(axes.yaxis, *axes.get_ylim())
    time.legend(frameon=False, fontsize="small", loc="best")
    memory.legend(frameon=False, fontsize="small", loc="best")
    _draw_check(check, found["rows"])
    for axes, title in ((time, "past one machine: time"), (memory, "and memory"), (check, "checked on this machine")):
        axes.set_title(title, fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.minorticks_off()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=120)


def _draw_check(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Predicted against measured seconds."""
    both = [seconds for row in rows for seconds in (row["seconds"], row["predicted"]["total"])]
    low, high = min(both) / 1.3, max(both) * 1.3
    axes.fill_between([low, high], [low / BAND, high / BAND], [low * BAND, high * BAND], color="#EEEEEE", linewidth=0)
    axes.loglog([low, high], [low, high], color=GREY, linewidth=1)
    for place, colour in (("process", BLUE), ("cluster", GREEN)):
        for workers, marker in ((1, "o"), (2, "s")):
            some = [row for row in rows if row["place"] == place and row["workers"] == workers]
            if some:
                axes.loglog(
                    [row["seconds"] for row in some],
                    [row["predicted"]["total"] for row in some],
                    marker,
                    color=colour,
                    fillstyle="none" if workers == 1 else "full",
                    label=f"{'threads' if place == 'process' else 'cluster'}, {workers}",
                )
    for axis in (axes.xaxis, axes.yaxis):
        _plain(axis, low, high)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("measured (s)")
    axes.set_ylabel(f"predicted (s); shaded: within {BAND:g} ×")
    axes.legend(frameon=False, fontsize="small", title="workers", title_fontsize="small")


def _plain(axis: Any, low: float, high: float) -> None:
    """Ticks at 1, 3, 10 and so on, as plain numbers."""
    ticks = [digit * 10.0**k for k in range(-2, 5) for digit in (1, 3)]
    ticks = [tick for tick in ticks if low < tick < high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
