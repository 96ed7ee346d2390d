"""Restricted Boltzmann machines: samples a second, and the pseudo-likelihood that they reach in as many epochs.

All are judged by scikit-learn's own ``score_samples``, of the same digits that none of them learnt from, with the same
units chosen; entries / 255 count as probabilities, in learning and in judging.
"""

import statistics
import time
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import network_loops
import numpy as np
import torch
from contenders import tell
from network_data import Data
from network_rates import PLENTY, Turn, gemm, in_rounds, tell_rates
from threadpoolctl import threadpool_limits

import lazypipe as lp

BATCH = 100
JUDGED = 5  # times, each with other units of every row
SCIKIT_RATES = (0.1, 0.05, 0.01)  # of which the best by those very digits is told


@dataclass
class Fit:
    """``lp.RBM.fit`` as a turn: samples a second of the epochs after the first."""

    rows: Any
    options: dict[str, Any]

    def __call__(self) -> float:
        with lp.open_engine("serial", memory=PLENTY) as engine:
            model = lp.RBM(epochs=3, **self.options).fit(self.rows, engine=engine)
        return statistics.median(epoch["samples_per_second"] for epoch in model.history_[1:])


def machines(data: Data, asked: Namespace) -> None:
    """784-256, CD-1, batches of 100: rates on each number of threads, then what they learn on all of them."""
    rows = data.scaled()[: asked.rbm_rows]
    for threads in sorted(asked.threads, reverse=True):
        _rates(data, asked, rows, threads)
    with threadpool_limits(max(asked.threads), "blas"):
        _likelihoods(data, asked, rows)


def _rates(data: Data, asked: Namespace, rows: np.ndarray, threads: int) -> None:
    plain = {"n_hidden": asked.rbm_hidden, "batch_size": BATCH, "device": "cpu", "threads": threads}
    pixels = np.load(data.digits("rows"), mmap_mode="r")[: len(rows)]
    turns: dict[str, Turn] = {
        "lazypipe": Fit(rows, plain),
        "lazypipe uint8": Fit(pixels, {**plain, "divide_by": 255}),
        "lazypipe persistent": Fit(rows, {**plain, "persistent": True}),
        "lazypipe bfloat16": Fit(rows, {**plain, "precision": "bfloat16"}),
        "torch by hand": network_loops.Machine(rows, asked.rbm_hidden, BATCH).epoch,
        "scikit-learn": lambda: len(rows) / _scikit(rows, asked.rbm_hidden, 0.05, 1)[0],
    }
    before = gemm(asked.gemm, threads)
    rates = in_rounds(turns, asked.rounds, threads)
    told = {"threads": threads, "gemm": max(before, gemm(asked.gemm, threads))}
    tell_rates(rates, kind="contender", rows=len(rows), batch=BATCH, hidden=asked.rbm_hidden, **told)


def _scikit(rows: np.ndarray, n_hidden: int, rate: float, epochs: int) -> tuple[float, Any]:
    from sklearn.neural_network import BernoulliRBM

    model = BernoulliRBM(n_hidden, learning_rate=rate, batch_size=BATCH, n_iter=epochs, random_state=0)
    begun = time.perf_counter()
    model.fit(rows)
    return time.perf_counter() - begun, model


def _likelihoods(data: Data, asked: Namespace, rows: np.ndarray) -> None:
    test, n, epochs = data.test[0], asked.rbm_hidden, asked.rbm_epochs
    beside = {"kind": "likelihood", "epochs": epochs, "rows": len(rows), "test_rows": len(test)}
    for name, more in (("lazypipe", {}), ("lazypipe persistent", {"persistent": True})):
        begun = time.perf_counter()
        model = lp.RBM(n, epochs=epochs, batch_size=BATCH, device="cpu", threads=max(asked.threads), **more)
        with lp.open_engine("serial", memory=PLENTY) as engine:
            model.fit(rows, engine=engine)
        seconds = time.perf_counter() - begun
        value = judged(test, model.components_, model.intercept_hidden_, model.intercept_visible_)
        tell(contender=name, setting="as it is", seconds=seconds, value=value, **beside)
    torch.set_num_threads(max(asked.threads))
    machine = network_loops.Machine(rows, n, BATCH)
    begun = time.perf_counter()
    for _ in range(epochs):
        machine.epoch()
    seconds = time.perf_counter() - begun
    value = judged(test, machine.weights.t().numpy(), machine.hidden.numpy(), machine.visible.numpy())
    tell(contender="torch by hand", setting="rate 0.05, momentum 0.5, then 0.9", seconds=seconds, value=value, **beside)
    for rate in SCIKIT_RATES:
        seconds, model = _scikit(rows, n, rate, epochs)
        value = judged(test, model.components_, model.intercept_hidden_, model.intercept_visible_)
        tell(contender="scikit-learn", setting=f"rate {rate:g}", seconds=seconds, value=value, **beside)


def judged(test: np.ndarray, weights: np.ndarray, hidden: np.ndarray, visible: np.ndarray) -> float:
    """The mean pseudo-likelihood of rows, nats, by scikit-learn: weights (hidden, D) and biases in a machine of its."""
    from sklearn.neural_network import BernoulliRBM

    machine = BernoulliRBM(len(weights))
    machine.components_ = np.array(weights, np.float64)
    machine.intercept_hidden_, machine.intercept_visible_ = np.array(hidden, np.float64), np.array(visible, np.float64)
    machine.n_features_in_ = weights.shape[1]
    scores = []
    for seed in range(JUDGED):
        machine.random_state = seed
        scores.append(machine.score_samples(test.astype(np.float64)).mean())
    return float(np.mean(scores))
