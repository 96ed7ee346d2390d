"""Rows with what is to be learnt of them: training and validation rows, and the classes of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.checks import above_0
from lazypipe.errors import ConfigError, DataError
from lazypipe.io import open_matrix
from lazypipe.io.labels import read_labels
from lazypipe.io.matrix import Matrix

SHOWN = 5


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of a source and what is to be learnt of them.

    ``targets`` (n_rows,): the class of each row as a number from 0, int32; in a regression its value, float64.
    Entries are divided by ``divide_by``.
    """

    matrix: Matrix
    targets: np.ndarray
    divide_by: float = 1.0

    @property
    def n_rows(self) -> int:
        return self.matrix.shape[0]

    @property
    def n_features(self) -> int:
        return self.matrix.shape[1]

    def identity(self) -> tuple[str, str]:
        """What tells rows and targets from others."""
        return self.matrix.fingerprint(), digest_of(self.targets)


@dataclass(frozen=True, eq=False)
class Problem:
    """``classes`` (K,), sorted, of the training rows; None in a regression."""

    train: Examples
    validation: Examples
    classes: np.ndarray | None

    @property
    def n_classes(self) -> int:
        return 0 if self.classes is None else len(self.classes)

    def identity(self) -> dict[str, Any]:
        """What tells its data from others."""
        train, labels = self.train.identity()
        validation, validation_labels = self.validation.identity()
        return {
            "train": train,
            "labels": labels,
            "validation": validation,
            "validation_labels": validation_labels,
            "classes": None if self.classes is None else digest_of(self.classes),
            "divide_by": self.train.divide_by,
        }


def problem_of(train: Any, validation: Any, divide_by: float, regression: bool) -> Problem:
    """Sources and labels, opened and matched. DataError, ConfigError for what does not fit together."""
    found, classes = examples_of(train, divide_by, regression)
    return Problem(found, others_of(validation, found, classes), classes)


def examples_of(train: Any, divide_by: float, regression: bool) -> tuple[Examples, np.ndarray | None]:
    """The pair (X, y), opened and matched, and its classes, None in a regression."""
    divide_by = above_0(divide_by, "divide_by")
    X, y = _pair(train, "train")
    matrix = open_matrix(X)
    labels = _labels(y, matrix, "y")
    if regression:
        return Examples(matrix, _values(labels, "y"), divide_by), None
    classes, codes = _classes(labels, matrix)
    return Examples(matrix, codes, divide_by), classes


def others_of(validation: Any, train: Examples, classes: np.ndarray | None) -> Examples:
    """The pair (X, y) of other rows, of the columns and classes of ``train``."""
    X, y = _pair(validation, "validation")
    other = open_matrix(X)
    if train.n_features != other.shape[1]:
        raise DataError(
            f"{other.uri}: {other.shape[1]:,} columns for validation, but {train.matrix.uri} has "
            f"{train.n_features:,}. Give rows of the same columns."
        )
    labels = _labels(y, other, "y_valid")
    targets = _values(labels, "y_valid") if classes is None else _codes(labels, classes, other)
    return Examples(other, targets, train.divide_by)


def _pair(given: Any, name: str) -> tuple[Any, Any]:
    if not (isinstance(given, tuple | list) and len(given) == 2):
        raise ConfigError(f"{name}: must be a pair (X, y).")
    return given[0], given[1]


def _labels(y: Any, matrix: Matrix, name: str) -> np.ndarray:
    return read_labels(y, n_rows=matrix.shape[0], what=name)


def _values(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.dtype.kind not in "iufb":
        raise DataError(f"{name}: holds text, where a regression wants numbers. Give numbers, or a model of classes.")
    values = labels.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{name}: infinity at row {int(np.argmin(np.isfinite(values))):,}. Remove it.")
    return values


def _classes(labels: np.ndarray, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) == 1:
        raise DataError(f"y: all {len(labels):,} rows of {matrix.uri} are of class {classes[0]!s}. Give two classes.")
    if labels.dtype.kind == "f" and (len(classes) > 20) and (classes != np.rint(classes)).any():
        raise DataError(
            f"y: {len(classes):,} different numbers with fractions are no classes. Choose a regression, or round them."
        )
    return classes, codes.astype(np.int32)


def _codes(labels: np.ndarray, classes: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Positions of labels among the classes; DataError for a class that no training row is of."""
    kinds, as_text = {labels.dtype.kind, classes.dtype.kind}, ""
    if "U" in kinds and kinds != {"U"}:
        as_text = f"labels of kind {labels.dtype.name}, but those of the training rows are {classes.dtype.name}"
        if not kinds <= set("Uiu"):
            raise DataError(f"y_valid: {as_text}. Write both alike.")
        as_text += "; as text "
        labels, classes = labels.astype(np.str_), classes.astype(np.str_)  # 7 as "7"
    unseen = np.setdiff1d(labels, classes)
    if len(unseen):
        at = int(np.argmax(labels == unseen[0]))
        shown = ", ".join(str(label) for label in unseen[:SHOWN]) + (" ..." if len(unseen) > SHOWN else "")
        raise DataError(
            f"y_valid: {as_text}class {shown} (first at row {at:,} of {matrix.uri}) is of no training row. "
            f"Leave such rows out, or train on some."
        )
    order = np.argsort(classes)  # whole numbers sort otherwise as text
    return order[np.searchsorted(classes, labels, sorter=order)].astype(np.int32)


def digest_of(values: np.ndarray) -> str:
    """A short hash of an array's dtype and of all that it holds."""
    return hashlib.sha256(f"{values.dtype.str}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def names_of(classes: np.ndarray, missing: np.ndarray) -> str:
    """Classes in words, the first of them."""
    shown = ", ".join(str(classes[i]) for i in missing[:SHOWN])
    return shown + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
