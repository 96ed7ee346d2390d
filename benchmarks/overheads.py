"""What is spent beside the work: until the first block, by Prefect, by MLflow, by a cluster.

    python benchmarks/overheads.py [--repeats 5] [--rows 250000] [--columns 1000] [--no-spark] [--only first ...]

first     seconds from the start of `python -m jobs pca` to the first block that is folded, on every engine
flow      the same from the start of a flow, with a Prefect server that runs and with a temporary one
children  seconds for each run below an MLflow run, on SQLite and through a server
engines   one covariance (1 GB, one plan) through Dask and Spark, on the cores here and on clusters of two workers

A start is that of a process of its own. CPU seconds are those of that process until the first block, which other work
on the machine does not change. Writes results/overheads.{json,md}; a part that is not asked for stays as it was.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import overheads_report
from common import cores, describe_machine, today, versions, warm
from servers import dask_cluster, environment, has_java, mlflow_server, prefect_server, spark_cluster

import lazypipe as lp

RESULTS = Path(__file__).parent / "results"
FIRST = Path(__file__).with_name("first_block.py")
SMALL = (200, 50)
MEMORY = "256MiB"
CHILDREN = 20
PACKAGES = ("numpy", "dask", "pyspark", "prefect", "mlflow")


def started(how: str, options: list[str], env: Mapping[str, str]) -> dict[str, float]:
    """One run in a process of its own: seconds since it was called, by what was reached."""
    begun = time.time()
    command = [sys.executable, "-W", "ignore", str(FIRST), how, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(env), timeout=300, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return {name: told[name] - begun for name in ("called", "stage", "block")} | {
        "cpu": told["cpu"], "end": ended - begun
    }  # fmt: skip


def medians(runs: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return found | {"runs": runs}


def options_of(folder: Path, source: Path, kind: str, address: str | None, uri: str | None) -> list[str]:
    asked = {"source": str(source), "n-components": "3", "engine.kind": kind, "engine.memory": MEMORY,
             "out": tempfile.mkdtemp(dir=folder) + "/result"}  # fmt: skip
    asked |= {"engine.address": address} if address else {}
    asked |= {"tracking.uri": uri} if uri else {"tracking.enabled": "false"}
    return [word for name, value in asked.items() for word in (f"--{name}", value)]


def first(folder: Path, repeats: int, spark: bool) -> list[dict[str, Any]]:
    """To the first block on every engine, with MLflow and without."""
    source, uri, rows = small(folder), f"sqlite:///{folder}/mlflow.db", []

    def add(title: str, kind: str, address: str | None = None, tracked: bool = True) -> None:
        given = uri if tracked else None
        runs = [
            started("jobs", ["pca", *options_of(folder, source, kind, address, given)], environment())
            for _ in range(repeats + 1)
        ]
        # The first one fills caches, and mlflow.db.
        rows.append({"title": title, "mlflow": tracked, **medians(runs[1:])})
        show(rows[-1])

    add("serial", "serial", tracked=False)
    add("serial", "serial")
    add("Dask, in process", "dask", tracked=False)
    add("Dask, in process", "dask")
    with dask_cluster(folder) as address:
        add("Dask, a cluster", "dask", address)
    if spark:
        add("Spark, local", "spark")
        with spark_cluster(folder) as address:
            add("Spark, a cluster", "spark", address)
    return rows


def flow(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """To the first block of the PCA flow on an engine that costs nothing itself."""
    source, uri, rows = small(folder), f"sqlite:///{folder}/mlflow.db", []

    def add(title: str, env: Mapping[str, str]) -> None:
        runs = [started("flow", options_of(folder, source, "serial", None, uri), env) for _ in range(repeats + 1)]
        for run in runs:
            run["from_call"] = run["block"] - run["called"]
        rows.append({"title": title, **medians(runs[1:])})
        show(rows[-1])

    with prefect_server(folder) as env:
        add("a Prefect server that runs", env)
    add("a temporary server for the run", environment(PREFECT_HOME=str(folder / "alone")))
    return rows


def children(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Seconds for each run below a run, of 2 parameters and 4 metrics, as a sweep logs them."""
    from lazypipe import tracking

    matrix, rows = lp.open_matrix(small(folder)), []
    points = [(name, 0.5, 0) for name in ("train_accuracy", "validation_accuracy", "objective", "passes")]

    def add(title: str, uri: str) -> None:
        each = []
        for _ in range(repeats):
            with tracking.tracked_run(uri, "overheads", {"sizes": CHILDREN}, matrix) as run:
                for i in range(CHILDREN):
                    begun = time.perf_counter()
                    run.log_child(tracking.Child(f"size {i}", {"size": i, "model": "logistic"}, points))
                    each.append(time.perf_counter() - begun)
        rows.append({"title": title, "each": statistics.median(each), "largest": max(each), "n": len(each)})
        show(rows[-1])

    add("SQLite", f"sqlite:///{folder}/children.db")
    with mlflow_server(folder) as uri:
        add("a server on SQLite", uri)
    return rows


def engines(folder: Path, repeats: int, shape: tuple[int, int], memory: str) -> dict[str, Any]:
    """One covariance through both engines, here and on clusters, each in a process of its own."""
    path = folder / "tall.npy"
    lp.generate(path, *shape, spectrum="1/i", rank=50, mean=1.0, noise=0.05)
    warm(str(path))
    rows: list[dict[str, Any]] = []

    def add(title: str, kind: str, address: str | None) -> None:
        asked = ["--fold", kind, address or "", str(path), memory, str(repeats)]
        given = [sys.executable, "-W", "ignore", __file__, *asked]
        done = subprocess.run(given, capture_output=True, text=True, env=environment(), timeout=900, check=False)
        if done.returncode:
            raise RuntimeError(f"{title}:\n{done.stderr[-2000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        rows.append({"title": title, "kind": kind, "cluster": address is not None, **told})
        show(rows[-1])

    add("Dask, in process", "dask", None)
    add("Spark, local", "spark", None)
    with dask_cluster(folder) as address:
        add("Dask, two workers", "dask", address)
    with spark_cluster(folder) as address:
        add("Spark, two workers", "spark", address)
    path.unlink()
    return {"shape": shape, "memory": memory, "rows": rows}


def fold(kind: str, address: str, path: str, memory: str, repeats: int) -> dict[str, Any]:
    """Seconds of a covariance, the first and those after, and a hash of its bits."""
    begun = time.perf_counter()
    with lp.open_engine(kind, address=address or None, memory=memory) as engine:
        opened, seconds, bits = time.perf_counter() - begun, [], set()
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            found = lp.covariance(path, engine=engine)
            seconds.append(time.perf_counter() - begun)
            bits.add(hashlib.sha256(found.mean.tobytes() + found.covariance.tobytes()).hexdigest())
    return {"opened": opened, "first": seconds[0], "seconds": statistics.median(seconds[1:]), "runs": seconds,
            "bits": sorted(bits), "slots": engine.slots}  # fmt: skip


def small(folder: Path) -> Path:
    path = folder / "small.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).normal(size=SMALL).astype(np.float32))
    return path


def show(row: dict[str, Any]) -> None:
    told = {
        name: round(value, 3) if isinstance(value, float) else value for name, value in row.items() if name != "runs"
    }
    print(" ".join(f"{name} {value}" for name, value in told.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--columns", type=int, default=1_000)
    parser.add_argument("--memory", default="512MiB", help="budget of arrays of the covariance")
    parser.add_argument("--folder", default=None, help="where the data go for the run (1 GB)")
    parser.add_argument("--no-spark", action="store_true", help="leave Spark out, and with it the part `engines`")
    parser.add_argument("--only", nargs="+", choices=["first", "flow", "children", "engines"], default=None)
    parser.add_argument("--fold", nargs=5, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fold:
        kind, address, path, memory, repeats = options.fold
        print(json.dumps(fold(kind, address, path, memory, int(repeats))))
        return

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started goes
    spark = has_java() and not options.no_spark
    parts: dict[str, Callable[[Path], Any]] = {
        "first": lambda folder: first(folder, options.repeats, spark),
        "flow": lambda folder: flow(folder, options.repeats),
        "children": lambda folder: children(folder, options.repeats),
        "engines": lambda folder: engines(folder, options.repeats, (options.rows, options.columns), options.memory),
    }
    file = RESULTS / "overheads.json"
    report = json.loads(file.read_text()) if file.exists() else {}
    report |= {
        "date": today(),
        "machine": describe_machine(),
        "versions": versions(PACKAGES),
        "small": SMALL,
        "repeats": options.repeats,
    }
    for name in options.only or parts:
        if name == "engines" and not spark:
            continue
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report[name] = parts[name](Path(folder))
        report.setdefault("busy", {})[name] = round(before / cores(), 1)
        RESULTS.mkdir(exist_ok=True)
        file.write_text(json.dumps(report, indent=2) + "\n")
        overheads_report.write(report, RESULTS)


if __name__ == "__main__":
    main()
