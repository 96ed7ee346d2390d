"""PCA of 100,000 x 1,000,000 hashed text features, a thousandth filled, under 1 GiB.

    python benchmarks/hashed_text.py [--rows 100000] [--columns 1000000] [--memory 768MiB] [--folder /tmp]

The rows are made by a process of its own (topics over words with Zipf's frequencies, hashed to columns, each
row of unit length as tf-idf leaves it), written as Arrow; the fit runs in another one, whose peak is shown:
of all memory, and of what it allocated.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import describe_machine, warm, watched_memory

import lazypipe as lp
from lazypipe.sizes import show_bytes

TOPICS, WORDS = 50, 2_000_000


def write(path: Path, n_rows: int, n_columns: int, per_row: int) -> None:
    """Rows of ``per_row`` words, a third of them from the row's topic."""
    rng = np.random.default_rng(0)
    column_of = rng.integers(0, n_columns, WORDS)
    schema = pa.schema(
        [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))], metadata={"n_columns": str(n_columns)}
    )
    with open(path, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start in range(0, n_rows, 1_000):
            n = min(1_000, n_rows - start)
            words = (WORDS ** rng.random((n, per_row))).astype(np.int64) - 1  # Zipf: log-uniform ranks
            topic = rng.integers(0, TOPICS, (n, 1))
            own = rng.random((n, per_row)) < 0.3
            words = np.where(own, (words * 0.02).astype(np.int64) * TOPICS + topic, words) % WORDS
            columns = np.sort(column_of[words], axis=1)
            first = np.ones(columns.shape, bool)
            first[:, 1:] = columns[:, 1:] != columns[:, :-1]
            counts = first.sum(axis=1)
            at = np.flatnonzero(first.ravel())
            values = np.diff(np.append(at, first.size)).astype(np.float32)
            length = np.sqrt(np.add.reduceat(values**2, np.concatenate([[0], np.cumsum(counts)[:-1]])))
            values /= np.repeat(length, counts)
            ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
            indices = pa.ListArray.from_arrays(ends, pa.array(columns.ravel()[at].astype(np.int32)))
            writer.write_batch(
                pa.record_batch([indices, pa.ListArray.from_arrays(ends, pa.array(values))], schema=schema)
            )


def fit(path: str, memory: str) -> dict[str, object]:
    with lp.open_engine("dask", memory=memory) as engine, watched_memory() as peak:
        begun = time.perf_counter()
        pca = lp.PCA(10, tol=1e-3).fit(path, engine=engine)
        seconds = time.perf_counter() - begun
    return {
        "seconds": seconds, "passes": pca.n_passes_, "solver": pca.solver_, "residual": float(pca.residuals_.max()),
        "ratio": pca.explained_variance_ratio_.tolist(), "anonymous": peak.anonymous, "resident": peak.resident,
        "planned": pca.plan_.peak_nbytes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=1_000_000)
    parser.add_argument("--filled", type=float, default=1e-3)
    parser.add_argument("--memory", default="768MiB", help="budget of arrays; the libraries take about 200 MiB more")
    parser.add_argument("--folder", default=None, help="where the data go for the run (0.8 GB)")
    parser.add_argument("--fit", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(options.fit, options.memory)))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "text.arrow"
        write(path, options.rows, options.columns, int(options.filled * options.columns))
        warm(str(path))
        matrix = lp.open_matrix(path)
        print(f"{options.rows:,} x {options.columns:,}, {matrix.nnz:,} entries, {show_bytes(path.stat().st_size)}")
        command = [sys.executable, "-W", "ignore", __file__, "--fit", str(path), "--memory", options.memory]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr.strip().splitlines()[-1])
        found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{found['solver']}: {found['passes']} passes over the rows, {found['seconds']:.1f} s, residual "
        f"{found['residual']:.1e}, {sum(found['ratio']):.1%} of the variance; "
        f"{show_bytes(found['anonymous'])} anonymous, {show_bytes(found['resident'])} resident, "
        f"planned {show_bytes(found['planned'])}"
    )


if __name__ == "__main__":
    main()
