"""A restricted Boltzmann machine: ``python -m jobs rbm --source x.npy --hold-out 0.2``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field

import lazypipe as lp
from jobs import _run, _trained
from jobs._cli import command
from jobs._examples import Inputs, RowsConfig, open_rows
from jobs._run import Answer, Result, Work
from jobs._tables import aligned
from jobs._training import ComputingConfig, Count, MachineConfig, fields_of, require_images
from lazypipe.engines import Engine
from lazypipe.io.row_range import first_rows
from lazypipe.plain import plain
from lazypipe.plan import Plan
from lazypipe.progress import EpochDone, PassDone

SHOWN = 30  # rows beside their reconstructions
SAMPLES = 100


class RBMConfig(ComputingConfig, MachineConfig, RowsConfig):
    """Train a restricted Boltzmann machine on rows without labels, by contrastive divergence.

      python -m jobs rbm --source data/train.npy --divide-by 255 --n-hidden 500 --hold-out 0.1
      python -m jobs rbm --source data/activity.npy --visible gaussian --learning-rate 0.01 --epochs 50

    Bernoulli units take entries in [0, 1] for probabilities: divide pixels by 255. Gaussian ones take any numbers.
    Persistent chains want smaller steps: without --learning-rate theirs is 0.002, of Gaussian units 0.0002.
    Where the columns are an image (--image-shape, or a square), filters, reconstructions and samples are drawn so.
    """

    n_hidden: Count = Field(256, description="hidden units")
    sample_steps: int = Field(
        1000, ge=0, description="Gibbs steps, from random units on, of the 100 samples that are drawn; 0: none are"
    )


def run(config: RBMConfig) -> Result:
    """Train, save ``model.safetensors`` and ``history.csv``, and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: RBMConfig) -> Plan | Result:
    """What ``run`` would take, from metadata alone."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The epochs, and what they took."""
    figures = result.figures
    print("\n".join(aligned(_trained.epochs_table(figures["history"], None))))
    print("\n".join(f"{name:<9} {text}" for name, text in lines(figures).items()))
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def lines(figures: dict[str, Any]) -> dict[str, str]:
    """The summary by the first word of each line."""
    return {
        "machine": _trained.parameters_line(figures),
        "learning": figures["learning"],
        "last": _trained.stage_line(figures["history"]),
        "steps": _trained.pace_line(figures),
    }


def main(argv: list[str] | None = None) -> int:
    return command("rbm", RBMConfig, run, argv, show)


def work_of(config: RBMConfig) -> Work:
    import lazypipe.nets.rbm  # noqa: F401  # before the plan is made, which counts the memory of libraries

    model = lp.RBM(config.n_hidden, **fields_of(config, MachineConfig, ComputingConfig))

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        require_images(config, inputs.shape[1], inputs.uri)
        return lp.plan_rbm(inputs.train[0], model, validation=_others(inputs), engine=engine)

    def train(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        where: dict[str, Any] = {"engine": engine, "state": config.state, "restart": config.restart}
        with _trained.heard(engine) as epochs:
            model.fit(inputs.train[0], validation=_others(inputs), **where)
        return _answer(config, inputs, model, epochs)

    return Work("rbm", planned, train, open=lambda: open_rows(config))


def _others(inputs: Inputs) -> Any:
    return None if inputs.validation is None else inputs.validation[0]


def _answer(config: RBMConfig, inputs: Inputs, model: lp.RBM, epochs: list[EpochDone]) -> Answer:
    from lazypipe.nets.layers import n_parameters_of
    from lazypipe.nets.rbm import learning_note, machine_of, machine_options

    n_rows, n_columns = inputs.train[0].shape
    figures = {
        "network": f"{n_columns}-{config.n_hidden}, {config.visible} visible units",
        "learning": learning_note(machine_of(model), machine_options(vars(model))),
        "units": [n_columns, config.n_hidden],
        "n_parameters": sum(n_parameters_of((n_columns, config.n_hidden))),
        "n_rows": n_rows,
        "n_features": n_columns,
        "n_validation": 0 if inputs.validation is None else inputs.validation[0].shape[0],
        "validation": inputs.validated(),
        **_trained.course(model, config, config.batch_size, n_rows),
    }
    figures["samples_per_parameter"] = n_rows / figures["n_parameters"]
    figures["kept"] = dict(model.history_[-1])
    figures = plain(figures | {"best_epoch": None})
    return Answer(
        model=model,
        plan=model.plan_,
        arrays={},
        figures=figures,
        metrics=_trained.metrics(figures),
        pictures=lambda: _pictures(config, inputs, model),
        tables={"history": _trained.history_table(model.history_)},
        files={"model.safetensors": model.save},
        network=_trained.network_of_machine(model, config.divide_by)
        | {"example": first_rows(inputs.train[0], _trained.EXAMPLE_ROWS)},
        series=_trained.unheard(model.history_, epochs),
        note=f"- {_trained.parameters_line(figures)}\n- {figures['learning']}\n"
        f"- {_trained.stage_line(model.history_)}\n\n{_trained.BY_STEP}",
        warnings=[*inputs.warnings(), *model.notes_],
    )


def _pictures(config: RBMConfig, inputs: Inputs, model: lp.RBM) -> dict[str, Any]:
    from lazypipe.figures import filters, image_rows, samples, training_curves

    shape = config.image_shape
    found = {
        "training_curves.png": training_curves(model.history_),
        "filters.png": filters(model.components_, shape),
    }
    n_columns = inputs.shape[1]
    if shape is None and round(n_columns**0.5) ** 2 != n_columns:
        return found  # no images
    rows = first_rows(inputs.train[0] if inputs.validation is None else inputs.validation[0], SHOWN)
    found["reconstructions.png"] = image_rows({"rows": rows, "reconstructions": model.reconstruct(rows)}, shape)
    if config.sample_steps:
        found["samples.png"] = samples(model.sample(SAMPLES, config.sample_steps, config.seed), shape)
    return found


if __name__ == "__main__":
    sys.exit(main())
