"""The optima of the sweep's cells in float64, by scikit-learn, each with a bound on its own gap; and true gaps.

The objective of a cell is F(W, b) = mean softmax loss + lambda / 2 |W|^2 with lambda = 1 / (C size). In W it is
lambda-strongly convex, so with b optimal F exceeds its minimum by |dF/dW|^2 / (2 lambda) at most.
"""

import json
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import tell
from grids import Cell, Job, read_planes, save

SOLVERS = ("newton-cg", "lbfgs")  # of scikit-learn: the second only where the first leaves too large a bound
TOL = 1e-8  # of the largest entry of the gradient
BOUND = 1e-8  # relative: what is worse is solved again by the next solver
BLOCK = 2_000  # rows in float64 at once


def evaluate(job: Job, size: int, planes: list[np.ndarray], strengths: list[float]) -> list[dict[str, float]]:
    """Of each (classes, D + 1): objective, training accuracy, norms of the gradients in W and in b; in float64."""
    present = np.unique(job.labels[:size])
    rows = np.load(job.path("rows"), mmap_mode="r")
    n_classes, width = len(present), rows.shape[1]
    both = np.vstack(planes)
    losses, right = np.zeros(len(planes)), np.zeros(len(planes))
    gradients = np.zeros((len(planes), n_classes, width + 1))
    for start in range(0, size, BLOCK):
        of = slice(start, min(start + BLOCK, size))
        x = np.column_stack([rows[of] / 255.0, np.ones(of.stop - start)])
        codes = np.searchsorted(present, job.labels[of])
        logits = (x @ both.T).reshape(len(x), len(planes), n_classes)
        own = np.take_along_axis(logits, codes[:, None, None], axis=2)[:, :, 0]
        most = logits.max(axis=2)
        right += (logits.argmax(axis=2) == codes[:, None]).sum(axis=0)
        np.exp(logits - most[:, :, None], out=logits)
        totals = logits.sum(axis=2)
        losses += (np.log(totals) + most - own).sum(axis=0)
        logits /= totals[:, :, None]
        logits[np.arange(len(x)), :, codes] -= 1
        gradients += (logits.reshape(len(x), -1).T @ x).reshape(gradients.shape)
    told = []
    for i, (plane, C) in enumerate(zip(planes, strengths, strict=True)):
        penalty, weights = 1 / (C * size), plane[:, :-1]
        gradient = gradients[i, :, :-1] / size + penalty * weights
        value = losses[i] / size + penalty / 2 * np.vdot(weights, weights)
        told.append(
            {
                "objective": float(value),
                "train_accuracy": float(right[i] / size),
                "validation_accuracy": accuracy(job, plane, present),
                "gradient": float(np.linalg.norm(gradient)),
                "of_intercepts": float(np.linalg.norm(gradients[i, :, -1]) / size),
                "bound": float(np.vdot(gradient, gradient) / (2 * penalty) / value),  # relative
            }
        )
    return told


def accuracy(job: Job, plane: np.ndarray, present: np.ndarray) -> float:
    rows, labels = np.load(job.path("validation_rows")) / 255.0, job.validation[1]
    return float((present[(rows @ plane[:, :-1].T + plane[:, -1]).argmax(axis=1)] == labels).mean())


def solve(job: Job, identity: dict[str, Any]) -> None:
    """The optimum of every cell that the cache lacks, saved one by one: optima.json and optima.npz in the folder."""
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    known = read(job.folder, identity)
    planes = read_planes(job.planes("optima")) if known else {}
    known = {cell: told for cell, told in known.items() if cell in planes}
    starts = read_planes(job.planes("lazypipe-1"))
    for size in job.parts["whole"]:
        wanted = [C for C in sorted(job.strengths) if (size, C) not in known]
        if not wanted:
            continue
        x = np.load(job.path("rows"), mmap_mode="r")[:size] / 255.0
        start = None
        for C in wanted:
            begun = time.perf_counter()
            start = starts.get((size, C), start)
            plane, iterations, solver = optimum(job, x, size, C, start)
            told = evaluate(job, size, [plane], [C])[0]
            told |= {"iterations": iterations, "solver": solver, "seconds": time.perf_counter() - begun}
            known[size, C], planes[size, C], start = told, plane, plane
            save(job.planes("optima"), {f"{n} {c!r}": values for (n, c), values in planes.items()})
            cells = [{"size": n, "C": c, **told} for (n, c), told in sorted(known.items())]
            partial = job.folder / "optima.partial"
            partial.write_text(json.dumps({"identity": identity, "cells": cells}, indent=1) + "\n")
            partial.replace(job.folder / "optima.json")
    tell(cells=[{"size": n, "C": c, **told} for (n, c), told in sorted(known.items())])


def optimum(job: Job, x: np.ndarray, size: int, C: float, start: np.ndarray | None) -> tuple[np.ndarray, int, str]:
    """(classes, D + 1), iterations, and the solver that came nearest; from ``start`` or from 0."""
    from sklearn.linear_model import LogisticRegression

    y = job.labels[:size]
    iterations, found, nearest, by = 0, start, np.inf, ""
    for solver in SOLVERS:
        model = LogisticRegression(C=C, solver=solver, tol=TOL, max_iter=5_000, warm_start=True)
        if found is not None:
            model.coef_, model.intercept_, model.classes_ = found[:, :-1].copy(), found[:, -1].copy(), np.unique(y)
        model.fit(x, y)
        iterations += int(model.n_iter_[0])
        plane = np.column_stack([model.coef_, model.intercept_])
        bound = evaluate(job, size, [plane], [C])[0]["bound"]
        if bound < nearest:
            found, nearest, by = plane, bound, solver
        if nearest <= BOUND:
            break
    assert found is not None
    return found, iterations, by


def read(folder: Path, identity: dict[str, Any]) -> dict[Cell, dict[str, Any]]:
    """The optima of those data, by cell."""
    path = folder / "optima.json"
    if not path.exists():
        return {}
    saved = json.loads(path.read_text())
    if saved["identity"] != identity:
        return {}
    return {(cell["size"], cell["C"]): cell for cell in saved["cells"]}


def judge(job: Job, labels: Iterable[str]) -> None:
    """The true gap of each cell of each contender whose planes are there: one line of JSON a contender."""
    optima = {(cell["size"], cell["C"]): cell for cell in json.loads((job.folder / "optima.json").read_text())["cells"]}
    found = {label: read_planes(job.planes(label)) for label in labels}
    cells: dict[str, list[dict[str, Any]]] = {label: [] for label, planes in found.items() if planes}
    for size in sorted({size for planes in found.values() for size, _ in planes}):
        asked = [(label, C) for label in cells for n, C in found[label] if n == size and (size, C) in optima]
        if not asked:
            continue
        told = evaluate(job, size, [found[label][size, C] for label, C in asked], [C for _, C in asked])
        for (label, C), one in zip(asked, told, strict=True):
            best = optima[size, C]
            gap = (one["objective"] - best["objective"]) / best["objective"]
            cells[label].append({"size": size, "C": C, "gap": gap, **one})
    for label, ones in cells.items():
        tell(label=label, cells=ones)
