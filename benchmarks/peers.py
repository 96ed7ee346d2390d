"""lazypipe beside what people would use instead, in one run on one machine.

    python benchmarks/peers.py [--folder /tmp] [--limit 900] [--results benchmarks/results]
    python benchmarks/peers.py --draw            # the table and the figure again, from peers.json
    python benchmarks/peers.py --only numpy_by_hand lazypipe_dask --tall 100000 1000 --results /tmp/peers

Covariance of a tall matrix and ten components of a wide one, both float32 in .npy files that the page cache
holds. Each contender runs in a process of its own on all cores, with the best of a few settings, found by a
short trial; its seconds go from the file to the answer (scikit-learn's and Dask's too). What fails or takes
longer than --limit is a row as well. Writes peers.json, peers.md and peers.png.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# What would take threads or kernels away from a contender.
for name in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.pop(name, None)
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

import contenders_covariance  # noqa: F401  (registers its contenders)
import contenders_pca  # noqa: F401
import numpy as np
from apart import in_own_process
from common import covariance64, describe_machine, gemm_rate, today, versions, warm
from contenders import CONTENDERS, Contender, contend

K = 10
PREPARING = 900  # seconds that a contender may take before and after what is timed
VERSIONS = ("lazypipe", "numpy", "scipy", "scikit-learn", "dask", "dask-ml", "pyspark")
HERE = Path(__file__).resolve().parent


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tall", type=int, nargs=2, default=(1_000_000, 1_000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--wide", type=int, nargs=2, default=(2_000, 500_000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--tall-memory", default="512MiB", help="lazypipe's budget of arrays for the covariance")
    parser.add_argument("--wide-memory", default="1GiB", help="lazypipe's small budget of arrays for PCA")
    parser.add_argument("--spark-rows", type=int, default=50_000, help="rows of the covariance through MLlib")
    parser.add_argument("--spark-columns", type=int, default=100_000, help="columns of the PCA through MLlib")
    parser.add_argument("--limit", type=float, default=900, help="seconds a contender may take")
    parser.add_argument("--repeats", type=int, default=None, help="runs, of which the median; 3 below 20 s, else 1")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--folder", default=None, help="where the data go for the run (8 GB)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where table and figure go")
    parser.add_argument("--draw", action="store_true", help="only draw again what peers.json holds")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)  # the process of one
    parser.add_argument("--spec", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def row_of(one: Contender, spec: Path, path: Path, limit: float) -> dict[str, Any]:
    row = {"name": one.name, "title": one.title, "ours": one.ours, "spark": one.spark}
    command = [sys.executable, str(HERE / "peers.py"), "--contender", one.name, "--spec", str(spec)]
    first = {**dict(*one.part[:1]), **dict(*one.whole[:1])}
    ranked = [first]
    if first:
        warm(path)
        lines, _ = in_own_process([*command, "--trial"], 3 * limit + PREPARING)
        last = next((line["ranked"] for line in reversed(lines) if "ranked" in line), [{}])
        ranked = [{**first, **setting} for setting in last[:3]]
        if len(lines) > 1 and "over" in lines[-1] and lines[-2].get("whole") in one.whole[:1]:
            return {**row, "setting": as_text(ranked[0]), **lines[-1]}  # the cheapest on the whole was too slow
    for setting in ranked:  # what was fastest on a part may be too large for the whole
        warm(path)
        lines, ended = in_own_process([*command, "--setting", json.dumps(setting)], 3 * limit + PREPARING)
        found = {**row, "setting": as_text(setting), **(lines[-1] if lines else {"failure": ended})}
        if "memory" not in found.get("failure", "").lower():
            break
    return found


def as_text(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def compare(kind: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Generate, find the truth in float64, and let each contender at it."""
    from pca import reference

    import lazypipe as lp

    path = folder / f"{kind}.npy"
    n_rows, n_columns = options.tall if kind == "tall" else options.wide
    if kind == "tall":
        lp.generate(path, n_rows, n_columns, spectrum="1/i", rank=min(100, n_columns), mean=1.0, noise=0.05)
        np.save(folder / "tall-covariance.npy", covariance64(np.load(path, mmap_mode="r")))
    else:
        noise = float(np.sqrt(0.02 * n_rows / n_columns))  # adds about 0.02 to every eigenvalue, as in pca.py
        lp.generate(path, n_rows, n_columns, spectrum="1/i", rank=200, mean=0.01, noise=noise)
        lp.convert(path, folder / "wide.zarr")
        gram, components = reference(path)
        np.save(folder / "wide-gram.npy", gram)
        np.save(folder / "wide-components.npy", components)
        del gram, components
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "kind": kind,
                "path": str(path),
                "memory": options.tall_memory if kind == "tall" else options.wide_memory,
                "n_components": K,
                "spark_rows": options.spark_rows,
                "spark_columns": options.spark_columns,
                "limit": options.limit,
                "repeats": options.repeats,
            }
        )
    )
    rates, rows = [gemm_rate()], []
    for one in CONTENDERS.values():
        if one.kind == kind and (not options.only or one.name in options.only):
            rows.append(row_of(one, spec, path, options.limit))
            print(f"  {one.title:<45} {short(rows[-1])}", flush=True)
    rates.append(gemm_rate())
    path.unlink()
    return {"shape": [n_rows, n_columns], "nbytes": 4 * n_rows * n_columns, "gemm": max(rates), "rows": rows}


def short(row: dict[str, Any]) -> str:
    if "seconds" in row:
        return f"{row['seconds']:8.2f} s  {row['accuracy']:.1e}  {row['setting']}"
    return row.get("failure") or f"> {row['over']:g} s"


def main() -> None:
    options = options_of()
    if options.contender:
        return contend(options.contender, options.spec, options.trial, options.setting)
    from peers_report import write

    saved = options.results / "peers.json"
    if options.draw:
        return write(json.loads(saved.read_text()), options.results)
    options.results.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": today(),
        "machine": describe_machine(),
        "versions": versions(VERSIONS),
        "limit": options.limit,
    }
    print(report["machine"], report["versions"], sep="\n")
    for kind in ("tall", "wide"):
        if options.only and not any(CONTENDERS[name].kind == kind for name in options.only):
            continue
        print(f"{kind}:", flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report[kind] = compare(kind, options, Path(folder))
        saved.write_text(json.dumps(report, indent=1) + "\n")
    return write(report, options.results)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
