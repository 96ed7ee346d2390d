"""Doubling the columns doubles the time and leaves the memory where it was; two workers halve it.

    python benchmarks/scaling.py [--rows 2000] [--memory 512MiB] [--folder /tmp]

PCA of 2,000 x 125,000 ... 1,000,000 float32 in panels by the gradient solver, a fixed number of passes, each in
a process of its own; then the same matrix with one worker and with two. Writes results/scaling.{json,png}.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import cores, describe_machine, warm, watched_memory

import lazypipe as lp
from lazypipe.sizes import MIB, show_bytes

RESULTS = Path(__file__).parent / "results"
PASSES = 6


def fit(path: str, memory: str, workers: int) -> dict[str, float]:
    """Seconds of a pass over stripes, and peak memory, of one fit in this process."""
    seconds: list[float] = []

    def listen(event: object) -> None:
        if isinstance(event, lp.progress.StageDone) and event.title.startswith("pass"):
            seconds.append(event.seconds)

    progress = lp.progress.Progress((listen,))
    pca = lp.PCA(10, solver="gradient", tol=1e-12, max_passes=PASSES)
    with lp.open_engine("dask", memory=memory, workers=workers, progress=progress) as engine, watched_memory() as peak:
        begun = time.perf_counter()
        pca.fit(path, engine=engine)
        total = time.perf_counter() - begun
    return {
        "seconds": total,
        "pass": statistics.median(seconds[1:]),
        "anonymous": peak.anonymous,
        "resident": peak.resident,
        "planned": pca.plan_.peak_nbytes,
    }


def in_a_process(path: Path, memory: str, workers: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--fit", str(path), memory, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--columns", type=int, nargs="+", default=[125_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--memory", default="512MiB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the data go for the run (16 GB)")
    parser.add_argument("--fit", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        path, memory, workers = options.fit
        print(json.dumps(fit(path, memory, int(workers))))
        return

    print(describe_machine())
    rows = []
    speedup = None
    for d in options.columns:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows_first, path = Path(folder) / "wide.npy", Path(folder) / "wide.zarr"
            lp.generate(rows_first, options.rows, d, spectrum="1/i", rank=50, noise=0.003)
            lp.convert(rows_first, path)
            rows_first.unlink()
            for panel in path.rglob("*"):
                if panel.is_file():
                    warm(panel)
            found = [in_a_process(path, options.memory, cores()) for _ in range(options.repeats)]
            best = {key: statistics.median(run[key] for run in found) for key in found[0]}
            rows.append({"columns": d, "gigabytes": 4e-9 * options.rows * d, **best})
            print(
                f"{d:>9,} columns  {best['seconds']:6.2f} s  {best['pass']:.3f} s a pass  "
                f"{4e-9 * options.rows * d / best['pass']:.2f} GB/s  {show_bytes(int(best['anonymous']))} anonymous  "
                f"planned {show_bytes(int(best['planned']))}",
                flush=True,
            )
            if d == 500_000 or len(options.columns) == 1:
                ratios = []
                for _ in range(options.repeats):
                    one, two = (in_a_process(path, options.memory, n)["pass"] for n in (1, 2))
                    ratios.append(one / two)
                speedup = statistics.median(ratios)
                print(f"{'':>9} two workers are {speedup:.2f} x one", flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": describe_machine(), "passes": PASSES, "sizes": rows, "two_workers": speedup}
    (RESULTS / "scaling.json").write_text(json.dumps(record, indent=2) + "\n")
    draw(rows)


def draw(rows: list[dict[str, float]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lazypipe.figures import BLUE, GREY, VERMILION

    figure = Figure(figsize=(7.0, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    columns = [row["columns"] / 1e3 for row in rows]
    left.loglog(columns, [row["seconds"] for row in rows], color=BLUE, marker="o", label="measured")
    first = rows[0]["seconds"] / columns[0]
    left.loglog(columns, [first * c for c in columns], color=GREY, linestyle="--", label="in proportion")
    left.set_ylabel(f"time of {PASSES} passes (s)")
    seconds = [2.0**k for k in range(6) if rows[0]["seconds"] / 2 < 2.0**k < 2 * rows[-1]["seconds"]]
    left.set_yticks(seconds, [f"{tick:g}" for tick in seconds])
    right.semilogx(columns, [row["anonymous"] / MIB for row in rows], color=BLUE, marker="o", label="measured")
    right.semilogx(columns, [row["planned"] / MIB for row in rows], color=VERMILION, linestyle="--", label="planned")
    right.set_ylim(0, None)
    right.set_ylabel("peak memory (MiB)")
    for axes in (left, right):
        axes.set_xlabel("columns (thousands)")
        axes.set_xticks(columns, [f"{c:,.0f}" for c in columns])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
