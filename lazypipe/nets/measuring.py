"""How fast a network trains here: a step, and an epoch of rows that stay or are streamed, on every device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lazypipe.errors import MemoryPlanError
from lazypipe.io.examples import Examples
from lazypipe.nets.cut import cut_rows
from lazypipe.nets.device import arithmetic, describe, device_of, memory_used, wait
from lazypipe.nets.fitting import targets_of
from lazypipe.nets.initial import initial_for
from lazypipe.nets.network import Network, Shape
from lazypipe.nets.options import Options
from lazypipe.nets.processes import Alone
from lazypipe.nets.stream import Stream
from lazypipe.nets.training import Training

STEP_SECONDS = 1.0  # steps are repeated for so long
WARM_STEPS = 3  # that are not counted: memory is taken, kernels are chosen
STREAMED_SHARE = 4  # a streamed epoch has memory for a quarter of the rows
ALL = 2**62  # bytes, for as many rows as there are
PRODUCTS = {  # how products may be rounded, by device: precision and matmul_precision
    "cpu": (("float32", "highest"), ("bfloat16", "highest")),
    "cuda": (("float32", "highest"), ("float32", "high"), ("bfloat16", "highest")),
}


class Pace(NamedTuple):
    """How fast one device trains with one kind of products; None where it was not worth an epoch, or cannot be."""

    device: str  # in words
    precision: str
    matmul_precision: str
    batch_rows: int
    step_seconds: float  # of a batch that lies on the device
    resident_seconds: float | None  # an epoch of rows that stay on the device
    streamed_seconds: float | None  # an epoch of rows that are read meanwhile, a quarter at a time
    waiting: float | None  # share of the streamed epoch that it waited for rows
    device_memory: int  # bytes, at most; 0 on a processor


def paces(train: Examples, shape: Shape, options: Options, devices: Sequence[str]) -> Iterator[Pace]:
    """Measure training on each of ``devices`` ("cpu", "cuda"), one after another; ``options`` as in ``MLP``, checked.

    Epochs are real ones, the second of two. Products that are slower than float32's on that device, as bfloat16 on
    processors without instructions for it, are timed a step, and no epoch. Memory: the rows, and a training.
    Raises ConfigError for a device that is not there.
    """
    for name in devices:
        device = device_of(name)
        plain = 0.0
        for precision, matmul_precision in PRODUCTS[device.type]:
            tried = replace(options, precision=precision, matmul_precision=matmul_precision, epochs=2)
            with arithmetic(matmul_precision, options.threads):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                step = _step_seconds(train, shape, tried, device)
                plain = plain or step
                resident = streamed = None
                if step <= plain:
                    resident = _epoch(train, shape, tried, device, ALL)
                    streamed = _epoch(train, shape, tried, device, _streaming_memory(train, tried))
                yield Pace(
                    describe(device),
                    precision,
                    matmul_precision,
                    _batch_rows(train, options),
                    step,
                    resident and resident[0],
                    streamed and streamed[0],
                    streamed and streamed[1],
                    memory_used(device),
                )


def write_rows(path: Path, n_rows: int, n_columns: int, seed: int = 0, block_rows: int = 4096) -> None:
    """A .npy of random bytes (n_rows, n_columns), by blocks: rows of the size of images, to be timed with."""
    random = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, n_columns))
    for start in range(0, n_rows, block_rows):
        part = rows[start : start + block_rows]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    rows.flush()


def _network(shape: Shape, options: Options, device: torch.device) -> Network:
    network = Network(shape, torch.Generator(device).manual_seed(options.seed), device, precision=options.precision)
    network.initialise(initial_for("auto", shape.activation), options.seed)
    return network


def _batch_rows(train: Examples, options: Options) -> int:
    return min(options.batch_size or train.n_rows, train.n_rows)


def _stream(train: Examples, shape: Shape, options: Options, device: torch.device, memory: int) -> Stream:
    return Stream(
        train.matrix,
        targets_of(train, shape),
        divide_by=train.divide_by,
        batch_rows=_batch_rows(train, options),
        memory=memory,
        seed=options.seed,
        device=device,
    )


def _step_seconds(train: Examples, shape: Shape, options: Options, device: torch.device) -> float:
    """Of a gradient and a move, again and again on one batch."""
    network = _network(shape, options, device)
    optimizer = options.optimizer_of(network.parameters)
    n = _batch_rows(train, options)
    random = torch.Generator(device).manual_seed(options.seed)
    rows = torch.rand((n, shape.units[0]), generator=random, device=device)
    if shape.loss == "cross_entropy":
        targets = torch.randint(shape.units[-1], (n,), generator=random, device=device)
    else:
        targets = torch.rand((n, shape.units[-1]), generator=random, device=device)

    def steps(n_steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(n_steps):
            network.learn(rows, targets, n, True)
            optimizer.step(0.0)  # where it goes does not matter
        wait(device)
        return time.perf_counter() - begun

    steps(WARM_STEPS)
    n_steps, seconds = 1, 0.0
    while True:
        seconds = steps(n_steps)
        if seconds > STEP_SECONDS / 2:
            return seconds / n_steps
        n_steps = max(2 * n_steps, int(n_steps * STEP_SECONDS / max(seconds, 1e-6)))


def _epoch(
    train: Examples, shape: Shape, options: Options, device: torch.device, memory: int | None
) -> tuple[float, float] | None:
    """Seconds of the second epoch and the share of them that it waited for rows; None without memory for it."""
    if memory is None:
        return None
    with closing(_stream(train, shape, options, device, memory)) as stream:
        network = _network(shape, options, device)
        course = options.course(network.parameters.size, None, False)
        training = Training(network, options.optimizer_of(network.parameters), stream, course, group=Alone(device))
        history = training.run().history
    return train.n_rows / history[-1]["samples_per_second"], history[-1]["waiting"]


def _streaming_memory(train: Examples, options: Options) -> int | None:
    """Bytes for a quarter of the rows; None where there are too few to stream them."""
    batch_rows = _batch_rows(train, options)
    whole = cut_rows(train.matrix, batch_rows=batch_rows, memory=ALL, target_nbytes=8)
    memory = whole.reader_nbytes + (whole.host_nbytes - whole.reader_nbytes) // STREAMED_SHARE
    try:
        cut = cut_rows(train.matrix, batch_rows=batch_rows, memory=memory, target_nbytes=8)
    except MemoryPlanError:
        return None
    return None if cut.resident else memory
