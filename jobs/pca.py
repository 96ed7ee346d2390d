"""PCA of a matrix that may be wider than memory: ``python -m jobs pca --source data/wide.npy``."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import JobConfig
from jobs._run import Answer, Result, Work
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.plan import Plan
from lazypipe.progress import PassDone


class PCAConfig(JobConfig):
    """Leading principal components of a matrix, with the residual of each as its certificate."""

    n_components: int = Field(10, ge=1, description="components to find, at most the rank of the centred data")
    solver: Literal["auto", "gradient", "deflation", "gram", "covariance"] = Field(
        "auto",
        description="gradient: a block of components at once, fits nearly anywhere; deflation: one component "
        "at a time, as in textbooks; gram, covariance: exact, where the short side fits; auto: the cheapest",
    )
    tol: float = Field(1e-6, gt=0, lt=1, description="stop once every relative residual |Cv - λv|/λ is at most this")
    max_passes: int | None = Field(
        None,
        ge=1,
        description="give up after so many passes over the data; without it the solver's own limit",
    )
    step: Literal["adaptive", "fixed"] = Field(
        "adaptive", description="step of the deflation solver: the best one each pass, or 1/λ₁ throughout"
    )
    seed: int = Field(0, ge=0, description="of the random directions that an iteration starts from")


def run(config: PCAConfig) -> Result:
    """Fit, save ``components`` (k, D), ``mean`` (D,) and the variances (k,), and log the run."""
    return _run.carry_out(config, _work(config))


def plan(config: PCAConfig) -> Plan:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, _work(config))


def show(result: Result) -> None:
    """The result as a short table."""
    pca, figures = result.model, result.figures
    print(f"{'component':>9} {'variance':>12} {'ratio':>8} {'residual':>10}")
    rows = zip(pca.explained_variance_, pca.explained_variance_ratio_, pca.residuals_, strict=True)
    for i, (variance, ratio, residual) in enumerate(rows, 1):
        print(f"{i:>9} {variance:>12.6g} {ratio:>8.4f} {residual:>10.1e}")
    state = "converged" if pca.converged_ else "NOT converged"
    passes = f"{pca.n_passes_} pass{'es' * (pca.n_passes_ != 1)}"
    print(f"solver    {pca.solver_}, {passes}, {state}, {figures['seconds']:.1f} s")
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def main(argv: list[str] | None = None) -> int:
    return command("pca", PCAConfig, lambda config: show(run(config)), argv)


def _work(config: PCAConfig) -> Work:
    fields = ("n_components", "solver", "tol", "max_passes", "step", "seed")
    pca = lp.PCA(**{name: getattr(config, name) for name in fields})

    def fit(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lp.ConvergenceWarning)  # told once, below
            pca.fit(matrix, engine=engine)
        return _answer(pca, history)

    return Work("pca", lambda matrix, engine: lp.plan_pca(matrix, pca, engine), fit)


def _answer(pca: lp.PCA, history: list[PassDone]) -> Answer:
    from lazypipe.figures import convergence, scree

    arrays = {
        "components": pca.components_,
        "mean": pca.mean_,
        "explained_variance": pca.explained_variance_,
        "explained_variance_ratio": pca.explained_variance_ratio_,
        "residuals": pca.residuals_,
    }
    worst = float(pca.residuals_.max())
    figures = {name: arrays[name].tolist() for name in list(arrays)[2:]}
    figures |= {"converged": bool(pca.converged_), "passes": int(pca.n_passes_), "largest_residual": worst}
    figures |= {"total_variance": float(pca.total_variance_), "solver": pca.solver_, "reason": pca.reason_}
    metrics = {"converged": float(pca.converged_), "passes": pca.n_passes_, "largest_residual": worst}
    return Answer(
        model=pca,
        plan=pca.plan_,
        arrays=arrays,
        figures=figures,
        metrics=metrics | {"explained_variance_ratio_sum": float(pca.explained_variance_ratio_.sum())},
        pictures=lambda: {"scree.png": scree(pca), "convergence.png": convergence(history, pca.tol)},
        projection=(pca.mean_, pca.components_),
        warning=""
        if pca.converged_
        else f"not converged: the largest residual is {worst:.1e} after {pca.n_passes_} passes, "
        f"the tolerance {pca.tol:g}. Raise --max-passes, or --tol.",
    )


if __name__ == "__main__":
    sys.exit(main())
