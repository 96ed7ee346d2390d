"""What a worker does: fit one prefix at all strengths, judge it, and keep the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg  # noqa: F401  its BLAS is to be there when threads are counted, before a model asks for it

from lazypipe.io.examples import Problem, names_of
from lazypipe.models.sweep.cells import Cell
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.grid import model_of
from lazypipe.models.sweep.records import Records
from lazypipe.models.sweep.result import Best
from lazypipe.models.sweep.rows import Prefix


class Task(NamedTuple):
    """All strengths of one model on one prefix."""

    model: str
    seed: int | None
    size: int
    strengths: tuple[float, ...]


class Done(NamedTuple):
    """The cells of a task, and the best of them as fitted; None where none succeeded."""

    cells: tuple[Cell, ...]
    best: Best | None


@dataclass(frozen=True, eq=False)
class FitPrefix:
    """A task's function, sent to the workers. ``held_nbytes``: prefixes up to it stay in memory."""

    problem: Problem
    shift: np.ndarray
    options: Options
    held_nbytes: int
    records: Records | None

    def __call__(self, task: Task) -> Done:
        begun = time.perf_counter()
        prefix = self.prefix(task)
        present = np.unique(prefix.targets) if self.problem.n_classes else np.arange(0)
        note = self._missing(present)
        fitted: Fitted | None = None
        if self.problem.n_classes and len(present) < 2:
            why = f"all {task.size:,} rows are of class {names_of(self._classes, present)}"
            outcomes = [Outcome(strength, failed=why) for strength in task.strengths]
        else:
            targets = np.searchsorted(present, prefix.targets) if self.problem.n_classes else prefix.targets
            fitted = model_of(task.model).fit(
                prefix, targets, len(present), task.strengths, self.options, 0 if task.seed is None else task.seed
            )
            outcomes = list(fitted.outcomes)
        done = self._judged(task, prefix, present, fitted, outcomes, note, begun)
        if self.records is not None:
            self.records.write(task, done)
        return done

    def look_at_validation(self) -> None:
        """Read the validation rows once: what is not finite among them is to be named before anything is fitted."""
        validation = self.problem.validation
        for _ in Prefix(validation, validation.n_rows, None, self.shift, hold=False).blocks():
            pass

    @property
    def _classes(self) -> np.ndarray:
        assert self.problem.classes is not None
        return self.problem.classes

    def prefix(self, task: Task) -> Prefix:
        train = self.problem.train
        hold = 4 * task.size * train.n_features <= self.held_nbytes
        return Prefix(train, task.size, task.seed, self.shift, hold=hold)

    def _missing(self, present: np.ndarray) -> str:
        n_classes = self.problem.n_classes
        if len(present) == n_classes:
            return ""
        missing = np.setdiff1d(np.arange(n_classes), present)
        return f"no row of class {names_of(self._classes, missing)}"

    def _judged(
        self,
        task: Task,
        prefix: Prefix,
        present: np.ndarray,
        fitted: Fitted | None,
        outcomes: list[Outcome],
        note: str,
        begun: float,
    ) -> Done:
        n = len(outcomes)
        trained, valid = [np.nan] * n, [np.nan] * n
        said = np.empty((0, 0))
        if fitted is not None:
            if self.problem.n_classes:
                trained = _accuracies(lambda rows: present[fitted.decide(rows)], prefix, n)
                said = self._on_validation(lambda rows: present[fitted.decide(rows)], np.dtype(np.int32), n)
                valid = (said == self.problem.validation.targets[:, None]).mean(axis=0).tolist()
            else:
                trained = _r2(_all_of(fitted.decide, prefix, np.dtype(np.float64), n), prefix.targets)
                said = self._on_validation(fitted.decide, np.dtype(np.float64), n)
                valid = _r2(said, self.problem.validation.targets)
        seconds = time.perf_counter() - begun
        share = np.array([max(1, outcome.passes) for outcome in outcomes], float)
        cells = tuple(
            self._cell(task, outcome, len(present), note, scores, seconds * float(part))
            for outcome, scores, part in zip(
                outcomes, zip(trained, valid, strict=True), share / share.sum(), strict=True
            )
        )
        return Done(cells, self._best(cells, fitted, present, said))

    def _on_validation(self, decide: Callable[[np.ndarray], np.ndarray], dtype: np.dtype, n: int) -> np.ndarray:
        validation = self.problem.validation
        rows = Prefix(validation, validation.n_rows, None, self.shift, hold=False)
        return _all_of(decide, rows, dtype, n)

    def _cell(
        self, task: Task, outcome: Outcome, n_present: int, note: str, scores: tuple[float, float], seconds: float
    ) -> Cell:
        found = [None if np.isnan(score) else float(score) for score in scores]
        names = ("train_accuracy", "validation_accuracy") if self.problem.n_classes else ("train_r2", "validation_r2")
        cell = Cell(
            task.model,
            task.size,
            outcome.strength,
            task.seed,
            "failed" if outcome.failed else "done",
            passes=outcome.passes,
            seconds=seconds,
            n_classes=n_present if self.problem.n_classes else None,
            note="; ".join(part for part in (outcome.failed, outcome.note, note) if part),
        )
        if outcome.failed:
            return cell
        judged: dict[str, Any] = dict(zip(names, found, strict=True))
        return replace(cell, objective=outcome.objective, gap=outcome.gap, converged=outcome.converged, **judged)

    def _best(
        self, cells: tuple[Cell, ...], fitted: Fitted | None, present: np.ndarray, said: np.ndarray
    ) -> Best | None:
        """Of the cells that succeeded the one of highest validation score, of equal ones the most regularized."""
        ranked = [(cell.score, -cell.C, i) for i, cell in enumerate(cells) if cell.score is not None]
        if not ranked or fitted is None:
            return None
        i = max(ranked)[2]
        confusion = None
        if n := self.problem.n_classes:
            pairs = self.problem.validation.targets.astype(np.int64) * n + said[:, i]
            confusion = np.bincount(pairs, minlength=n * n).reshape(n, n)
        coef = intercept = None
        if fitted.planes is not None:
            coef, intercept = fitted.planes(i)
            intercept = intercept - coef @ self.shift
            coef = coef / self.problem.train.divide_by
        classes = None if self.problem.classes is None else present
        return Best(vars(cells[i]), confusion, coef, intercept, classes)


def _all_of(decide: Callable[[np.ndarray], np.ndarray], rows: Prefix, dtype: np.dtype, n: int) -> np.ndarray:
    """What a model says of all rows (size, n)."""
    said = np.empty((rows.size, n), dtype)
    for part, values in rows.blocks():
        said[part] = decide(values)
    return said


def _accuracies(decide: Callable[[np.ndarray], np.ndarray], rows: Prefix, n: int) -> list[float]:
    right = np.zeros(n, np.int64)
    for part, values in rows.blocks():
        right += (decide(values) == rows.targets[part, None]).sum(axis=0)
    return (right / rows.size).tolist()


def _r2(predictions: np.ndarray, values: np.ndarray) -> list[float]:
    """1 - residual squares / squares about the mean; NaN where the values are all alike."""
    about = float(((values - values.mean()) ** 2).sum())
    if about == 0:
        return [np.nan] * predictions.shape[1]
    return [1 - float(((values - column) ** 2).sum()) / about for column in predictions.T]
