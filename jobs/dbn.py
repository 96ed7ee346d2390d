"""A deep belief network: ``python -m jobs dbn --source x.npy --labels y.npy --hold-out 0.2``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

import lazypipe as lp
from jobs import _run, _trained
from jobs._cli import command
from jobs._examples import ExamplesConfig, Inputs, open_inputs
from jobs._run import Answer, Result, Work
from jobs._tables import aligned
from jobs._training import (
    ComputingConfig,
    Count,
    FineTuningConfig,
    MachineConfig,
    fields_of,
    options_of,
    require_images,
    units,
)
from jobs._values import numbers
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.progress import PassDone

STACK = "stack.safetensors"


class DBNConfig(ComputingConfig, ExamplesConfig):
    r"""Train a deep belief network: Boltzmann machines layer by layer, without labels, then the whole on labels.

      python -m jobs dbn --source data/train.npy --labels data/train.labels.npy --divide-by 255 --hold-out 0.1
      python -m jobs dbn --source data/few.npy --labels data/few.labels.npy --unlabelled data/train.npy \
        --divide-by 255 --hidden 500,500 --pretraining.epochs 20 --fine-tuning.epochs 30 --fine-tuning.dropout 0.2
      python -m jobs dbn --source data/few.npy --labels data/few.labels.npy --stack results/dbn/stack.safetensors

    The machines are trained on --unlabelled, else on the source; a stack that a run has left is not trained again.
    Persistent chains want smaller steps: without --pretraining.learning-rate theirs is 0.002, of Gaussian units 0.0002.
    """

    must_validate: ClassVar[bool] = False

    unlabelled: str | None = Field(
        None, min_length=1, description="matrix of rows to train the machines on; without it those of the source"
    )
    hidden: Annotated[tuple[Count, ...], BeforeValidator(units)] = Field(
        (500, 500, 2000), min_length=1, description="units of each hidden layer, from the inputs on"
    )
    stack: str | None = Field(
        None, min_length=1, description="stack.safetensors of another run: its layers stay, those above are trained"
    )
    pretrain: bool = Field(True, description="train machines first; false: start from random weights")
    codes: Annotated[tuple[Count, ...] | None, BeforeValidator(numbers)] = Field(
        None,
        description="also autoencoders with so many codes on top of the hidden layers, such as 2,5,10,30: how well "
        "they give the validation rows back, beside as many principal components",
    )
    pretraining: MachineConfig = Field(MachineConfig(), description="how the machines are trained")
    fine_tuning: FineTuningConfig = Field(FineTuningConfig(), description="how the whole is trained on labels")

    @field_validator("pretrain")
    @classmethod
    def _of_no_stack(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("stack") is not None:
            raise ValueError("false goes without a stack; give one of the two")
        return value


def run(config: DBNConfig) -> Result:
    """Train, save ``model.safetensors``, ``stack.safetensors``, ``history.csv`` and ``confusion``, and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: DBNConfig) -> Plan | Result:
    """What ``run`` would take, from labels and metadata."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The epochs of the whole network, how each machine ended, and what it took."""
    figures = result.figures
    print("\n".join(aligned(rows(figures))))
    print("\n".join(f"{name:<9} {text}" for name, text in lines(figures).items()))
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """The head, and up to 12 epochs of fine-tuning."""
    return _trained.epochs_table(_trained.last_stage(figures["history"]), figures["best_epoch"])


def lines(figures: dict[str, Any]) -> dict[str, str]:
    """The summary by the first word of each line."""
    history = figures["history"]
    stages = list(dict.fromkeys(epoch["stage"] for epoch in history))[:-1]
    codes = {
        f"{row['n_components']} codes": f"error {row['autoencoder']:.4g} of an entry, of as many principal components "
        f"{row['PCA']:.4g}"
        for row in figures.get("codes", ())
    }
    machines = {stage: _trained.stage_line([epoch for epoch in history if epoch["stage"] == stage]) for stage in stages}
    return {**machines, **_trained.lines(figures), **codes}


def main(argv: list[str] | None = None) -> int:
    return command("dbn", DBNConfig, run, argv, show)


def work_of(config: DBNConfig) -> Work:
    from lazypipe.nets.stack import save_stack  # torch, before the plan is made, which counts its memory

    model = lp.DBN(
        config.hidden,
        pretraining=options_of(config.pretraining),
        fine_tuning=options_of(config.fine_tuning),
        **fields_of(config, ComputingConfig),
    )
    start: dict[str, Any] = {"stack": config.stack, "pretrain": config.pretrain}

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        require_images(config, inputs.shape[1], inputs.uri)
        _require_codes(config, inputs)
        given: dict[str, Any] = {"validation": inputs.validation, "unlabelled": _rows(config), **start}
        return lp.plan_dbn(*inputs.train, model, engine=engine, **given)

    def train(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        X, y = inputs.train
        where: dict[str, Any] = {"engine": engine, "state": config.state, "restart": config.restart}
        with _trained.heard(engine) as epochs:
            model.fit(X, y, validation=inputs.validation, unlabelled=_rows(config), **start, **where)
        tuning = config.fine_tuning
        answer = _trained.answer(
            config, inputs, model, model.network_, keep=tuning.keep, batch_size=tuning.batch_size, epochs=epochs
        )
        if config.pretrain:
            answer.files[STACK] = partial(save_stack, stack=model.stack_)
        if config.codes is not None:
            _add_codes(config, answer, inputs, model, engine)
        return answer

    return Work("dbn", planned, train, open=lambda: open_inputs(config))


def _require_codes(config: DBNConfig, inputs: Inputs) -> None:
    from lazypipe.models.codes import checked_codes

    if config.codes is not None and not config.pretrain:
        raise lp.ConfigError(
            "codes: autoencoders are made of a stack, and pretrain is false. Leave one of the two out."
        )
    if config.codes is not None and config.hold_out is None and config.validation is None:
        raise lp.ConfigError("codes: there are no rows to give back. Give validation (--validation) or hold_out.")
    if config.codes is not None:
        checked_codes(config.codes, (_rows(config) or inputs.train[0]).shape)


def _add_codes(config: DBNConfig, answer: Answer, inputs: Inputs, model: Any, engine: Engine) -> None:
    """The errors of autoencoders and of principal components, as a table and a picture."""
    from lazypipe.figures import code_errors as drawn
    from lazypipe.models.codes import code_errors

    assert config.codes is not None and inputs.validation is not None
    rows, others = _rows(config) or inputs.train[0], inputs.validation[0]
    options = {
        "pretraining": options_of(config.pretraining),
        "fine_tuning": {
            name: value for name, value in options_of(config.fine_tuning).items() if name in ("epochs", "batch_size")
        },
    }
    shared = fields_of(config, ComputingConfig)
    shared.pop("divide_by", None)
    found = code_errors(
        rows,
        others,
        config.codes,
        stack=model.stack_,
        engine=engine,
        state=config.state,
        restart=config.restart,
        **options,
        **shared,
    )
    answer.figures["codes"] = found
    answer.tables["codes"] = [list(found[0]), *(list(row.values()) for row in found)]
    pictures = answer.pictures
    answer.pictures = lambda: {**pictures(), "codes.png": drawn(found)}


def _rows(config: DBNConfig) -> Any:
    return None if config.unlabelled is None else lp.open_matrix(config.unlabelled, column=config.column)


if __name__ == "__main__":
    sys.exit(main())
