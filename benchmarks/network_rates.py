"""Samples a second: perceptrons, on one process and two, and on a GPU.

Contenders take turns in one process, round by round, so that what the machine does meanwhile meets all alike; each
turn is an epoch or two. lazypipe's turn is a whole ``fit`` through an engine, of which the epochs after the first,
which also reads the rows, are told apart from the call as a whole.
"""

import os
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import network_loops
import numpy as np
import torch
from common import watched_memory
from contenders import tell, what_failed
from network_data import Data
from threadpoolctl import threadpool_limits

import lazypipe as lp
from lazypipe.engines import MIN_MEMORY
from lazypipe.nets.fitting import RESULTS, network_memory
from lazypipe.nets.network import Shape
from lazypipe.nets.options import options_of
from lazypipe.sizes import parse_bytes

CLASSES = 10
PLENTY = "4GiB"
LEAST_HELD = 6 * 2**20  # bytes, for the few rows of --quick
HELD = 0.1  # share of the rows that a stream holds

Turn = Callable[[], float]


def describe_torch() -> str:
    """Its kernels and what it multiplies with; the load of the machine, which should be next to none."""
    config = torch.__config__.show()
    mkl = next((line.split("Version ")[1].split("-")[0] for line in config.splitlines() if "Math Kernel" in line), "")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()} kernels, MKL {mkl or 'none'}, "
        f"{torch.get_num_threads()} threads{gpu}; load {os.getloadavg()[0]:.1f} at the start"
    )


def gemm(n: int, threads: int) -> float:
    """GFLOP/s of torch's square products, float32, on so many threads."""
    torch.set_num_threads(threads)
    left, out = torch.ones(n, n), torch.empty(n, n)
    took = []
    for _ in range(6):
        begun = time.perf_counter()
        torch.mm(left, left, out=out)
        took.append(time.perf_counter() - begun)
    return 2 * n**3 / statistics.median(took[1:]) / 1e9


def in_rounds(turns: Mapping[str, Turn], n_rounds: int, threads: int) -> dict[str, list[float]]:
    """What each turn gave, round by round, after one that does not count; every other round goes backwards.

    All have so many threads, of torch and of NumPy's BLAS, unless they ask for others.
    """
    found: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(n_rounds + 1):
        names = list(turns) if i % 2 else list(reversed(turns))
        for name in names:
            torch.set_num_threads(threads)
            with threadpool_limits(threads, "blas"):
                rate = turns[name]()
            if i:
                found[name].append(rate)
    return found


def tell_rates(rates: Mapping[str, list[float]], **beside: Any) -> None:
    for name, values in rates.items():
        tell(contender=name, rate=statistics.median(values), rates=values, **beside)


@dataclass
class Fit:
    """``lp.MLP.fit`` as a turn: samples a second of the epochs after the first.

    The engine lasts as long as the turn: while one is open, others in the process have one thread of BLAS.
    """

    rows: Any
    labels: Any
    memory: str | int
    options: dict[str, Any]
    hidden: int
    epochs: int = 3
    calls: list[float] = field(default_factory=list)  # samples a second of each call as a whole
    waiting: list[float] = field(default_factory=list)  # share of the time

    def __call__(self) -> float:
        model = lp.MLP((self.hidden,), epochs=self.epochs, keep="last", **self.options)
        with lp.open_engine("serial", memory=self.memory) as engine:
            begun = time.perf_counter()
            model.fit(self.rows, self.labels, engine=engine)
            took = time.perf_counter() - begun
        later = model.history_[1:]
        self.calls.append(len(self.labels) * self.epochs / took)
        self.waiting.append(statistics.median(epoch["waiting"] for epoch in later))
        return statistics.median(epoch["samples_per_second"] for epoch in later)


def plain(threads: int, **more: Any) -> dict[str, Any]:
    """Steps down the gradient, as the loops by hand take them."""
    found = {"optimizer": "gradient_descent", "learning_rate": network_loops.RATE, "device": "cpu", **more}
    return {**found, "threads": threads}


def memory_of_stream(rows: str, hidden: int, batch: int, device: str = "cpu") -> int:
    """The budget under which a fit holds a tenth of the rows at once."""
    mapped = np.load(rows, mmap_mode="r")
    options = options_of(plain(1, batch_size=batch, device=device))
    shape = Shape((mapped.shape[1], hidden, CLASSES), "relu", "cross_entropy")
    network = network_memory(shape, options, len(mapped)) + RESULTS * 4 * shape.n_parameters
    return max(parse_bytes(MIN_MEMORY), network + max(LEAST_HELD, int(HELD * mapped.nbytes)))


def perceptrons(data: Data, asked: Namespace) -> None:
    """784-1024-10 by gradient descent on digits: lazypipe, loops by hand, scikit-learn; and lazypipe's optimizers."""
    for threads in sorted(asked.threads, reverse=True):
        _beside_others(data, asked, threads)
    _optimizers(data, asked, max(asked.threads))


def _beside_others(data: Data, asked: Namespace, threads: int) -> None:
    rows, labels, hidden, batch = data.scaled(), data.labels, asked.hidden, asked.batch
    tenth = memory_of_stream(data.digits("scaled"), hidden, batch)
    options = plain(threads, batch_size=batch)
    fits = {
        "lazypipe": Fit(data.digits("scaled"), labels, PLENTY, options, hidden),
        "lazypipe uint8": Fit(data.digits("rows"), labels, PLENTY, {**options, "divide_by": 255}, hidden),
        "lazypipe streamed": Fit(data.digits("scaled"), labels, tenth, options, hidden),
    }
    turns: dict[str, Turn] = {
        **fits,
        "torch autograd": network_loops.perceptron_autograd(rows, labels, hidden, batch),
        "torch by hand": network_loops.perceptron_by_hand(rows, labels, hidden, batch),
        "scikit-learn": _scikit(rows, labels, hidden, batch),
    }
    before = gemm(asked.gemm, threads)
    rates = in_rounds(turns, asked.rounds, threads)
    told = {"threads": threads, "gemm": max(before, gemm(asked.gemm, threads)), "rows": len(rows), "hidden": hidden}
    for name, values in rates.items():
        more: dict[str, Any] = {}
        if name in fits:
            more = {"call": statistics.median(fits[name].calls), "waiting": statistics.median(fits[name].waiting)}
        if name.endswith("streamed"):
            more["memory"] = tenth
        tell_rates({name: values}, kind="contender", batch=batch, **told, **more)


def _scikit(rows: np.ndarray, labels: np.ndarray, hidden: int, batch: int) -> Turn:
    """An epoch of a network of its own, from the call to its end."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def turn() -> float:
        model = MLPClassifier(
            (hidden,), solver="sgd", batch_size=batch, learning_rate_init=network_loops.RATE, momentum=0.0, alpha=0.0,
            max_iter=1, random_state=0,
        )  # fmt: skip
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, labels)
        return len(rows) / (time.perf_counter() - begun)

    return turn


def _optimizers(data: Data, asked: Namespace, threads: int) -> None:
    """Of lazypipe alone, on some of the rows: each optimizer, bfloat16, dropout."""
    n = asked.optimizer_rows
    rows, labels = np.load(data.digits("scaled"), mmap_mode="r")[:n], data.labels[:n]
    batch, plainly = asked.batch, {"device": "cpu", "threads": threads, "batch_size": asked.batch}
    descent = {**plainly, "optimizer": "gradient_descent", "learning_rate": 0.01}
    cases: dict[str, dict[str, Any]] = {
        name: {**plainly, "optimizer": name}
        for name in ("gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
    }
    cases |= {
        "gradient_descent, tanh": {**descent, "activation": "tanh"},
        "curvature, tanh": {**descent, "optimizer": "curvature", "activation": "tanh"},
        "gradient_descent, bfloat16": {**descent, "precision": "bfloat16"},
        "gradient_descent, matmul_precision medium": {**descent, "matmul_precision": "medium"},
        "gradient_descent, dropout 0.5": {**descent, "dropout": 0.5},
        "gradient_descent, dropout 0.5 and 0.2": {**descent, "dropout": 0.5, "input_dropout": 0.2},
    }
    turns = {name: Fit(rows, labels, PLENTY, case, asked.hidden, epochs=2) for name, case in cases.items()}
    rates = in_rounds(turns, asked.optimizer_rounds, threads)
    tell_rates(rates, kind="optimizer", threads=threads, rows=n, batch=batch, hidden=asked.hidden)


def processes(data: Data, asked: Namespace) -> None:
    """One process on one thread and on all, and two processes that share each batch, a thread each."""
    labels, cases = data.labels, {}
    for batch in (asked.batch, 8 * asked.batch):
        for n, threads in ((1, 1), (1, 2), (2, 1)):
            name = f"{n} process{'es' * (n > 1)} of {threads} thread{'s' * (threads > 1)}, batches of {batch:,}"
            options = plain(threads, batch_size=batch, processes=n)
            cases[name] = Fit(data.digits("scaled"), labels, PLENTY, options, asked.hidden)
    rates = in_rounds(cases, asked.process_rounds, max(asked.threads))
    for name, values in rates.items():
        options = cases[name].options
        tell_rates(
            {name: values}, kind="processes", call=statistics.median(cases[name].calls), processes=options["processes"],
            threads=options["threads"], batch=options["batch_size"], rows=len(labels), hidden=asked.hidden,
        )  # fmt: skip


def gpu(data: Data, asked: Namespace) -> None:
    """Rows that stay on a GPU beside rows that are streamed to it; the seconds of an epoch."""
    if not torch.cuda.is_available():
        return tell(skipped=f"torch {torch.__version__} sees no GPU on this machine")
    labels, name = data.labels, torch.cuda.get_device_name()
    for batch in (asked.batch, 8 * asked.batch):
        for precision in ("float32", "bfloat16"):
            tenth = memory_of_stream(data.digits("scaled"), asked.hidden, batch, "cuda")
            options = plain(1, batch_size=batch, device="cuda", precision=precision)
            turns = {
                "resident": Fit(data.digits("scaled"), labels, PLENTY, options, asked.hidden),
                "resident uint8": Fit(data.digits("rows"), labels, PLENTY, {**options, "divide_by": 255}, asked.hidden),
                "streamed": Fit(data.digits("scaled"), labels, tenth, options, asked.hidden),
            }
            rates = in_rounds(turns, asked.rounds, max(asked.threads))
            for case, values in rates.items():
                tell_rates(
                    {case: values}, kind="gpu", batch=batch, precision=precision, gpu=name, rows=len(labels),
                    hidden=asked.hidden, waiting=statistics.median(turns[case].waiting),
                    epoch_seconds=len(labels) / statistics.median(values),
                )  # fmt: skip
    return None


def measured(stage: Callable[[Data, Namespace], None], data: Data, asked: Namespace) -> None:
    """Run a stage in this process: its lines, and at last its peak memory."""
    tell(torch=describe_torch())
    begun = time.perf_counter()
    try:
        with watched_memory(0.05, tree=True) as peak:
            stage(data, asked)
    except Exception as error:
        return tell(failure=what_failed(error))
    return tell(
        done=True, anonymous=peak.anonymous, resident=peak.resident, wall=time.perf_counter() - begun,
        load=os.getloadavg()[0],
    )  # fmt: skip
