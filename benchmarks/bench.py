"""lazypipe beside its peers: all benchmarks of that kind, one after the other, and the table of the README.

    python benchmarks/bench.py                       # hours: full size, into benchmarks/results and README.md
    python benchmarks/bench.py --quick               # minutes: all small, into data/bench; the table is printed alone
    python benchmarks/bench.py --only peers spikes
    python benchmarks/bench.py --table               # only the table again, from what is measured

scikit-learn and dask-ml come by `pip install '.[bench]'`; benchmarks/spikes.py tells where its peers come from. A peer
that is not installed is left out, with a line. The machine should do nothing else.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from pathlib import Path

from summary import END, REPORTS, START, table

HERE = Path(__file__).resolve().parent
SMALL = HERE.parent / "data" / "bench"
README = HERE.parent / "README.md"
QUICK = {
    "peers": [
        "--tall", "100000", "1000", "--wide", "2000", "50000", "--tall-memory", "256MiB", "--wide-memory", "512MiB",
        "--limit", "120", "--only", "lazypipe_dask", "numpy_by_hand", "dask_cov", "lazypipe_panels_1e3",
        "lazypipe_panels_1e6", "scipy_lobpcg", "sklearn_randomized_1e3", "sklearn_randomized_1e6", "dask_svd_1e3",
    ],
    "spikes": ["--cases", "stimulus", "array-spread", "--seconds", "10", "--limit", "120", "--lengths"],
    "sweep": ["--quick", "--only", "lazypipe-1", "scikit-1"],
    "networks": ["--quick", "--only", "mlp", "rbm"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="all of it small, in minutes")
    parser.add_argument("--only", nargs="+", choices=REPORTS, default=REPORTS, metavar="NAME", help=", ".join(REPORTS))
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    results = SMALL if options.quick else HERE / "results"
    failed = [] if options.table else [name for name in options.only if not measured(name, options.quick)]
    text = table(results)
    print(text)
    if not options.quick:
        put_in_readme(text)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measured(name: str, quick: bool) -> bool:
    """Run one benchmark, with what it prints; whether it ended well."""
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--results", str(SMALL), *QUICK[name]] if quick else [])]
    print(f"{name}: {' '.join(command[1:])}", flush=True)
    begun = time.monotonic()
    ended = subprocess.run(command, check=False).returncode
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return ended == 0


def put_in_readme(text: str) -> None:
    """Between its two marks."""
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{README}: has no {START!r} and {END!r} between which the table goes.")
    README.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
