"""The sweep of regularization against sample size: lazypipe beside what people would use instead, and what it reaches.

    python benchmarks/sweep.py [--quick] [--folder data/letters] [--results benchmarks/results]
    python benchmarks/sweep.py --draw                      # the tables and figures again, from sweep.json
    python benchmarks/sweep.py --again lazypipe-1 products   # of what is done these stages anew
    python benchmarks/sweep.py --only lazypipe-1 optima gaps --sizes 50 500 --results /tmp/sweep

Logistic regression on notMNIST's letters, grown to 200,000 rows by declared augmentation (letters.py), entries
divided by 255: 18 sizes x 4 strengths C. Each contender runs in a process of its own, on one thread and on two.
The optima that all are judged by are scikit-learn's in float64 and take the longest: they stay in --folder.
Stages: lazypipe-1, lazypipe-2, scikit-1 ... (contender and threads), optima, gaps, products, samples, curves. Each
saves what it found at its end and is skipped where that is there. Writes sweep.json, sweep.md, sweep.png and
sweep_curves.png; --quick does it all with few sizes, in a folder of its own.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

# What would take threads or kernels away from a contender.
for name in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.pop(name, None)
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

import contenders_sweep  # noqa: F401  (registers its contenders)
import letters
import numpy as np
import optima
import sweep_rates
from apart import in_own_process
from common import describe_machine, earlier, today, versions
from grids import CONTENDERS, SMALL, contend, read_job
from numpy.lib.format import open_memmap

SIZES = (50, *range(200, 1001, 100), *range(2_000, 5_001, 1_000), 10_000, 50_000, 100_000, 200_000)
STRENGTHS = (1.0, 0.1, 0.01, 0.001)
PREPARING = 900  # seconds that a stage may take beside what is timed
OPTIMA_LIMIT = 6 * 3600
VERSIONS = ("lazypipe", "numpy", "scipy", "numba", "scikit-learn", "joblib", "dask", "pyspark")
MODELS = ("logistic", "sgd", "mlp")
HERE = Path(__file__).resolve().parent
# What --quick sets, of what is not given.
QUICK: dict[str, Any] = {
    "sizes": [50, 200, 1_000, 5_000], "singles": [200], "curve_sizes": [50, 500, 5_000], "trial": [200],
    "spark_limit": 30.0, "epochs": 2, "hidden": 64, "repeats": 1, "gemm": 1_500,
}  # fmt: skip
FULL: dict[str, Any] = {
    "sizes": list(SIZES), "singles": [1_000, 10_000, 50_000], "trial": [1_000, 10_000],
    "curve_sizes": [50, 200, 500, 1_000, 2_000, 5_000, *SIZES[14:]],
    "spark_limit": 600.0, "epochs": 5, "hidden": 1_024, "repeats": None, "gemm": 3_000,
}  # fmt: skip


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=letters.DATA, help="the folder that holds notMNIST's IDX files")
    parser.add_argument("--sizes", type=int, nargs="+", help="rows of the prefixes")
    parser.add_argument("--strengths", type=float, nargs="+", default=list(STRENGTHS), help="C")
    parser.add_argument("--singles", type=int, nargs="*", help="sizes that GridSearchCV and Spark do, one by one")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory", default="4GiB", help="lazypipe's budget of arrays")
    parser.add_argument("--limit", type=float, default=1800, help="seconds a contender may take for a part")
    parser.add_argument("--spark-limit", type=float, help="seconds Spark may take for a size")
    parser.add_argument("--repeats", type=int, help="runs, of which the median; 3 below 20 s, else 1")
    parser.add_argument(
        "--trial", type=int, nargs="+", help="sizes that scikit-learn's ways to two threads are tried on"
    )
    parser.add_argument("--curve-sizes", type=int, nargs="+", help="sizes of the learning curves")
    parser.add_argument("--epochs", type=int, help="of sgd and mlp in the learning curves")
    parser.add_argument("--hidden", type=int, help="units of mlp in the learning curves")
    parser.add_argument("--gemm", type=int, help="side of the square products that rates are compared with")
    parser.add_argument("--quick", action="store_true", help="few sizes: all of it in about two minutes")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="only these stages")
    parser.add_argument("--again", nargs="+", default=[], metavar="STAGE", help="these anew, though they are done")
    parser.add_argument("--folder", type=Path, help="where letters and optima are kept (1 GB)")
    parser.add_argument("--results", type=Path, help="where tables and figures go")
    parser.add_argument("--draw", action="store_true", help="only write again what sweep.json holds")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # the process of one
    parser.add_argument("--spec", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    kept = HERE.parent / "data" / ("letters-quick" if options.quick else "letters")
    options.folder = (options.folder or kept).resolve()
    options.results = options.results or (options.folder / "results" if options.quick else HERE / "results")
    for name in ("sizes", "singles", "curve_sizes", "threads"):
        setattr(options, name, sorted(getattr(options, name)))
    known = stages_of(options)
    for stage in [*(options.only or ()), *options.again]:
        if stage not in known:
            parser.error(f"{stage!r} is no stage. Stages: {', '.join(known)}.")
    return options


def stages_of(options: argparse.Namespace) -> list[str]:
    """In the order in which they run: the optima start where lazypipe ended."""
    runs = [f"{name}-{threads}" for name in CONTENDERS for threads in options.threads]
    if options.quick:
        runs.remove(f"spark-{options.threads[0]}")  # it takes half a minute for what the others do in one second
    return [*runs, "optima", "gaps", "products", "samples", "curves"]


def identity_of(options: argparse.Namespace) -> dict[str, Any]:
    """What results have to share to be told together."""
    names = "sizes", "strengths", "singles", "curve_sizes", "memory", "epochs", "hidden", "quick"
    return {"machine": describe_machine(), **{name: getattr(options, name) for name in names}}


def ask(options: argparse.Namespace, stage: str) -> Path:
    """The specification of a stage's job, saved."""
    small = [size for size in options.sizes if size <= SMALL]
    parts = {"small": small, **{str(size): [size] for size in options.singles}, "whole": options.sizes}
    told = {
        "folder": str(options.folder), "parts": {part: sizes for part, sizes in parts.items() if sizes},
        "strengths": options.strengths, "memory": options.memory, "trial": options.trial,
        "curves": options.curve_sizes, "repeats": options.repeats,
        "limit": options.spark_limit if stage.startswith("spark") else options.limit,
    }  # fmt: skip
    spec = options.folder / "spec.json"
    spec.write_text(json.dumps(told))
    return spec


def work(options: argparse.Namespace) -> None:
    """What the process of a stage does: lines of JSON."""
    stage, most = options.stage, max(options.threads)
    if stage in ("optima", "gaps"):
        job = read_job(options.spec, most)
        if stage == "optima":
            return optima.solve(job, optima_identity(options))
        return optima.judge(job, [run for run in stages_of(options) if job.planes(run).exists()])
    if stage in ("products", "samples", "curves"):
        job = read_job(options.spec, most)
        if stage == "products":
            return sweep_rates.products(job, options.gemm)
        if stage == "samples":
            small = options.quick
            shapes = {"sgd": (10_000, 4, 1) if small else (50_000, 8, 1)}
            shapes["mlp"] = (5_000, 1, 1_024) if small else (20_000, 2, 1_024)
            return sweep_rates.samples(job, options.gemm, shapes)
        return sweep_rates.curves(
            job, options.results / "sweep_curves.png", list(MODELS), options.epochs, options.hidden
        )
    name, _, threads = stage.rpartition("-")
    return contend(name, options.spec, int(threads))


def optima_identity(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of one seed are the same ones whatever their number."""
    told = json.loads((options.folder / "letters.json").read_text())
    return {name: told[name] for name in ("source", "seed", "augmentation")}


def run_stage(stage: str, options: argparse.Namespace) -> dict[str, Any]:
    """A stage in a process of its own; what it found."""
    spec = ask(options, stage)
    given = [word for word in sys.argv[1:] if word != "--draw"]
    command = [sys.executable, "-W", "ignore", str(HERE / "sweep.py"), *given, "--stage", stage, "--spec", str(spec)]
    one = CONTENDERS.get(stage.rpartition("-")[0])
    job = read_job(spec, 1)
    parts = [part for part in job.parts if one is not None and one.does(part)]
    limit = OPTIMA_LIMIT if stage == "optima" else PREPARING + 4 * job.limit * max(1, len(parts))
    if one is not None:
        job.planes(stage).unlink(missing_ok=True)
    job.scratch.mkdir(exist_ok=True)
    begun = time.perf_counter()
    try:
        lines, ended = in_own_process(command, limit)
    finally:
        shutil.rmtree(job.scratch, ignore_errors=True)
    took = time.perf_counter() - begun
    found: dict[str, Any] = {"took": took, "planes": job.planes(stage).exists(), "lines": lines}
    if one is None:
        return {**found, "failure": ended} if ended else found
    found |= {"title": one.title, "ours": one.ours, "threads": int(stage.rpartition("-")[2])}
    found["parts"] = {line["part"]: line for line in lines if "part" in line}
    found["refit_equal"] = next((line["refit_equal"] for line in lines if "refit_equal" in line), None)
    last = lines[-1] if lines else {}
    if not last.get("done"):
        missing = next((part for part in parts if part not in found["parts"]), None)
        what = {"over": last["over"]} if "over" in last else {"failure": last.get("failure") or ended}
        if missing is not None:
            found["parts"][missing] = what
        if "failure" in what:  # what took too long is a result
            found["failure"] = what["failure"]
    del found["lines"]
    return found


def is_there(stage: str, done: dict[str, Any], folder: Path) -> bool:
    """Whether a stage need not be run: the gaps are soon told, and hang on all that came before them."""
    if stage == "gaps" or stage not in done or "failure" in done[stage]:
        return False
    return not done[stage].get("planes") or (folder / "planes" / f"{stage}.npz").exists()


def told_briefly(stage: str, found: dict[str, Any]) -> str:
    text = f"  {stage:<12} {found['took']:7.1f} s"
    for part, row in found.get("parts", {}).items():
        text += f"  {part}: " + (f"{row['seconds']:.2f} s" if "seconds" in row else "no answer")
    return text + (f"  {found['failure']}" if found.get("failure") else "")


def write_letters(options: argparse.Namespace) -> str:
    """The rows, and the same / 255 in float32 for those who need them so; what they are."""
    most = max(*options.sizes, *options.curve_sizes, *options.singles, letters.N_TRAIN)
    begun = time.perf_counter()
    text = letters.write(options.folder, options.data, most)["text"]
    path, whole = options.folder / "scaled.npy", options.folder / "scaled.ok"
    if not whole.exists() or whole.read_text() != text:
        rows = np.load(options.folder / "rows.npy", mmap_mode="r")
        scaled = open_memmap(path, "w+", np.float32, rows.shape)
        for start in range(0, len(rows), 10_000):
            scaled[start : start + 10_000] = rows[start : start + 10_000] / np.float32(255)
        scaled.flush()
        whole.write_text(text)
    print(f"{text} ({time.perf_counter() - begun:.1f} s)", flush=True)
    return text


def main() -> None:
    options = options_of()
    if options.stage:
        return work(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stage's process then ends too
    from sweep_report import write

    saved = options.results / "sweep.json"
    if options.draw:
        return write(json.loads(saved.read_text()), options.results)
    options.results.mkdir(parents=True, exist_ok=True)
    print(describe_machine(), versions(VERSIONS), sep="\n", flush=True)
    text = write_letters(options)
    identity = {**identity_of(options), "letters": text}
    report = earlier(saved, identity) or {"identity": identity, "stages": {}}
    report |= {"date": today(), "machine": describe_machine(), "versions": versions(VERSIONS), "letters": text}
    done, fresh = report["stages"], set(options.again)
    for stage in stages_of(options):
        if options.only and stage not in options.only:
            continue
        if stage not in fresh and is_there(stage, done, options.folder):
            print(f"  {stage:<12} is there", flush=True)
            continue
        done[stage] = run_stage(stage, options)
        print(told_briefly(stage, done[stage]), flush=True)
        saved.write_text(json.dumps(report, indent=1) + "\n")
    return write(report, options.results)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
