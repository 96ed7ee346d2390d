"""What a job would take, and no work: ``python -m jobs plan pca --source data/wide.npy``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from jobs import covariance, dbn, linear, mlp, pca, rbm, sta, sweep, transform
from jobs._cli import command, nearest, reported
from lazypipe.errors import ConfigError

# job: (its config, what plans it)
PLANNED: dict[str, tuple[Any, Any]] = {
    "pca": (pca.PCAConfig, pca.plan),
    "covariance": (covariance.CovarianceConfig, covariance.plan),
    "transform": (transform.TransformConfig, transform.plan),
    "linear": (linear.LinearConfig, linear.plan),
    "sta": (sta.StaConfig, sta.plan),
    "sweep": (sweep.SweepConfig, sweep.plan),
    "mlp": (mlp.MLPConfig, mlp.plan),
    "rbm": (rbm.RBMConfig, rbm.plan),
    "dbn": (dbn.DBNConfig, dbn.plan),
}
USAGE = f"usage: python -m jobs plan {{{','.join(PLANNED)}}} [the options of that job]"
EXAMPLES = """Memory, tasks, passes and the size of the result, from metadata alone.

  python -m jobs plan pca --source data/wide.npy --n-components 5 --engine.memory 256MiB
  python -m jobs plan covariance --source data/wide.npy --tiles cov.zarr"""


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
    model, plan = PLANNED[name]
    return command(f"plan {name}", model, lambda config: print("\n".join(plan(config).lines())), arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
