"""What networks reach: test error on MNIST's digits, of perceptrons and of deep belief networks; and with few labels.

Every error is of the last epoch. No epoch is chosen by the rows that it is told of; of few labels the learning rate is,
for every kind of network.
"""

import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from contenders import tell
from network_data import Data

import lazypipe as lp
from lazypipe.nets.stack import save_stack

MEMORY = "4GiB"
# Chosen on the last 10,000 of the training digits, from the others.
PERCEPTRON: dict[str, Any] = {
    "optimizer": "momentum", "learning_rate": 0.1, "momentum": 0.9, "schedule": "linear", "batch_size": 128,
    "dropout": 0.3, "input_dropout": 0.1,
}  # fmt: skip
PRETRAINING: dict[str, Any] = {}  # beside the epochs, as lp.RBM has it
FINE_TUNING: dict[str, Any] = {
    "optimizer": "momentum", "learning_rate": 0.1, "momentum": 0.9, "schedule": "linear", "batch_size": 128,
    "dropout": 0.2,
}  # fmt: skip
LETTERS: dict[str, Any] = {"learning_rate": 0.02, "momentum": 0.9}  # the machines of few labels
MODELS = {"dbn": "pre-trained", "deep": "from random weights", "mlp": "rectified units"}
STRENGTH = 10_000.0  # C: next to no penalty
FEW_BATCH, FEW_RATES = 50, (0.05, 0.1)


def test_error(model: Any, data: Data) -> float:
    """Share of the test digits."""
    return 1 - model.score(data.digits("test_rows"), data.digits("test_labels"))


def perceptron(data: Data, asked: Namespace) -> None:
    """784-1024-10 with dropout, on all digits."""
    sizes = {"n_train": len(data.labels), "n_test": len(data.test[1])}
    tell(settings=PERCEPTRON, hidden=asked.hidden, epochs=asked.mlp_epochs, **sizes)
    with lp.open_engine("serial", memory=MEMORY) as engine:
        for seed in range(asked.seeds):
            model = lp.MLP(
                (asked.hidden,), epochs=asked.mlp_epochs, keep="last", seed=seed, divide_by=255, **PERCEPTRON
            )
            begun = time.perf_counter()
            model.fit(data.digits("rows"), data.digits("labels"), engine=engine)
            seconds = time.perf_counter() - begun
            rate = statistics.median(epoch["samples_per_second"] for epoch in model.history_)
            tell(seed=seed, error=test_error(model, data), seconds=seconds, rate=rate, device=model.device_)


def belief(data: Data, asked: Namespace) -> None:
    """784-500-500-2000-10, pre-trained and fine-tuned on all digits."""
    sizes = {"n_train": len(data.labels), "n_test": len(data.test[1])}
    pretraining = {**PRETRAINING, "epochs": asked.pretrain_epochs}
    fine_tuning = {**FINE_TUNING, "epochs": asked.tune_epochs}
    tell(pretraining=pretraining, fine_tuning=fine_tuning, layers=asked.layers, **sizes)
    with lp.open_engine("serial", memory=MEMORY) as engine:
        for seed in range(asked.dbn_seeds):
            model = lp.DBN(
                asked.layers, pretraining=pretraining, fine_tuning={**fine_tuning, "keep": "last"}, seed=seed,
                divide_by=255,
            )  # fmt: skip
            begun = time.perf_counter()
            model.fit(data.digits("rows"), data.digits("labels"), engine=engine)
            seconds = time.perf_counter() - begun
            tuning = sum(epoch["seconds"] for epoch in model.history_ if epoch["stage"] == "fine-tuning")
            tell(seed=seed, error=test_error(model, data), seconds=seconds, tuning=tuning, device=model.device_)


def few_labels(data: Data, asked: Namespace) -> None:
    """Networks from a stack that was pre-trained on all letters, beside others from random weights, in sweeps.

    A sweep for each learning rate: networks from random weights may want another one than pre-trained ones.
    """
    letters, layers, cells = data.letters, asked.few_layers, []
    pretraining = {**LETTERS, "epochs": asked.few_pretrain}
    with lp.open_engine("dask", memory=MEMORY) as engine, tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        stack = lp.DBN(layers, pretraining=pretraining, divide_by=255).pretrain(letters("rows"), engine=engine)
        pretrained = time.perf_counter() - begun
        file = Path(folder) / "stack.safetensors"
        save_stack(file, stack.stack_)
        begun = time.perf_counter()
        for rate in FEW_RATES:
            sweep = lp.regularization_sweep(
                (letters("rows"), letters("labels")), (letters("validation_rows"), letters("validation_labels")),
                sizes=asked.few_labels, strengths=[STRENGTH], seeds=range(asked.few_seeds), model=list(MODELS),
                pretrained=file, hidden=layers, divide_by=255, epochs=asked.few_epochs, batch_size=FEW_BATCH,
                learning_rate=rate, engine=engine,
            )  # fmt: skip
            cells += [cell_of(row, rate) for row in sweep.table.to_pylist()]
        seconds = time.perf_counter() - begun
    tell(
        layers=layers, pretraining=pretraining, pretrained=pretrained, seconds=seconds, strength=STRENGTH,
        epochs=asked.few_epochs, batch=FEW_BATCH, models=MODELS, cells=cells,
    )  # fmt: skip


def cell_of(row: dict[str, Any], rate: float) -> dict[str, Any]:
    names = ("model", "size", "seed", "train_accuracy", "validation_accuracy", "seconds")
    return {**{name: row[name] for name in names}, "rate": rate}
