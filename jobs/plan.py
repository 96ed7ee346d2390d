"""What a job would take, and no work: ``python -m jobs plan pca --source data/wide.npy``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import dbn, mlp, rbm, sweep, transform
from jobs._cli import command, nearest, reported
from jobs._paper import COVARIANCE, LINEAR, PCA, STA, Paper
from lazypipe.errors import ConfigError

# job: what plans it on paper, too; else its config, and what plans it
PLANNED: dict[str, Paper | tuple[Any, Any]] = {
    "pca": PCA,
    "covariance": COVARIANCE,
    "transform": (transform.TransformConfig, transform.plan),
    "linear": LINEAR,
    "sta": STA,
    "sweep": (sweep.SweepConfig, sweep.plan),
    "mlp": (mlp.MLPConfig, mlp.plan),
    "rbm": (rbm.RBMConfig, rbm.plan),
    "dbn": (dbn.DBNConfig, dbn.plan),
}
USAGE = f"usage: python -m jobs plan {{{','.join(PLANNED)}}} [the options of that job]"
EXAMPLES = """Memory, tasks, passes and the size of the result, from metadata alone.

  python -m jobs plan pca --source data/wide.npy --n-components 5 --engine.memory 256MiB
  python -m jobs plan covariance --source data/wide.npy --tiles cov.zarr

With --workers also the time and memory that a model predicts on so many, for data that are there or on paper.

  python -m jobs plan pca --shape 1000000,10000000 --engine.memory 8GiB --workers 100
  python -m jobs plan sta --duration 1h --n-channels 384 --sampling-rate 30000 --window -30 60 --workers 10"""
ON_PAPER = ("--workers", "--shape", "--duration", "--machine")


def main(argv: list[str] | None = None) -> int:
    """Print the plan of the job that the first argument names; exit code 2 if it does not fit."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{EXAMPLES}")
        return 0
    name = arguments[0]
    if name not in PLANNED:
        jobs = ", ".join(PLANNED)
        error = ConfigError(f"{name}: cannot be planned{nearest(name, PLANNED)}. Name one of {jobs} first.")
        return reported(error, debug="--debug" in arguments)
    planned = PLANNED[name]
    if isinstance(planned, Paper):
        return command(
            f"plan {name}", planned.model, lambda asked: print("\n".join(planned.lines(asked))), arguments[1:]
        )
    if given := [word for word in arguments[1:] if word.split("=")[0] in ON_PAPER]:
        told = ", ".join(name for name, planned in PLANNED.items() if isinstance(planned, Paper))
        error = ConfigError(f"{given[0]}: there is no model of the time of {name}, only of {told}. Leave it out.")
        return reported(error, debug="--debug" in arguments)
    model, plan = planned
    return command(f"plan {name}", model, lambda config: print("\n".join(plan(config).lines())), arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
