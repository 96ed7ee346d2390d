"""A cell of a sweep: what one model at one size, one strength and one seed came to; and the table of cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("C", pa.float64(), nullable=False),
        pa.field("seed", pa.int64()),  # null: the rows as given
        pa.field("status", pa.string(), nullable=False),
        pa.field("train_accuracy", pa.float64()),
        pa.field("validation_accuracy", pa.float64()),
        pa.field("train_r2", pa.float64()),
        pa.field("validation_r2", pa.float64()),
        pa.field("objective", pa.float64()),  # mean loss + |W|^2 / (2 C size)
        pa.field("gap", pa.float64()),  # (objective - optimum) / objective, an estimate; null: unknown
        pa.field("passes", pa.int64()),  # over the rows of the prefix
        pa.field("converged", pa.bool_()),
        pa.field("seconds", pa.float64()),
        pa.field("n_classes", pa.int64()),  # in the prefix
        pa.field("note", pa.string(), nullable=False),  # classes that are missing; why it failed
    ]
)
TIMED = ("seconds",)  # columns in which two runs of one plan may differ


@dataclass(frozen=True)
class Cell:
    """One row of the table; ``None`` where a column does not apply."""

    model: str
    size: int
    C: float
    seed: int | None
    status: Literal["done", "failed", "stopped"]
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    train_r2: float | None = None
    validation_r2: float | None = None
    objective: float | None = None
    gap: float | None = None
    passes: int | None = None
    converged: bool | None = None
    seconds: float | None = None
    n_classes: int | None = None
    note: str = ""

    @property
    def score(self) -> float | None:
        """Of the validation rows: accuracy, or R²."""
        return self.validation_accuracy if self.validation_r2 is None else self.validation_r2

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells a cell from all others of its sweep, in the order of the table."""
        return (self.model, -1 if self.seed is None else self.seed, self.size, -self.C)


def table_of(cells: Iterable[Cell]) -> pa.Table:
    """The table of cells: by model, seed and size, strongest C (least regularization) first."""
    rows = [asdict(cell) for cell in sorted(cells, key=lambda cell: cell.key)]
    return pa.Table.from_pylist(rows, SCHEMA)
