"""What a job would take, and no work: ``python -m jobs plan pca --source data/wide.npy``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs._cli import command, reported
from jobs._paper import Paper
from lazypipe.checks import nearest
from lazypipe.errors import ConfigError

# The module of a job is imported when that job is asked for: all of them together take seconds.
PLANNED = {
    "pca": Paper("pca", "PCAConfig", "shape"),
    "covariance": Paper("covariance", "CovarianceConfig", "shape"),
    "transform": Paper("transform", "TransformConfig"),
    "linear": Paper("linear", "LinearConfig", "shape"),
    "sta": Paper("sta", "StaConfig", "duration"),
    "sweep": Paper("sweep", "SweepConfig"),
    "mlp": Paper("mlp", "MLPConfig"),
    "rbm": Paper("rbm", "RBMConfig"),
    "dbn": Paper("dbn", "DBNConfig"),
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
    given = [word for word in arguments[1:] if word.split("=")[0] in ON_PAPER]
    if given and planned.stand_in is None:
        told = ", ".join(name for name, planned in PLANNED.items() if planned.stand_in is not None)
        error = ConfigError(f"{given[0]}: there is no model of the time of {name}, only of {told}. Leave it out.")
        return reported(error, debug="--debug" in arguments)
    return command(f"plan {name}", planned.model, lambda asked: print("\n".join(planned.lines(asked))), arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
