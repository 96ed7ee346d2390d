"""A multilayer perceptron: ``python -m jobs mlp --source x.npy --labels y.npy --hold-out 0.2``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import BeforeValidator, Field

import lazypipe as lp
from jobs import _run, _training
from jobs._cli import command
from jobs._config import Config
from jobs._examples import ExamplesConfig, Inputs, open_inputs
from jobs._run import Answer, Result, Work
from jobs._tables import aligned
from jobs._training import Count, Share, TrainingConfig
from jobs._values import numbers
from lazypipe.engines import Engine
from lazypipe.io.row_range import first_rows
from lazypipe.plan import Plan
from lazypipe.progress import PassDone
from lazypipe.tracking import Point

EXAMPLE_ROWS = 3
MOST_CONFUSED = 1000  # classes: of more a confusion matrix says nothing that could be looked at
OUTPUTS = {"cross_entropy": "softmax", "squared_error": "linear"}
NOT_VALIDATED = (
    "nothing was validated, so nothing says how it does on other rows: give validation and validation_labels, or "
    "hold_out"
)


def _units(value: Any) -> Any:
    found = [] if value is None else numbers(value)
    return found if isinstance(found, list | tuple) else [found]


class LayersConfig(Config):
    """Of what a network of layers is made."""

    hidden: Annotated[tuple[Count, ...], BeforeValidator(_units)] = Field(
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


class MLPConfig(TrainingConfig, LayersConfig, ExamplesConfig):
    """Train a multilayer perceptron to sort rows into classes, or to predict a number, on the processor or a GPU.

      python -m jobs mlp --source data/train.npy --labels data/train.labels.npy --hold-out 0.2
      python -m jobs mlp --source data/train.npy --labels data/train.labels.npy --validation data/test.npy \\
        --validation-labels data/test.labels.npy --divide-by 255 --hidden 1024,512 --dropout 0.2 --l2 1e-4 \\
        --schedule cosine --epochs 30 --patience 5 --state states/mlp --out results/mlp

    Rows that the budget (--engine.memory) holds are read once; of larger files blocks are read in random order while
    it computes. All epochs are told as they end; that which validates best is kept. Without validation rows nothing is
    validated, and the last is kept. Convert gzipped IDX, and formats of compressed chunks, to .npy first.
    """

    must_validate: ClassVar[bool] = False


def run(config: MLPConfig) -> Result:
    """Train, save ``model.safetensors``, ``history.csv`` and ``confusion`` (K, K), and log the run."""
    return _run.carry_out(config, _work(config))


def plan(config: MLPConfig) -> Plan:
    """What ``run`` would take, from labels and metadata."""
    return _run.plan(config, _work(config))


def show(result: Result) -> None:
    """The epochs, which of them is kept, and what it took."""
    figures = result.figures
    print("\n".join([*aligned(rows(figures)), *(f"{name:<9} {text}" for name, text in told(figures).items())]))
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """The head of the table, and up to 12 epochs."""
    return _training.epochs_table(figures["history"], figures["best_epoch"])


def told(figures: dict[str, Any]) -> dict[str, str]:
    """The lines of the summary, by their first words."""
    return {
        "network": _training.parameters_line(figures),
        "kept": kept_line(figures),
        "rows": f"{figures['n_rows']:,}: {figures['rule_of_thumb']}",
        "steps": _training.pace_line(figures),
    }


def kept_line(figures: dict[str, Any]) -> str:
    """Which epoch is saved, and how good it is."""
    scores, n_epochs = figures["kept"], figures["passes"]
    early = ", stopped early" if figures["stopped_early"] else ""
    training = f"training {_training.measures_line(scores, 'train')}"
    if not figures["n_validation"]:
        return f"epoch {scores['epoch']:,}, the last; {training}. Of this network {NOT_VALIDATED}"
    which = "best" if scores["epoch"] == figures["best_epoch"] else "last"
    return (
        f"epoch {scores['epoch']:,} of {n_epochs:,}, the {which}{early}: validation "
        f"{_training.measures_line(scores, 'validation')} ({figures['n_validation']:,} rows); {training}"
    )


def main(argv: list[str] | None = None) -> int:
    return command("mlp", MLPConfig, lambda config: show(run(config)), argv)


def _work(config: MLPConfig) -> Work:
    import lazypipe.nets.mlp  # noqa: F401  # before the plan is made, which counts the memory of libraries

    layers = {name: getattr(config, name) for name in LayersConfig.model_fields}
    model = lp.MLP(**layers, **_training.training_options(config))

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        _training.require_images(config, inputs.shape[1], inputs.uri)
        return lp.plan_mlp(*inputs.train, model, validation=inputs.validation, engine=engine)

    def train(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        with _training.heard(engine) as epochs:
            model.fit(
                *inputs.train,
                validation=inputs.validation,
                engine=engine,
                state=config.state,
                restart=config.restart,
            )
        return _answer(config, inputs, model, _training.unheard(model.history_, epochs))

    return Work("mlp", planned, train, open=lambda: open_inputs(config))


def _answer(config: MLPConfig, inputs: Inputs, model: lp.MLP, series: list[Point]) -> Answer:
    from lazypipe.nets.mlp import rule_of_thumb

    n_rows, n_parameters = inputs.train[0].shape[0], model.shape_.n_parameters
    kept = _kept(config, model)
    arrays, confusion = {}, None
    if config.loss == "cross_entropy" and inputs.validation is not None and len(model.classes_) <= MOST_CONFUSED:
        arrays["confusion"] = confusion = model.confusion(*inputs.validation)
    if config.loss == "squared_error" and inputs.validation is not None:
        kept["validation_r2"] = model.score(*inputs.validation)
    figures = {
        "network": f"{model.shape_}, {config.activation}, {config.loss}",
        "units": list(model.shape_.units),
        "n_parameters": n_parameters,
        "samples_per_parameter": model.samples_per_parameter_,
        "rule_of_thumb": rule_of_thumb(n_rows, n_parameters),
        "classes": model.classes_.tolist() if config.loss == "cross_entropy" else None,
        "n_rows": n_rows,
        "n_features": inputs.shape[1],
        "n_validation": 0 if inputs.validation is None else inputs.validation[0].shape[0],
        "validation": inputs.validated(),
        "kept": kept,
        "best_epoch": model.best_epoch_,
        "stopped_early": model.stopped_early_,
        "passes": len(model.history_),
        "n_steps": model.n_steps_,
        "batch_rows": n_rows if config.batch_size == _training.ALL else config.batch_size,
        **_training.pace_of(model.history_),
        "device": model.device_,
        "products": _training.products_of(config),
        "history": model.history_,
    }
    figures = _training.plain(figures)
    layers = [(coef.T, intercept) for coef, intercept in zip(model.coefs_, model.intercepts_, strict=True)]
    return Answer(
        model=model,
        plan=model.plan_,
        arrays=arrays,
        figures=figures,
        metrics=_metrics(figures),
        pictures=lambda: _pictures(config, model, confusion),
        tables={"history": _training.history_table(model.history_)},
        files={"model.safetensors": model.save},
        network={
            "layers": layers,
            "activation": config.activation,
            "output": OUTPUTS[config.loss],
            "classes": model.classes_ if config.loss == "cross_entropy" else None,
            "divide_by": config.divide_by,
            "example": first_rows(inputs.train[0], EXAMPLE_ROWS),
        },
        series=series,
        note=_note(figures),
        warnings=[*inputs.warnings(), *model.notes_],
    )


def _kept(config: MLPConfig, model: lp.MLP) -> dict[str, Any]:
    """The epoch whose parameters are saved, as the history has it."""
    epoch = model.best_epoch_ if config.keep == "best" and model.best_epoch_ is not None else len(model.history_)
    return dict(model.history_[epoch - 1])


def _metrics(figures: dict[str, Any]) -> dict[str, float]:
    """Figures of the whole run; those by step and by epoch have been logged while it went on."""
    known = {"n_parameters", "samples_per_parameter", "best_epoch", "n_steps"}
    metrics = {name: float(figures[name]) for name in sorted(known) if figures[name] is not None}
    scores = {name: value for name, value in figures["kept"].items() if name.startswith(("train_", "validation_"))}
    return metrics | {f"kept_{name}": float(value) for name, value in scores.items() if value is not None}


def _pictures(config: MLPConfig, model: lp.MLP, confusion: Any) -> dict[str, Any]:
    from lazypipe.figures import confusion_matrix, filters, training_curves

    pictures = {
        "training_curves.png": training_curves(model.history_, model.best_epoch_),
        "filters.png": filters(model.coefs_[0].T, config.image_shape),
    }
    if confusion is not None:
        pictures["confusion.png"] = confusion_matrix(confusion, model.classes_)
    return pictures


def _note(figures: dict[str, Any]) -> str:
    """Markdown for MLflow."""
    said = "\n".join(f"- {name}: {text}" for name, text in told({**figures, "seconds": 0.0}).items() if name != "steps")
    return (
        f"{said}\n\nMetrics `loss`, `accuracy`, `samples_per_second`, `waiting` (share of the time spent waiting for "
        f"data) and `device_memory` (bytes) are by step, `train_...` and `validation_...` by epoch, at its last step. "
        f"The model takes raw rows: `mlflow.pyfunc.load_model`."
    )


if __name__ == "__main__":
    sys.exit(main())
