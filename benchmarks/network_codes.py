"""Codes of few numbers: an autoencoder's beside those of principal components."""

import time
from argparse import Namespace
from typing import Any

from contenders import tell
from network_data import Data

import lazypipe as lp
from lazypipe.nets.components import component_errors

MEMORY = "4GiB"
PRETRAINING: dict[str, Any] = {"learning_rate": 0.02, "momentum": 0.9}
FINE_TUNING: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.003, "schedule": "linear", "batch_size": 128}


def codes(data: Data, asked: Namespace) -> None:
    """Mean squared error of an entry of the test digits, by number of components; both learnt from the same digits.

    The machines of the layers before the codes are trained once, for all numbers of components.
    """
    rows, test = data.scaled()[: asked.code_rows], data.test[0]
    pretraining = {**PRETRAINING, "epochs": asked.code_pretrain}
    fine_tuning = {**FINE_TUNING, "epochs": asked.code_epochs}
    tell(
        pretraining=pretraining, fine_tuning=fine_tuning, layers=asked.code_layers, n_train=len(rows), n_test=len(test)
    )
    with lp.open_engine("serial", memory=MEMORY) as engine:
        begun = time.perf_counter()
        components = lp.PCA(n_components=max(asked.codes)).fit(rows, engine=engine)
        of_components = component_errors(test, components.mean_, components.components_)
        seconds = time.perf_counter() - begun
        tell(kind="PCA", seconds=seconds)
        begun = time.perf_counter()
        below = lp.Autoencoder(asked.code_layers, pretraining=pretraining).pretrain(rows, engine=engine)
        tell(kind="layers before the codes", seconds=time.perf_counter() - begun)
        for n in asked.codes:
            begun = time.perf_counter()
            model = lp.Autoencoder((*asked.code_layers, n), pretraining=pretraining, fine_tuning=fine_tuning)
            model.fit(rows, stack=below.stack_, engine=engine)
            seconds = time.perf_counter() - begun
            errors = {"PCA": float(of_components[n - 1]), "autoencoder": model.reconstruction_error(test)}
            tell(kind="codes", n_components=n, seconds=seconds, **errors)
