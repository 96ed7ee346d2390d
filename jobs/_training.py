"""How networks are trained, as options of jobs: steps, machines, layers, where it is computed, and checkpoints."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs._config import Config, RunConfig, restart_of_a_state
from jobs._values import numbers, pair

ALL = "all"
NOT_OF_A_MODEL = (*RunConfig.model_fields, "state", "restart", "image_shape")

Share = Annotated[float, Field(ge=0, lt=1)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FromZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def rows_or_all(value: Any) -> Any:
    """Rows of a batch, or "all"; ValueError for what is neither."""
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


def units(value: Any) -> Any:
    """Units of each hidden layer, of none, one or several."""
    found = [] if value is None else numbers(value)
    return found if isinstance(found, list | tuple) else [found]


class LayersConfig(Config):
    """Of what a network of layers is made."""

    hidden: Annotated[tuple[Count, ...], BeforeValidator(units)] = Field(
        (1024,), description="units of each hidden layer, from the inputs on, such as 1024,512; none: no hidden layer"
    )
    activation: Literal["relu", "tanh", "sigmoid"] = Field("relu", description="of the hidden units")
    loss: Literal["cross_entropy", "squared_error"] = Field(
        "cross_entropy",
        description="what is made small: cross_entropy sorts into classes (softmax), squared_error predicts numbers",
    )
    dropout: Share = Field(0.0, description="share of hidden units left out of a step, by chance, such as 0.5")
    input_dropout: Share = Field(0.0, description="the same of the inputs, such as 0.2")
    initial: Literal["auto", "xavier", "xavier_normal", "he", "he_uniform", "lecun", "normal", "zeros"] = Field(
        "auto", description="first weights; auto is he for relu, xavier for the others"
    )


class StepsConfig(Config):
    """How backpropagation goes."""

    epochs: int = Field(20, ge=1, description="how often all rows are learnt from")
    batch_size: Annotated[int | Literal["all"], BeforeValidator(rows_or_all)] = Field(
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

    @field_validator("patience")
    @classmethod
    def _validates(cls, value: int | None, info: ValidationInfo) -> int | None:
        given = info.data  # of a part of a config, as fine_tuning is, without the rows: the library refuses those
        unvalidated = "hold_out" in given and given["hold_out"] is None and given.get("validation") is None
        if value is not None and unvalidated:
            raise ValueError("there are no validation rows to be patient about; give some, or leave it out")
        return value


def _of(name: str, default: Any, **changed: Any) -> Any:
    """The field of that name of StepsConfig with another default."""
    return Field(default, description=changed.get("description", StepsConfig.model_fields[name].description))


class MachineConfig(Config):
    """How a restricted Boltzmann machine is trained: contrastive divergence."""

    visible: Literal["bernoulli", "gaussian"] = Field(
        "bernoulli",
        description="visible units: bernoulli, of entries in [0, 1]; gaussian, of any numbers, which are standardised "
        "column by column",
    )
    k: Count = Field(1, description="Gibbs steps of a chain (CD-k)")
    persistent: bool = Field(
        False,
        description="chains go on from step to step (PCD), in place of from the rows: for samples that look like them; "
        "CD-k learns features faster, and its samples drift far from the rows",
    )
    epochs: Count = _of("epochs", 10)
    batch_size: Annotated[int | Literal["all"], BeforeValidator(rows_or_all)] = _of("batch_size", 100)
    optimizer: Literal["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam"] = _of(
        "optimizer", "momentum", description="how a step follows from the gradient"
    )
    learning_rate: AboveZero | None = _of(
        "learning_rate",
        None,
        description="length of a step; without it 0.05, of gaussian units 0.005; of persistent chains 0.002 and 0.0002",
    )
    momentum: Share = _of("momentum", 0.9)
    schedule: Literal["constant", "linear", "cosine", "step", "inverse"] = _of("schedule", "linear")
    warmup: Share = _of("warmup", 0.05)
    l2: FromZero = _of("l2", 2e-4)
    clip_norm: AboveZero | None = _of("clip_norm", None)


class FineTuningConfig(StepsConfig):
    """How the whole network is trained on labels, after its machines."""

    epochs: Count = _of("epochs", 30)
    optimizer: Literal["gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "curvature"] = _of(
        "optimizer", "momentum"
    )
    learning_rate: AboveZero | None = _of("learning_rate", 0.1)
    momentum: Share = _of("momentum", 0.9)
    schedule: Literal["constant", "linear", "cosine", "step", "inverse"] = _of("schedule", "linear")
    dropout: Share = Field(0.0, description="share of hidden units left out of a step, by chance, such as 0.5")
    input_dropout: Share = Field(0.0, description="the same of the inputs, such as 0.2")


class ComputingConfig(RunConfig):
    """Where a network of any kind is trained, and where its checkpoints are."""

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
        min_length=1,
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

    _restarts = field_validator("restart")(restart_of_a_state)


def options_of(*parts: Config) -> dict[str, Any]:
    """Of the fields of ``parts`` those that a network's constructor takes, under the same names."""
    names = [(part, name) for part in parts for name in type(part).model_fields if name not in NOT_OF_A_MODEL]
    options = {name: getattr(part, name) for part, name in names}
    if "batch_size" in options:
        options["batch_size"] = batch_rows(options["batch_size"])
    return options


def fields_of(config: Config, *kinds: type[Config]) -> dict[str, Any]:
    """The same of a ``config`` that inherits from several: of the fields of ``kinds`` alone."""
    names = {name for kind in kinds for name in kind.model_fields}
    return {name: value for name, value in options_of(config).items() if name in names}


def batch_rows(batch_size: int | str) -> int | None:
    """Rows of a batch as the library has them: None is all."""
    return None if isinstance(batch_size, str) else batch_size


def require_images(config: ComputingConfig, n_columns: int, uri: str) -> None:
    """Raise ConfigError, before anything is trained, for an image_shape that the columns do not fill."""
    if config.image_shape is not None and math.prod(config.image_shape) != n_columns:
        shape = ",".join(map(str, config.image_shape))
        raise lp.ConfigError(
            f"image_shape: {shape} has {math.prod(config.image_shape):,} pixels, but {uri} has {n_columns:,} columns. "
            f"Give another shape, or leave it out."
        )
