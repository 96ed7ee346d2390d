"""What is told, saved and logged of a network that a job has trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import lazypipe as lp
from jobs._examples import Inputs
from jobs._run import Answer
from jobs._training import ComputingConfig
from lazypipe.engines import Engine
from lazypipe.io.row_range import first_rows
from lazypipe.plain import plain
from lazypipe.progress import EpochDone
from lazypipe.results import Table
from lazypipe.sizes import show_bytes
from lazypipe.tracking import Point
from lazypipe.tracking.training import named

SHOWN = 12  # epochs in the summary
EXAMPLE_ROWS = 3
MOST_CONFUSED = 1000  # classes: of more a confusion matrix says nothing that could be looked at
KINDS = ("train_", "validation_")
OUTPUTS = {"cross_entropy": "softmax", "squared_error": "linear"}
NOT_VALIDATED = (
    "nothing was validated, so nothing says how it does on other rows: give validation and validation_labels, or "
    "hold_out"
)
BY_STEP = (
    "Metrics by step are `samples_per_second`, `waiting` (share of the time spent waiting for data), "
    "`device_memory` (bytes), and what is learnt by, such as `loss` and `accuracy`; `train_...` and `validation_...` "
    "are by epoch, at its last step. The model takes raw rows: `mlflow.pyfunc.load_model`."
)

History = Sequence[Mapping[str, Any]]


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


def unheard(history: History, epochs: Sequence[EpochDone]) -> list[Point]:
    """Metrics of the epochs that MLflow was not told of while they went on, so that a resumed run has them all."""
    told, points = {(event.stage, event.epoch) for event in epochs}, []
    for entry in history:
        stage, epoch, step = entry["stage"], entry["epoch"], entry["step"]
        if (stage, epoch) not in told:
            measures = {name: value for name, value in entry.items() if name not in ("stage", "epoch", "step")}
            points += [(*point, step) for point in named(EpochDone(stage, epoch, len(history), step, measures))]
    return points


def pace_of(history: History) -> dict[str, float]:
    """Rows a second over all epochs, and the share of that time spent waiting for rows."""
    seconds = [1 / epoch["samples_per_second"] for epoch in history if epoch["samples_per_second"]]
    waited = [epoch["waiting"] / epoch["samples_per_second"] for epoch in history if epoch["samples_per_second"]]
    if not seconds:
        return {"samples_per_second": 0.0, "waiting": 0.0}
    return {"samples_per_second": len(seconds) / sum(seconds), "waiting": sum(waited) / sum(seconds)}


def history_table(history: History) -> Table:
    """A row an epoch, the head first; what an epoch was not measured by is empty."""
    names = list(dict.fromkeys(name for epoch in history for name in epoch))
    return [names, *([epoch.get(name, "") for name in names] for epoch in history)]


def epochs_table(history: History, best_epoch: int | None) -> list[tuple[str, ...]]:
    """What is shown of a stage's history: the head, and up to 12 epochs, the best one with a star among them."""
    names = [name for epoch in history[:1] for name in epoch if name.startswith(KINDS)]
    n = len(history)
    places = {round(i * (n - 1) / max(1, SHOWN - 1)) for i in range(SHOWN)} if n > SHOWN else set(range(n))
    places |= {i for i, epoch in enumerate(history) if epoch["epoch"] == best_epoch}
    rows = []
    for i in sorted(places):
        epoch = history[i]
        star = "*" if epoch["epoch"] == best_epoch else ""
        measured = [_told(name, epoch.get(name)) for name in names]
        rows.append((f"{star}{epoch['epoch']:,}", *measured, f"{epoch['samples_per_second']:,.0f}"))
    heads = [name.removeprefix("train_").replace("_", " ") for name in names]
    return [("epoch", *heads, "samples/s"), *rows]


def _told(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name.endswith("accuracy") else f"{value:.4g}"


def stage_line(history: History) -> str:
    """The last epoch of a stage that has a name, in words."""
    last = history[-1]
    said = [f"{name.removeprefix('train_').replace('_', ' ')} {_told(name, last[name])}" for name in last
            if name.startswith(KINDS)]  # fmt: skip
    return f"{len(history):,} epochs; {', '.join(said)}"


def last_stage(history: History) -> list[Mapping[str, Any]]:
    """The epochs of the stage that came last."""
    return [epoch for epoch in history if epoch["stage"] == history[-1]["stage"]]


def measures_line(measures: Mapping[str, float | None], kind: str) -> str:
    """``accuracy 0.9812, loss 0.0634`` of the training or validation measures of an epoch."""
    found = {name: measures.get(f"{kind}_{name}") for name in ("accuracy", "r2", "loss")}
    return ", ".join(
        f"{'R²' if name == 'r2' else name} {_told(name, value)}" for name, value in found.items() if value is not None
    )


def pace_line(figures: Mapping[str, Any]) -> str:
    """How many steps there were in the last stage, how fast, and on what."""
    n_steps, rate = figures["history"][-1]["step"], figures["samples_per_second"]
    return (
        f"{n_steps:,} of {figures['batch_rows']:,} rows, {rate:,.0f} samples/s, "
        f"{figures['waiting']:.1%} of the time waiting for data; {figures['device']}, {figures['products']}; "
        f"{figures['seconds']:.1f} s in all"
    )


def products_of(config: ComputingConfig) -> str:
    """How products are rounded, in words."""
    if config.precision != "float32" or config.matmul_precision == "highest":
        return config.precision
    return f"float32 ({config.matmul_precision})"


def parameters_line(figures: Mapping[str, Any]) -> str:
    """The network, and what it takes."""
    n = figures["n_parameters"]
    return f"{figures['network']}: {n:,} parameters, {show_bytes(4 * n)}"


def course(model: Any, config: ComputingConfig, batch_size: int | str, n_rows: int) -> dict[str, Any]:
    """The figures that all trainings have: how many steps of how many rows, how fast, on what, and their history."""
    return {
        "n_steps": model.n_steps_,
        "batch_rows": n_rows if isinstance(batch_size, str) else batch_size,
        **pace_of(last_stage(model.history_)),
        "device": model.device_,
        "products": products_of(config),
        "passes": len(model.history_),
        "history": model.history_,
    }


def kept_line(figures: Mapping[str, Any]) -> str:
    """Which epoch is saved, and how good it is."""
    scores, n_epochs = figures["kept"], len(last_stage(figures["history"]))
    early = ", stopped early" if figures["stopped_early"] else ""
    training = f"training {measures_line(scores, 'train')}"
    if not figures["n_validation"]:
        return f"epoch {scores['epoch']:,}, the last; {training}. Of this network {NOT_VALIDATED}"
    which = "best" if scores["epoch"] == figures["best_epoch"] else "last"
    return (
        f"epoch {scores['epoch']:,} of {n_epochs:,}, the {which}{early}: validation "
        f"{measures_line(scores, 'validation')} ({figures['n_validation']:,} rows); {training}"
    )


def lines(figures: Mapping[str, Any]) -> dict[str, str]:
    """The summary of a network with outputs, by the first word of each line."""
    return {**_network_lines(figures), "steps": pace_line(figures)}


def _network_lines(figures: Mapping[str, Any]) -> dict[str, str]:
    """What is known of it before the time that it took."""
    return {
        "network": parameters_line(figures),
        "kept": kept_line(figures),
        "rows": f"{figures['n_rows']:,}: {figures['rule_of_thumb']}",
    }


def answer(
    config: ComputingConfig,
    inputs: Inputs,
    trained: Any,
    network: lp.MLP,
    *,
    keep: str,
    batch_size: int | str,
    epochs: Sequence[EpochDone],
) -> Answer:
    """Of a network with outputs: ``trained`` has the history, and ``network`` (itself, of an MLP) what is saved."""
    from lazypipe.nets.mlp import rule_of_thumb

    n_rows, n_parameters = inputs.train[0].shape[0], network.shape_.n_parameters
    classifies = network.loss == "cross_entropy"
    last = last_stage(trained.history_)
    best = trained.best_epoch_ if keep == "best" else None
    kept = dict(last[-1] if best is None else next(epoch for epoch in last if epoch["epoch"] == best))
    arrays: dict[str, np.ndarray] = {}
    if inputs.validation is not None and not classifies:
        kept["validation_r2"] = network.score(*inputs.validation)
    elif inputs.validation is not None and len(network.classes_) <= MOST_CONFUSED:
        arrays["confusion"] = network.confusion(*inputs.validation)
    figures = {
        "network": f"{network.shape_}, {network.activation}, {network.loss}",
        "units": list(network.shape_.units),
        "n_parameters": n_parameters,
        "samples_per_parameter": trained.samples_per_parameter_,
        "rule_of_thumb": rule_of_thumb(n_rows, n_parameters),
        "classes": network.classes_.tolist() if classifies else None,
        "n_rows": n_rows,
        "n_features": inputs.shape[1],
        "n_validation": 0 if inputs.validation is None else inputs.validation[0].shape[0],
        "validation": inputs.validated(),
        "kept": kept,
        "best_epoch": trained.best_epoch_,
        "stopped_early": trained.stopped_early_,
        **course(trained, config, batch_size, n_rows),
    }
    figures = plain(figures)
    said = "\n".join(f"- {name}: {text}" for name, text in _network_lines(figures).items())
    return Answer(
        model=trained,
        plan=trained.plan_,
        arrays=arrays,
        figures=figures,
        metrics=metrics(figures),
        pictures=lambda: pictures(config, trained, network, arrays.get("confusion")),
        tables={"history": history_table(trained.history_)},
        files={"model.safetensors": network.save},
        network=network_of(network, config.divide_by) | {"example": first_rows(inputs.train[0], EXAMPLE_ROWS)},
        series=unheard(trained.history_, epochs),
        note=f"{said}\n\n{BY_STEP}",
        warnings=[*inputs.warnings(), *trained.notes_],
    )


def network_of(network: lp.MLP, divide_by: float) -> dict[str, Any]:
    """Arguments of tracking.log_network."""
    return {
        "layers": [(coef.T, bias) for coef, bias in zip(network.coefs_, network.intercepts_, strict=True)],
        "activation": network.activation,
        "output": OUTPUTS[network.loss],
        "classes": network.classes_ if network.loss == "cross_entropy" else None,
        "divide_by": divide_by,
    }


def network_of_machine(machine: lp.RBM, divide_by: float) -> dict[str, Any]:
    """The same of a Boltzmann machine: rows in, probabilities of its hidden units out."""
    return {"layers": machine.stack_.entered(), "output": "sigmoid", "divide_by": divide_by}


def metrics(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the whole run; those by step and by epoch have been logged while it went on."""
    names = ("n_parameters", "samples_per_parameter", "best_epoch", "n_steps")
    found = {name: figures[name] for name in names} | {
        f"kept_{name}": value for name, value in figures["kept"].items() if name.startswith(KINDS)
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def pictures(config: ComputingConfig, trained: Any, network: lp.MLP, confusion: np.ndarray | None) -> dict[str, Any]:
    """Learning curves, the first layer's weights, and the confusions of a classifier."""
    from lazypipe.figures import confusion_matrix, filters, training_curves

    found = {
        "training_curves.png": training_curves(trained.history_, trained.best_epoch_),
        "filters.png": filters(network.coefs_[0].T, config.image_shape),
    }
    if confusion is not None:
        found["confusion.png"] = confusion_matrix(confusion, network.classes_.tolist())
    return found
