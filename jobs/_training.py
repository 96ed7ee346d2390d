"""What the jobs that train networks have in common: how they are trained, and what is told, saved and logged of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs._config import RunConfig
from jobs._values import numbers, pair
from lazypipe.engines import Engine
from lazypipe.progress import EpochDone
from lazypipe.results import Table
from lazypipe.sizes import show_bytes
from lazypipe.tracking import Point
from lazypipe.tracking.training import named

SHOWN = 12  # epochs in the summary
ALL = "all"
NOT_OF_TRAINING = (*RunConfig.model_fields, "state", "restart", "image_shape")
HEADS = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
}

Share = Annotated[float, Field(ge=0, lt=1)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FromZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _rows_or_all(value: Any) -> Any:
    found = ALL if value is None or value == ALL else numbers(value)
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    if found != ALL and (not isinstance(found, int) or isinstance(found, bool) or found < 1):
        raise ValueError(f"{value!r} is no number of rows; give 1 or more, or all")
    return found


def _height_and_width(value: Any) -> Any:
    if value is None:
        return None
    found = pair(value)
    if not all(isinstance(side, int) and side >= 1 for side in found):
        raise ValueError("give height and width in pixels, such as 28,28")
    return found


class TrainingConfig(RunConfig):
    """How a network of any kind is trained, and where its checkpoints are."""

    epochs: int = Field(20, ge=1, description="how often all rows are learnt from")
    batch_size: Annotated[int | Literal["all"], BeforeValidator(_rows_or_all)] = Field(
        128, description="rows a step; all: a step is a whole epoch (full batch)"
    )
    optimizer: Literal["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "curvature"] = Field(
        "adam", description="how a step follows from the gradient; curvature is an experiment, see --curvature"
    )
    learning_rate: AboveZero | None = Field(
        None,
        description="length of a step; without it the optimizer's usual one: 0.1 (gradient_descent, curvature), 0.02 "
        "(momentum, nesterov), 0.01 (adagrad), 0.001 (rmsprop, adam)",
    )
    momentum: Share = Field(0.9, description="share of the last step that goes on: momentum and nesterov")
    schedule: Literal["constant", "linear", "cosine", "step", "inverse"] = Field(
        "constant",
        description="of the learning rate: linear (constant for the first half, then down to 0), cosine (down to 0), "
        "step (a tenth from half on, a hundredth from three quarters on), inverse (1/t, down to a tenth)",
    )
    warmup: Share = Field(0.0, description="share of all steps over which the learning rate rises from 0")
    l2: FromZero = Field(0.0, description="penalty on the squares of the weights, l2 ‖W‖² / 2; biases have none")
    clip_norm: AboveZero | None = Field(None, description="largest norm of a step's gradient, such as 1 or 5")
    curvature: FromZero = Field(0.01, description="optimizer curvature: β of its term of second derivatives")
    patience: Count | None = Field(
        None, description="end after so many epochs that validate no better than the best one so far"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch's network is saved: that which validated best, or the last"
    )
    divide_by: AboveZero = Field(1.0, description="divide all entries by it: 255 brings pixels to 0 to 1")
    seed: int = Field(0, ge=0, description="of the first weights, the order of the rows, and dropout")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what computes: a GPU where there is one (auto), the processor, or a GPU and nothing else"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of products; in bfloat16 weights and sums stay float32. For GPUs, which are faster so"
    )
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest", description="torch's float32_matmul_precision: high lets a GPU multiply float32 in TF32"
    )
    threads: Count | None = Field(None, description="threads of a training on the processor; without it every core")
    processes: Count = Field(
        1, description="processes that share each batch: of this machine, or a worker of the cluster each"
    )
    timeout: AboveZero = Field(300.0, description="several processes: seconds until one that is missing is given up")
    state: str | None = Field(
        None,
        description="folder for checkpoints: after a kill the same command goes on where it was, in the middle of an "
        "epoch too, and on processors ends with the same bits; a constant schedule goes on to more --epochs, too",
    )
    restart: bool = Field(False, description="forget what the state folder holds, and start over")
    checkpoint_steps: Count | None = Field(
        None, description="steps between checkpoints, beside those at the end of every epoch"
    )
    image_shape: Annotated[tuple[int, int] | None, BeforeValidator(_height_and_width)] = Field(
        None,
        description="height,width of the images that the rows are, such as 28,28: weights are drawn so; without it "
        "square where the columns make a square",
    )

    @field_validator("patience")
    @classmethod
    def _validates(cls, value: int | None, info: ValidationInfo) -> int | None:
        given = info.data
        if value is not None and "hold_out" in given and given["hold_out"] is given.get("validation") is None:
            raise ValueError("there are no validation rows to be patient about; give some, or leave it out")
        return value

    @field_validator("restart")
    @classmethod
    def _of_a_state(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("state") is None:
            raise ValueError("there is no state to forget; give state, or leave restart out")
        return value


def training_options(config: TrainingConfig) -> dict[str, Any]:
    """Of the fields above those that a network's constructor takes, under the same names."""
    names = [name for name in TrainingConfig.model_fields if name not in NOT_OF_TRAINING]
    options = {name: getattr(config, name) for name in names}
    return options | {"batch_size": None if config.batch_size == ALL else config.batch_size}


def require_images(config: TrainingConfig, n_columns: int, uri: str) -> None:
    """Raise ConfigError, before anything is trained, for an image_shape that the columns do not fill."""
    if config.image_shape is not None and math.prod(config.image_shape) != n_columns:
        shape = ",".join(map(str, config.image_shape))
        raise lp.ConfigError(
            f"image_shape: {shape} has {math.prod(config.image_shape):,} pixels, but {uri} has {n_columns:,} columns. "
            f"Give another shape, or leave it out."
        )


@contextmanager
def heard(engine: Engine) -> Iterator[list[EpochDone]]:
    """The epochs that are told of meanwhile: not those before a resume."""
    epochs: list[EpochDone] = []

    def listen(event: Any) -> None:
        if isinstance(event, EpochDone):
            epochs.append(event)

    engine.progress.listeners.append(listen)
    try:
        yield epochs
    finally:
        engine.progress.listeners.remove(listen)


def unheard(history: Sequence[Mapping[str, Any]], epochs: Sequence[EpochDone]) -> list[Point]:
    """Metrics of the epochs that MLflow was not told of while they went on, so that a resumed run has them all."""
    told, points = {(event.stage, event.epoch) for event in epochs}, []
    for entry in history:
        stage, epoch, step = entry["stage"], entry["epoch"], entry["step"]
        if (stage, epoch) not in told:
            measures = {name: value for name, value in entry.items() if name not in ("stage", "epoch", "step")}
            points += [(*point, step) for point in named(EpochDone(stage, epoch, len(history), step, measures))]
    return points


def pace_of(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Rows a second over all epochs, and the share of that time spent waiting for rows."""
    seconds = [1 / epoch["samples_per_second"] for epoch in history if epoch["samples_per_second"]]
    waited = [epoch["waiting"] / epoch["samples_per_second"] for epoch in history if epoch["samples_per_second"]]
    if not seconds:
        return {"samples_per_second": 0.0, "waiting": 0.0}
    return {"samples_per_second": len(seconds) / sum(seconds), "waiting": sum(waited) / sum(seconds)}


def history_table(history: Sequence[Mapping[str, Any]]) -> Table:
    """A row an epoch, the head first; what an epoch was not measured by is empty."""
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    return [names, *([epoch.get(name, "") for name in names] for epoch in history)]


def plain(value: Any) -> Any:
    """As JSON has it: no NaN, no infinity."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def epochs_table(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> list[tuple[str, ...]]:
    """What is shown of a stage's history: the head, and up to 12 epochs, the best among them with a star."""
    names = [name for name in HEADS if any(epoch.get(name) is not None for epoch in history)]
    n = len(history)
    places = {round(i * (n - 1) / max(1, SHOWN - 1)) for i in range(SHOWN)} if n > SHOWN else set(range(n))
    places |= {i for i, epoch in enumerate(history) if epoch["epoch"] == best_epoch}
    rows = []
    for i in sorted(places):
        epoch = history[i]
        star = "*" if epoch["epoch"] == best_epoch else ""
        measured = [_told(name, epoch.get(name)) for name in names]
        rows.append((f"{star}{epoch['epoch']:,}", *measured, f"{epoch['samples_per_second']:,.0f}"))
    return [("epoch", *(HEADS[name] for name in names), "samples/s"), *rows]


def _told(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name.endswith("accuracy") else f"{value:.4g}"


def measures_line(measures: Mapping[str, float | None], kind: str) -> str:
    """``accuracy 0.9812, loss 0.0634`` of the training or validation measures of an epoch."""
    found = {name: measures.get(f"{kind}_{name}") for name in ("accuracy", "r2", "loss")}
    return ", ".join(
        f"{'R²' if name == 'r2' else name} {_told(name, value)}" for name, value in found.items() if value is not None
    )


def pace_line(figures: Mapping[str, Any]) -> str:
    """How many steps there were, how fast, and on what."""
    products = figures["products"]
    return (
        f"{figures['n_steps']:,} of {figures['batch_rows']:,} rows, {figures['samples_per_second']:,.0f} samples/s, "
        f"{figures['waiting']:.1%} of the time waiting for data; {figures['device']}, {products}; "
        f"{figures['seconds']:.1f} s in all"
    )


def products_of(config: TrainingConfig) -> str:
    """How products are rounded, in words."""
    if config.precision != "float32" or config.matmul_precision == "highest":
        return config.precision
    return f"float32 ({config.matmul_precision})"


def parameters_line(figures: Mapping[str, Any]) -> str:
    """The network, and what it takes."""
    n = figures["n_parameters"]
    return f"{figures['network']}: {n:,} parameters, {show_bytes(4 * n)}"
