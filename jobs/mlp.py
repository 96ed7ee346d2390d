"""A multilayer perceptron: ``python -m jobs mlp --source x.npy --labels y.npy --hold-out 0.2``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import lazypipe as lp
from jobs import _run, _trained
from jobs._cli import command
from jobs._examples import ExamplesConfig, Inputs, open_inputs
from jobs._run import Answer, Result, Work
from jobs._tables import aligned
from jobs._training import ComputingConfig, LayersConfig, StepsConfig, fields_of, require_images
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.progress import PassDone


class MLPConfig(ComputingConfig, StepsConfig, LayersConfig, ExamplesConfig):
    r"""Train a multilayer perceptron to sort rows into classes, or to predict a number, on the processor or a GPU.

      python -m jobs mlp --source data/train.npy --labels data/train.labels.npy --hold-out 0.2
      python -m jobs mlp --source data/train.npy --labels data/train.labels.npy --validation data/test.npy \
        --validation-labels data/test.labels.npy --divide-by 255 --hidden 1024,512 --dropout 0.2 --l2 1e-4 \
        --schedule cosine --epochs 30 --patience 5 --state states/mlp --out results/mlp

    Rows that the budget (--engine.memory) holds are read once; of larger files blocks are read in random order while
    it computes. All epochs are told as they end; that which validates best is kept. Without validation rows nothing is
    validated, and the last is kept. Convert gzipped IDX, and formats of compressed chunks, to .npy first.
    """

    must_validate: ClassVar[bool] = False


def run(config: MLPConfig) -> Result:
    """Train, save ``model.safetensors``, ``history.csv`` and ``confusion`` (K, K), and log the run."""
    return _run.carry_out(config, work_of(config))


def plan(config: MLPConfig) -> Plan | Result:
    """What ``run`` would take, from labels and metadata."""
    return _run.plan(config, work_of(config))


def show(result: Result) -> None:
    """The epochs, which of them is kept, and what it took."""
    figures = result.figures
    print("\n".join(aligned(_trained.epochs_table(figures["history"], figures["best_epoch"]))))
    print("\n".join(f"{name:<9} {text}" for name, text in _trained.lines(figures).items()))
    print("\n".join([_run.memory_line(figures), *result.lines()]))


def main(argv: list[str] | None = None) -> int:
    return command("mlp", MLPConfig, run, argv, show)


def work_of(config: MLPConfig) -> Work:
    import lazypipe.nets.mlp  # noqa: F401  # before the plan is made, which counts the memory of libraries

    model = lp.MLP(**fields_of(config, LayersConfig, StepsConfig, ComputingConfig))

    def planned(inputs: Inputs, engine: Engine) -> Plan:
        require_images(config, inputs.shape[1], inputs.uri)
        return lp.plan_mlp(*inputs.train, model, validation=inputs.validation, engine=engine)

    def train(inputs: Inputs, engine: Engine, history: list[PassDone]) -> Answer:
        where: dict[str, Any] = {"engine": engine, "state": config.state, "restart": config.restart}
        with _trained.heard(engine) as epochs:
            model.fit(*inputs.train, validation=inputs.validation, **where)
        return _trained.answer(
            config, inputs, model, model, keep=config.keep, batch_size=config.batch_size, epochs=epochs
        )

    return Work("mlp", planned, train, open=lambda: open_inputs(config))


if __name__ == "__main__":
    sys.exit(main())
