"""What is told of a sweep: means over seeds, the best of each size, its cells as rows, and the runs below its run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import lazypipe as lp
from lazypipe.models.sweep.result import best_place_of
from lazypipe.tracking import PARAMETER_LENGTH, Child, Point

MOST_CHILDREN = 100  # of more sizes some are left out: past about 100 runs MLflow's pages slow down
LISTED = 20  # strengths in words
# Columns that the table of a size has first, or lacks where they tell its cells not apart.
FIRST = ("model", "size", "seed", "train_r2", "validation_r2", "train_accuracy", "validation_accuracy")


class Mean(NamedTuple):
    """One model at one size and strength, a mean over the seeds that have a score."""

    model: str
    size: int
    C: float
    train: float | None
    validation: float
    n_seeds: int


def means_of(sweep: lp.RegularizationSweep) -> list[Mean]:
    """Mean scores in the order of models, sizes and falling strengths; what has no score is left out."""
    n_seeds = np.isfinite(sweep.cube()).sum(axis=-1).transpose(0, 2, 1)
    train, validation = (sweep.means(which).transpose(0, 2, 1) for which in ("train", "validation"))
    found = []
    for at in np.ndindex(validation.shape):
        if n_seeds[at]:
            trained = None if np.isnan(train[at]) else float(train[at])
            model, size, strength = sweep.models[at[0]], sweep.sizes[at[1]], sweep.strengths[at[2]]
            found.append(Mean(model, size, strength, trained, float(validation[at]), int(n_seeds[at])))
    return found


def best_of_each_size(sweep: lp.RegularizationSweep, means: Iterable[Mean]) -> list[Mean]:
    """The entry of ``means`` at the best strength of each size, one for each model, by rising size."""
    cube, there = sweep.cube(), {(mean.model, mean.size, mean.C): mean for mean in means}
    best = []
    for j, size in enumerate(sweep.sizes):
        for i, model in enumerate(sweep.models):
            at = best_place_of(cube[i : i + 1, :, j : j + 1], (size,), sweep.strengths)
            found = None if at is None else there.get((model, size, sweep.strengths[at[1]]))
            if found is not None:
                best.append(found)
    return sorted(best, key=lambda mean: mean.size)


def failure_of(sweep: lp.RegularizationSweep) -> str:
    """What the first cell said, where every cell failed; "" where one did not."""
    cells = sweep.table.to_pylist()
    if any(cell["status"] != "failed" for cell in cells):
        return ""
    first, seed = cells[0], "" if cells[0]["seed"] is None else f", seed {cells[0]['seed']}"
    which = f"{first['model']}, C = {first['C']:g}, {first['size']:,} rows{seed}"
    return f"all {len(cells):,} cells failed; the first ({which}) says: {first['note'].rstrip('.')}."


def curves(sweep: lp.RegularizationSweep, best: Iterable[Mean]) -> list[Point]:
    """Scores of each size's best strength, at the size as a step: learning curves, in a section of MLflow's page."""
    points = [point for mean in best for point in _points(sweep, mean, mean.size)]
    return [(f"by_size/{name}", value, step) for name, value, step in points]


def children(sweep: lp.RegularizationSweep, means: Sequence[Mean]) -> Iterator[Child]:
    """A run for each size: its cells as a table, and its scores, whose steps are the strengths.

    Step 0 is the smallest C, which regularizes most.
    """
    rising = sorted(sweep.strengths)
    step = {strength: i for i, strength in enumerate(rising)}
    listed = [f"{i}: C = {C:g}" for i, C in enumerate(rising[:LISTED])] + ["..."] * (len(rising) > LISTED)
    note = f"Steps are strengths, the most regularized first: {', '.join(listed)}."
    note += f" Scores are means over {len(sweep.seeds)} seeds." if len(sweep.seeds) > 1 else ""
    by_size: dict[int, list[dict[str, Any]]] = {}
    for cell in sweep.table.to_pylist():
        by_size.setdefault(cell["size"], []).append(cell)
    best = best_of_each_size(sweep, means)
    for size in _shown(sweep):
        cells, of_size = by_size[size], [mean for mean in means if mean.size == size]
        failed = [cell["note"] for cell in cells if cell["status"] == "failed"]
        seconds = sum(cell["seconds"] or 0.0 for cell in cells)
        points: list[Point] = [("cells_failed", float(len(failed)), 0), ("seconds", seconds, 0)]
        points += [("C", C, i) for i, C in enumerate(rising)]
        for mean in (mean for mean in best if mean.size == size):
            points += [(_named(sweep, mean, f"best_{sweep.score_columns[1]}"), mean.validation, 0)]
            points += [(_named(sweep, mean, "best_C"), mean.C, 0)]
        points += [point for mean in of_size for point in _points(sweep, mean, step[mean.C])]
        parameters = {
            "size": size,
            "model": ", ".join(sweep.models),
            "strengths": ", ".join(f"{C:g}" for C in rising[:LISTED]) + ", ..." * (len(rising) > LISTED),
            "seeds": "none: rows as they lie" if sweep.seeds == (None,) else ", ".join(map(str, sweep.seeds)),
        }
        parameters = {name: str(value)[:PARAMETER_LENGTH] for name, value in parameters.items()}
        why = f"all cells failed: {failed[0]}" if len(failed) == len(cells) else ""
        yield Child(f"size {size:,}", parameters, points, {"cells.csv": _csv_of_size(sweep, cells)}, note, seconds, why)


def _csv_of_size(sweep: lp.RegularizationSweep, cells: Iterable[dict[str, Any]]) -> str:
    """What tells the cells of a size apart, then their scores, then the rest of what they have."""
    told = ["model"] * (len(sweep.models) > 1) + ["C"] + ["seed"] * (len(sweep.seeds) > 1)
    told += reversed(sweep.score_columns)
    others = [name for name in sweep.table.column_names if name not in told and name not in FIRST]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*told, *others], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def _shown(sweep: lp.RegularizationSweep) -> list[int]:
    """Sizes that get a run: all; of many some evenly spaced, the best among them."""
    n = len(sweep.sizes)
    places = set(np.linspace(0, n - 1, min(n, MOST_CHILDREN)).round().astype(int).tolist())
    if sweep.best is not None:
        places.add(sweep.sizes.index(sweep.best.cell["size"]))
    return [sweep.sizes[i] for i in sorted(places)]


def _points(sweep: lp.RegularizationSweep, mean: Mean, step: int) -> list[Point]:
    values = zip(sweep.score_columns, (mean.train, mean.validation), strict=True)
    return [(_named(sweep, mean, name), value, step) for name, value in values if value is not None]


def _named(sweep: lp.RegularizationSweep, mean: Mean, name: str) -> str:
    """By model where there are several: MLflow makes a section of each."""
    return f"{mean.model}/{name}" if len(sweep.models) > 1 else name


def as_rows(sweep: lp.RegularizationSweep) -> list[tuple[Any, ...]]:
    """The table of cells, its head first."""
    return [tuple(sweep.table.column_names), *zip(*(column.to_pylist() for column in sweep.table), strict=True)]
