"""Processor and GPU beside each other, training: ``python -m jobs devices``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs._cli import command
from jobs._config import Config
from jobs._training import ALL, AboveZero, Count, batch_rows, rows_or_all, units
from lazypipe.sizes import show_bytes

if TYPE_CHECKING:
    from lazypipe.io.examples import Examples
    from lazypipe.nets.measuring import Pace

HEAD = ("device", "products", "step", "samples/s", "epoch, resident", "streamed", "waiting", "memory")
LINE = "{:<28}  {:<14} {:>9} {:>11} {:>16} {:>9} {:>8} {:>9}"
CLASSES = 10


class DevicesConfig(Config):
    """Time the training of a multilayer perceptron on the processor and on the GPU: a step, and an epoch.

      python -m jobs devices
      python -m jobs devices --hidden 4096,4096 --batch-size 1024
      python -m jobs devices --source data/train.npy --labels data/train.labels.npy --divide-by 255

    Rows are random and of MNIST's size unless a source is given. A step is of a batch that lies on the device. Epochs
    are real ones, of rows that stay on the device (resident) and of rows that are read meanwhile, a quarter of them at
    a time (streamed). No epoch is timed with products that make a step slower than those of float32.
    """

    source: str | None = Field(None, min_length=1, description="matrix to train on; without it random rows are made")
    column: str | None = Field(
        None, description="list column of a table, or array of a Zarr group, where the source has several"
    )
    labels: str | None = Field(
        None, min_length=1, description="labels of its rows; without it random ones of 10 classes"
    )
    rows: int = Field(60_000, ge=2, description="rows that are made")
    columns: Count = Field(784, description="columns that are made")
    divide_by: AboveZero = Field(255.0, description="divide all entries by it")
    hidden: Annotated[tuple[Count, ...], BeforeValidator(units)] = Field(
        (1024,), description="units of each hidden layer, such as 1024,512; none: no hidden layer"
    )
    activation: Literal["relu", "tanh", "sigmoid"] = Field("relu", description="of the hidden units")
    optimizer: Literal["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam"] = Field(
        "adam", description="how a step follows from the gradient"
    )
    batch_size: Annotated[int | Literal["all"], BeforeValidator(rows_or_all)] = Field(
        128, description="rows a step; all: a step is a whole epoch"
    )
    device: Literal["all", "cpu", "cuda"] = Field("all", description="what is timed: all that there is, or one of them")
    threads: Count | None = Field(None, description="threads on the processor; without it every core")

    @field_validator("labels")
    @classmethod
    def _of_a_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("source") is None:
            raise ValueError("there is no source that they are of; give it, or leave them out")
        return value


def run(config: DevicesConfig) -> Iterator[Pace]:
    """How fast each device is with each kind of products, one after the other."""
    from lazypipe.nets.device import device_of, why_no_gpu
    from lazypipe.nets.measuring import paces
    from lazypipe.nets.network import Shape
    from lazypipe.nets.options import options_of

    options = options_of(
        {
            "divide_by": config.divide_by,
            "optimizer": config.optimizer,
            "threads": config.threads,
            "batch_size": batch_rows(config.batch_size),
        }
    )
    if config.device != ALL:
        device_of(config.device)  # refused before rows are made
    there = ("cpu",) if why_no_gpu() else ("cpu", "cuda")
    with _examples(config) as (train, n_classes):
        shape = Shape((train.n_features, *config.hidden, n_classes), config.activation, "cross_entropy")
        yield from paces(train, shape, options, there if config.device == ALL else (config.device,))


def show(config: DevicesConfig) -> None:
    """The table, a line as soon as it is known, and why there is no GPU in it."""
    from lazypipe.nets.device import why_no_gpu

    for i, pace in enumerate(run(config)):
        if i == 0:  # not before what may be refused
            print(LINE.format(*HEAD))
        print(LINE.format(*_cells(pace)), flush=True)
    if config.device == ALL and (why := why_no_gpu()):
        print(f"no GPU: {why}, so the processor alone was timed")


def _cells(pace: Pace) -> tuple[str, ...]:
    exact = {"high": " (TF32)"}.get(pace.matmul_precision, "")
    return (
        pace.device,
        f"{pace.precision}{exact}",
        f"{1000 * pace.step_seconds:.3g} ms",
        f"{pace.batch_rows / pace.step_seconds:,.0f}",
        _seconds(pace.resident_seconds),
        _seconds(pace.streamed_seconds),
        "-" if pace.waiting is None else f"{pace.waiting:.0%}",
        show_bytes(pace.device_memory) if pace.device_memory else "-",
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} s"


@contextmanager
def _examples(config: DevicesConfig) -> Iterator[tuple[Examples, int]]:
    """The rows to train on, and how many classes they are of."""
    from lazypipe.io.examples import Examples, examples_of
    from lazypipe.nets.measuring import write_rows

    with TemporaryDirectory(prefix="lazypipe-devices-") as folder:
        source = config.source
        if source is None:
            source = str(Path(folder, "rows.npy"))
            write_rows(Path(source), config.rows, config.columns)
        matrix = lp.open_matrix(source, column=config.column)
        if config.labels is None:
            codes = np.random.default_rng(0).integers(0, CLASSES, matrix.shape[0], np.int32)
            yield Examples(matrix, codes, config.divide_by), CLASSES
        else:
            examples, classes = examples_of((matrix, config.labels), config.divide_by, False)
            yield examples, 0 if classes is None else len(classes)


def main(argv: list[str] | None = None) -> int:
    return command("devices", DevicesConfig, show, argv)


if __name__ == "__main__":
    sys.exit(main())
