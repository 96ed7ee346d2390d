"""Rows with labels to learn from, and rows to validate on: how both are named, opened and told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs._config import MatrixConfig
from jobs._values import one_or_more_numbers
from lazypipe.io.labels import read_labels
from lazypipe.io.matrix import Matrix
from lazypipe.io.row_range import row_range

Examples = tuple[Matrix, np.ndarray]
MOST_ROWS = 2**63

HoldOut = Annotated[int | float | None, BeforeValidator(one_or_more_numbers)]
HELD_OUT = (
    "in place of validation: take the last rows of the source, so many (1000) or that share of them (0.2); those "
    "before are learnt from"
)


class ExamplesConfig(MatrixConfig):
    """A matrix, a label for each of its rows, and others to judge by."""

    must_validate: ClassVar[bool] = True

    labels: str = Field(
        min_length=1,
        description="label of each row: .npy, .npz, IDX (.gz too), .csv or .txt (one a line, no header), or a column "
        "of Arrow or Parquet; numbers for a regression",
    )
    label_column: str | None = Field(
        None, description="column of a table, or array of an .npz, that holds the labels, where there are several"
    )
    validation: str | None = Field(
        None, min_length=1, description="matrix of other rows, that the models are judged by; the same columns"
    )
    validation_labels: str | None = Field(
        None, min_length=1, validate_default=True, description="their labels; all of classes that are in labels"
    )
    hold_out: HoldOut = Field(None, validate_default=True, description=HELD_OUT)

    @field_validator("validation_labels")
    @classmethod
    def _go_with_their_rows(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) != (info.data.get("validation") is None):
            raise ValueError(
                "is missing; give the labels of the validation rows"
                if value is None
                else "has no validation; give the rows too, or neither"
            )
        return value

    @field_validator("hold_out")
    @classmethod
    def _one_way_to_validate(cls, value: float | None, info: ValidationInfo) -> float | None:
        given = info.data.get("validation") is not None
        if cls.must_validate and value is None and not given and "validation_labels" in info.data:
            raise ValueError(
                "is missing: there is nothing to validate on; give validation and validation_labels, or hold out the "
                "last rows"
            )
        return _checked_part(value, info)


def _checked_part(value: float | None, info: ValidationInfo) -> float | None:
    if value is not None and info.data.get("validation") is not None:
        raise ValueError("goes without validation; give one of the two")
    if value is not None and not _is_part(value):
        told = f"{value:g}" if isinstance(value, float) else str(value)[:20]
        raise ValueError(f"{told} is neither a number of rows nor a share of them; give 1000, or 0.2")
    return value


def _is_part(value: float) -> bool:
    """Whether it is a number of rows, or a share of them."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return 0 < value < 1 or (1 <= value < MOST_ROWS and value == int(value))


@dataclass(frozen=True)
class Inputs:
    """Rows to learn from and rows to validate on, with their labels; as the data of a run, they are the source."""

    source: Matrix
    train: Examples
    validation: Examples | None = None

    @property
    def uri(self) -> str:
        return self.source.uri

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def validated(self) -> dict[str, str] | None:
        """What the rows to validate on are, for result.json."""
        if self.validation is None:
            return None
        return {"uri": self.validation[0].uri, "fingerprint": self.validation[0].fingerprint()}

    def warnings(self) -> list[str]:
        """What is odd about them, a line each."""
        if self.validation is None or self.train[0].fingerprint() != self.validation[0].fingerprint():
            return []
        return [f"{self.uri}: is also what validates: the scores are those of rows that the models have seen."]


def open_inputs(config: ExamplesConfig) -> Inputs:
    """The rows to learn from and those to validate on, if there are some, and their labels."""
    given = _examples(config.source, config.labels, config.column, config.label_column)
    if config.hold_out is not None:
        return Inputs(given[0], *_split(given, config.hold_out))
    if config.validation is None or config.validation_labels is None:
        return Inputs(given[0], given)
    other = _examples(config.validation, config.validation_labels, config.column, config.label_column)
    return Inputs(given[0], given, other)


class RowsConfig(MatrixConfig):
    """A matrix to learn from without labels, and other rows to judge by."""

    validation: str | None = Field(
        None, min_length=1, description="matrix of other rows, that the model is judged by; the same columns"
    )
    hold_out: HoldOut = Field(None, description=HELD_OUT)

    @field_validator("hold_out")
    @classmethod
    def _one_way_to_validate(cls, value: float | None, info: ValidationInfo) -> float | None:
        return _checked_part(value, info)


def open_rows(config: RowsConfig) -> Inputs:
    """The rows to learn from and those to validate on, if there are some; labels are empty."""
    matrix = lp.open_matrix(config.source, column=config.column)
    given = matrix, np.empty(matrix.shape[0], np.int8)
    if config.hold_out is not None:
        return Inputs(matrix, *_split(given, config.hold_out))
    if config.validation is None:
        return Inputs(matrix, given)
    other = lp.open_matrix(config.validation, column=config.column)
    return Inputs(matrix, given, (other, np.empty(other.shape[0], np.int8)))


def _examples(source: str, labels: str, column: str | None, label_column: str | None) -> Examples:
    """A matrix, of which metadata are read, and the labels of its rows, which are read whole."""
    matrix = lp.open_matrix(source, column=column)
    return matrix, read_labels(labels, n_rows=matrix.shape[0], column=label_column)


def _split(examples: Examples, hold_out: float) -> tuple[Examples, Examples]:
    """All but the last rows, and the last: so many, or that share of them. ConfigError unless both have some."""
    matrix, labels = examples
    n_rows = len(labels)
    held = round(hold_out * n_rows) if hold_out < 1 else int(hold_out)
    first = n_rows - held
    if not 0 < first < n_rows:
        raise lp.ConfigError(
            f"hold_out: {hold_out:g} of the {n_rows:,} rows of {matrix.uri} leaves none "
            f"{'to validate on' if held == 0 else 'to learn from'}. Give 1 to {n_rows - 1:,}, or a share between."
        )
    train, validation = row_range(matrix, 0, first), row_range(matrix, first, n_rows)
    return (train, labels[:first]), (validation, labels[first:])
