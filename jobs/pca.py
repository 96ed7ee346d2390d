"""PCA of a matrix that may be wider than memory: ``python -m jobs pca --source data/wide.npy``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field

import lazypipe as lp
from jobs import _run
from jobs._cli import command
from jobs._config import PreparedJobConfig
from jobs._run import Answer, Result, Work
from jobs._tables import markdown
from lazypipe.engines import Engine
from lazypipe.io.matrix import Matrix
from lazypipe.io.row_store import suffix_of
from lazypipe.models.pca.certificates import told
from lazypipe.models.pca.choice import LEAST_PASSES
from lazypipe.models.pca.scores import require_scores, with_scores
from lazypipe.plan import Plan
from lazypipe.progress import PassDone
from lazypipe.stores import path_of
from lazypipe.tracking import PROJECTION


class PCAConfig(PreparedJobConfig):
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
        ge=LEAST_PASSES,
        description="give up after so many passes over the data; without it the solver's own limit. deflation takes "
        "two a component at least",
    )
    step: Literal["adaptive", "fixed"] = Field(
        "adaptive", description="step of the deflation solver: the best one each pass, or 1/λ₁ throughout"
    )
    seed: int = Field(0, ge=0, description="of the random directions that an iteration starts from")
    scale: Literal["none", "unit", "genotype"] = Field(
        "none",
        description="unit: divide columns by their standard deviation; genotype: (x - 2p) / sqrt(2p (1 - p)) for "
        "allele counts 0, 1, 2",
    )
    scores: str | None = Field(
        None, min_length=1, description="also write the scores of the source, to this .zarr, or .parquet folder"
    )


def run(config: PCAConfig) -> Result:
    """Fit, save ``components`` (k, D), ``mean`` (D,) and the variances (k,), and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: PCAConfig) -> Plan | Result:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The result as a short table."""
    pca, figures = result.model, result.figures
    print(f"{'component':>9} {'variance':>12} {'ratio':>8} {'residual':>10} {'± variance':>11} {'angle ≤ rad':>12}")
    rows = zip(
        pca.explained_variance_,
        pca.explained_variance_ratio_,
        pca.residuals_,
        pca.eigenvalue_bounds_,
        pca.angle_bounds_,
        strict=True,
    )
    for i, (variance, ratio, residual, bound, angle) in enumerate(rows, 1):
        print(f"{i:>9} {variance:>12.6g} {ratio:>8.4f} {residual:>10.1e} {bound:>11.1e} {_angle(angle):>12}")
    state = "converged" if pca.converged_ else "NOT converged"
    passes = f"{pca.n_passes_} pass{'es' * (pca.n_passes_ != 1)}"
    if pca.n_passes_recalled_:
        passes += f" ({pca.n_passes_recalled_} of them from the state)"
    print(f"solver    {pca.solver_}, {passes}, {state}, {figures['seconds']:.1f} s")
    if pca.n_samples_ != figures["source"]["shape"][0]:
        print(f"rows      {pca.n_samples_:,} of {figures['source']['shape'][0]:,}: the others hold a NaN")
    notes = [f"note      {note}" for note in figures["notes"]]
    print("\n".join([_run.memory_line(figures), *result.lines(), *notes]))


def table(figures: Mapping[str, Any]) -> list[str]:
    """Components, variances and residuals as a markdown table, and what a reader has to know."""
    names = ("explained_variance", "explained_variance_ratio", "residuals", "angle_bounds")
    head = ("component", "explained variance", "ratio", "residual", "angle ≤ (rad)")
    rows = [
        (str(i), f"{variance:.6g}", f"{ratio:.4f}", f"{residual:.1e}", _angle(angle))
        for i, (variance, ratio, residual, angle) in enumerate(zip(*(figures[name] for name in names), strict=True), 1)
    ]
    return [*markdown([head, *rows]), "", *(f"Note: {note}" for note in figures["notes"])]


def _angle(bound: float) -> str:
    return f"{bound:.1e}" if bound < np.pi / 2 else "unknown"  # where the next eigenvalue is not known


def main(argv: list[str] | None = None) -> int:
    return command("pca", PCAConfig, run, argv, show)


def work_of(config: PCAConfig) -> Work:
    fields = ("n_components", "solver", "tol", "max_passes", "step", "seed", "center", "nan", "row_weights")
    step = 1.0 if config.step == "fixed" else config.step
    scale = {"none": False, "unit": True, "genotype": "genotype"}[config.scale]
    options = {name: getattr(config, name) for name in fields} | {"step": step, "scale": scale}
    pca = lp.PCA(**options)

    def fit(matrix: Matrix, engine: Engine, history: list[PassDone]) -> Answer:
        if config.scores:
            require_scores(path_of(config.scores), matrix, config.overwrite)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", lp.ConvergenceWarning)  # told once, below
            warnings.simplefilter("ignore", lp.ClosePairWarning)
            pca.fit(matrix, engine=engine, state=config.state, restart=config.restart)
        if config.scores:
            pca.transform(matrix, out=config.scores, overwrite=config.overwrite, engine=engine)
        return _answer(pca, whole(pca.plan_, matrix), history)

    def whole(plan: Plan, matrix: Matrix) -> Plan:
        return with_scores(plan, matrix, config.n_components, config.nan == "mean") if config.scores else plan

    if config.scores:
        suffix_of(path_of(config.scores))
    return Work("pca", lambda matrix, engine: whole(lp.plan_pca(matrix, pca, engine, config.state), matrix), fit)


def _answer(pca: lp.PCA, plan: Plan, history: list[PassDone]) -> Answer:
    from lazypipe.figures import convergence, scree

    arrays = {
        "components": pca.components_,
        "mean": pca.mean_,
        "explained_variance": pca.explained_variance_,
        "explained_variance_ratio": pca.explained_variance_ratio_,
        "residuals": pca.residuals_,
    }
    if pca.scale_ is not None:
        arrays["scale"] = pca.scale_
    if pca.fill_ is not None:
        arrays["fill"] = pca.fill_
    worst = float(pca.residuals_.max())
    drawn = {"convergence.png": convergence(history, pca.tol)} if history else {}  # gram and covariance iterate none
    figures = {name: arrays[name].tolist() for name in ("explained_variance", "explained_variance_ratio", "residuals")}
    figures |= {
        "singular_values": pca.singular_values_.tolist(),
        "gaps": pca.gaps_.tolist(),
        "eigenvalue_bounds": pca.eigenvalue_bounds_.tolist(),
        "angle_bounds": pca.angle_bounds_.tolist(),
        "close_pairs": pca.close_pairs_,
        "n_rows": pca.n_samples_,
        "n_constant_columns": pca.n_constant_columns_ if pca.scale else None,
        "passes_recalled": pca.n_passes_recalled_,
        "notes": _notes(pca),
    }
    figures |= {"converged": bool(pca.converged_), "passes": int(pca.n_passes_), "largest_residual": worst}
    figures |= {"total_variance": float(pca.total_variance_), "solver": pca.solver_, "reason": pca.reason_}
    metrics = {"converged": float(pca.converged_), "passes": pca.n_passes_, "largest_residual": worst}
    return Answer(
        model=pca,
        plan=plan,
        arrays=arrays,
        figures=figures,
        metrics=metrics | {"explained_variance_ratio_sum": float(pca.explained_variance_ratio_.sum())},
        pictures=lambda: {"scree.png": scree(pca)} | drawn,
        projection={name: arrays[name] for name in PROJECTION if name in arrays},
        note="\n".join(table(figures)),
        warnings=_warnings(pca, worst),
    )


def _warnings(pca: lp.PCA, worst: float) -> list[str]:
    if pca.converged_:
        return []
    return [
        f"not converged: the largest residual is {worst:.1e} after {pca.n_passes_} passes, the tolerance "
        f"{pca.tol:g}. Raise --max-passes, or --tol."
    ]


def _notes(pca: lp.PCA) -> list[str]:
    """What a reader of the components has to know."""
    found = []
    if pca.close_pairs_:
        found.append(told(pca.close_pairs_, pca.n_samples_))
    if pca.n_constant_columns_:
        one = pca.n_constant_columns_ == 1
        found.append(
            f"{pca.n_constant_columns_:,} column{' is' if one else 's are'} constant and "
            f"{'was' if one else 'were'} left unscaled."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
