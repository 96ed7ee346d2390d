"""Which strengths a sweep may give up: only those that more rows cannot bring back.

With more rows the same C regularizes less, so a strength that regularizes too little stays too little; one that
regularizes too much may yet be the best, and is never given up.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable

from lazypipe.models.sweep.cells import Cell

ERRORS = 3.0  # standard errors behind the best
SIZES = 2  # in a row

Strength = tuple[str, int | None, float]  # model, seed, C


def hopeless(cells: Iterable[Cell], size: int, n_validation: int, but: Container[Strength]) -> dict[Strength, str]:
    """Strengths to give up after ``size``, and why; of a regression none."""
    scores: dict[tuple[str, int | None], dict[int, dict[float, float]]] = {}
    for cell in cells:
        if cell.validation_accuracy is not None and cell.size <= size:
            curves = scores.setdefault((cell.model, cell.seed), {})
            curves.setdefault(cell.size, {})[cell.C] = cell.validation_accuracy
    found = {}
    for (model, seed), curves in scores.items():
        last = sorted(curves)[-SIZES:]
        if len(last) < SIZES:
            continue
        behind = [_behind(curves[n], n_validation) for n in last]
        for C in set.intersection(*map(set, behind)):
            if (model, seed, C) not in but:
                found[model, seed, C] = f"given up at {last[-1]:,} rows, {behind[-1][C]:.1f} standard errors behind"
    return found


def _behind(scores: dict[float, float], n_validation: int) -> dict[float, float]:
    """Strengths that regularize less than the best and are far behind it, and by how many standard errors."""
    best = max(scores, key=lambda C: (scores[C], -C))
    far = {}
    for C, score in scores.items():
        error = math.sqrt((score * (1 - score) + scores[best] * (1 - scores[best])) / n_validation)
        if best < C and scores[best] - score > ERRORS * max(error, 1 / n_validation):
            far[C] = (scores[best] - score) / max(error, 1 / n_validation)
    return far
