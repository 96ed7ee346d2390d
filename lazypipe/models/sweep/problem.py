"""What a sweep learns from and is judged by: training and validation rows, and the classes of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError, DataError
from lazypipe.io import open_matrix
from lazypipe.io.array import ArrayMatrix
from lazypipe.io.labels import read_labels
from lazypipe.io.matrix import Matrix
from lazypipe.io.row_range import RowRange
from lazypipe.models.sweep.grid import above_0
from lazypipe.models.sweep.rows import Examples

SHOWN = 5


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
        return {
            "train": _content_of(self.train.matrix),
            "labels": _digest(self.train.targets),
            "validation": _content_of(self.validation.matrix),
            "validation_labels": _digest(self.validation.targets),
            "classes": None if self.classes is None else _digest(self.classes),
            "divide_by": self.train.divide_by,
        }


def problem_of(train: Any, validation: Any, divide_by: float, regression: bool) -> Problem:
    """Sources and labels, opened and matched. DataError, ConfigError for what does not fit together."""
    divide_by = above_0(divide_by, "divide_by")
    X, y = _pair(train, "train")
    X_valid, y_valid = _pair(validation, "validation")
    matrix, other = open_matrix(X), open_matrix(X_valid)
    if matrix.shape[1] != other.shape[1]:
        raise DataError(
            f"{other.uri}: {other.shape[1]:,} columns for validation, but {matrix.uri} has {matrix.shape[1]:,}. "
            f"Give rows of the same columns."
        )
    labels, labels_valid = _labels(y, matrix, "y"), _labels(y_valid, other, "y_valid")
    if regression:
        values, values_valid = (_values(part, name) for part, name in ((labels, "y"), (labels_valid, "y_valid")))
        return Problem(Examples(matrix, values, divide_by), Examples(other, values_valid, divide_by), None)
    classes, codes = _classes(labels, matrix)
    codes_valid = _codes(labels_valid, classes, other, len(labels_valid))
    return Problem(Examples(matrix, codes, divide_by), Examples(other, codes_valid, divide_by), classes)


def _pair(given: Any, name: str) -> tuple[Any, Any]:
    if not (isinstance(given, tuple | list) and len(given) == 2):
        raise ConfigError(f"{name}: must be a pair (X, y).")
    return given[0], given[1]


def _labels(y: Any, matrix: Matrix, name: str) -> np.ndarray:
    return read_labels(y, n_rows=matrix.shape[0], what=name)


def _values(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.dtype.kind not in "iufb":
        raise DataError(f"{name}: holds text, but ridge is a regression. Give numbers, or sweep logistic.")
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
            f"y: {len(classes):,} different numbers with fractions are no classes. Sweep ridge, or round them."
        )
    return classes, codes.astype(np.int32)


def _codes(labels: np.ndarray, classes: np.ndarray, matrix: Matrix, n_rows: int) -> np.ndarray:
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


def _content_of(matrix: Matrix) -> str:
    """What tells a matrix from others: of one in memory all of it, not a sample; of files the fingerprint."""
    if isinstance(matrix, RowRange):
        text = f"{_content_of(matrix.matrix)} {matrix.rows.start}:{matrix.rows.stop}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    return matrix.content_hash() if isinstance(matrix, ArrayMatrix) else matrix.fingerprint()


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(f"{values.dtype.str}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def names_of(classes: np.ndarray, missing: np.ndarray) -> str:
    """Classes in words, the first of them."""
    shown = ", ".join(str(classes[i]) for i in missing[:SHOWN])
    return shown + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
