"""The rates of this machine that a prediction takes (lazypipe.scaling.Machine), each by a loop of its own.

None of them runs a job: what they are compared with is another measurement.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

import lazypipe as lp
from lazypipe.blocks import Block, Run, Span
from lazypipe.engines import Engine
from lazypipe.models.pca.direct import leading_pairs
from lazypipe.plan import plan_fold
from lazypipe.stats import Moments
from lazypipe.stats.base import product_with_itself
from lazypipe.stats.skinny import gram_product
from lazypipe.stats.spike_triggered import SpikeTriggered
from lazypipe.stats.windows import find_windows

BLOCK = 8 * 2**20
PIECE = 32 * 1024


class Others:
    """What other processes take of this machine's cores."""

    def __init__(self) -> None:
        self.begun, self.busy, self.own = time.perf_counter(), _busy(), _own()

    def cores(self) -> float:
        """On average, since this was made."""
        seconds = time.perf_counter() - self.begun
        return max(0.0, (_busy() - self.busy - (_own() - self.own)) / seconds)


def _busy() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def _own() -> float:
    """CPU seconds of this process and of all that it started."""
    total = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def undisturbed(measure: Callable[[], float], repeats: int, patience: float, most: float = 0.25) -> tuple[float, float]:
    """The median of ``repeats`` measurements while others took less than ``most`` of a core, and what they took then.

    After ``patience`` seconds those that were least disturbed have to do.
    """
    found: list[tuple[float, float]] = []
    deadline = time.monotonic() + patience
    while True:
        while time.monotonic() < deadline:
            others = Others()
            time.sleep(1)
            if others.cores() < most:
                break
        others = Others()
        value = measure()
        found.append((others.cores(), value))
        good = [pair for pair in found if pair[0] < most]
        if len(good) >= repeats or (time.monotonic() >= deadline and len(found) >= repeats):
            break
    least = sorted(good if len(good) >= repeats else found)[:repeats]
    values = sorted(value for _, value in least)
    return values[len(values) // 2], max(cores for cores, _ in least)


def on_cores(n: int, loop: Callable[[int], float]) -> float:
    """The rate of one of ``n`` threads that all run ``loop``, which gives how much it did."""

    def timed(i: int) -> float:
        begun = time.perf_counter()
        done = loop(i)
        return done / (time.perf_counter() - begun)

    with threadpool_limits(1), ThreadPoolExecutor(n) as pool:
        list(pool.map(loop, range(n)))
        return float(np.mean(list(pool.map(timed, range(n)))))


def reading(path: Path, n: int) -> float:
    """Bytes a second in blocks of 8 MiB, of a file that the page cache holds."""
    blocks = [np.empty(BLOCK, np.uint8) for _ in range(n)]
    size = path.stat().st_size // BLOCK

    def loop(i: int) -> float:
        with open(path, "rb", buffering=0) as file:
            for j in range(96):
                os.preadv(file.fileno(), [blocks[i]], (i * size // n + j) % size * BLOCK)
        return 96.0 * BLOCK

    return on_cores(n, loop)


def pieces(path: Path, n: int, row_nbytes: int) -> float:
    """Pieces of 32 KiB a second, a row of the file apart."""
    buffers = [np.empty(PIECE, np.uint8) for _ in range(n)]
    n_rows = path.stat().st_size // row_nbytes - 1

    def loop(i: int) -> float:
        with open(path, "rb", buffering=0) as file:
            for column in range(4):
                for row in range(n_rows):
                    os.preadv(file.fileno(), [buffers[i]], row * row_nbytes + (4 * i + column) * PIECE)
        return 4.0 * n_rows

    return on_cores(n, loop)


def adding(n: int) -> float:
    """Bytes of float64 a second that are added to others."""
    arrays = [(np.ones(2**21), np.ones(2**21)) for _ in range(n)]

    def loop(i: int) -> float:
        left, right = arrays[i]
        for _ in range(20):
            left += right
        return 20.0 * right.nbytes

    return on_cores(n, loop)


def symmetric(dtype: str, n: int) -> float:
    """Operations a second of a block of rows times itself, of which half are made."""
    blocks = [np.random.default_rng(i).random((2048, 1024)).astype(dtype) for i in range(n)]

    def loop(i: int) -> float:
        for _ in range(12):
            product_with_itself(blocks[i])
        return 12.0 * 2048 * 1024**2

    return on_cores(n, loop)


def thin(n: int) -> float:
    """Operations a second of a stripe of float32 with 16 vectors, there and back."""
    stripes = [np.random.default_rng(i).random((2000, 1040), np.float32) for i in range(n)]
    basis = np.random.default_rng(9).random((2000, 16), np.float32)

    def loop(i: int) -> float:
        for _ in range(60):
            gram_product(stripes[i], basis)
        return 60.0 * 4 * stripes[i].size * 16

    return on_cores(n, loop)


def decomposing(n: int) -> float:
    """4 n³ a second of the leading eigenpairs of a symmetric matrix."""
    square = np.random.default_rng(0).random((1500, 1500))
    square = square + square.T

    def loop(i: int) -> float:
        leading_pairs(square, 10)
        return 4.0 * 1500**3

    return on_cores(n, loop)


def adding_windows(n: int) -> float:
    """Additions a second of windows of int16 and of their squares: 60 lags x 384 channels, 20 units."""
    values = np.random.default_rng(0).integers(-300, 300, (8192, 384)).astype(np.int16)
    span = Span(0, len(values))
    times = np.sort(np.random.default_rng(1).integers(100, 8000, (20, 40)), axis=1)
    windows, _ = find_windows(times.ravel(), np.arange(21) * 40, (-30, 30), [span])
    statistic = SpikeTriggered(windows, Span(0, 384), "int16")

    def loop(i: int) -> float:
        total = statistic.empty()
        for _ in range(12):
            total = statistic.add(total, Block(values, span, Span(0, 384), ""))
        return 12.0 * 2 * len(windows.first) * 60 * 384

    return on_cores(n, loop)


def handing_out(engine: Engine, path: Path) -> float:
    """Seconds of a task that does next to nothing, in a fold of many; ``path`` holds a small matrix."""
    matrix = lp.open_matrix(path)
    plan = plan_fold("nothing", Moments(), matrix, engine.host)
    seconds = []
    for n_runs in (64, 512):
        runs = tuple(Run(i, i, i + 1, 1) for i in range(n_runs))
        begun = time.perf_counter()
        engine.fold(Moments(), matrix, replace(plan, runs=runs))
        seconds.append(time.perf_counter() - begun)
    return (seconds[1] - seconds[0]) / ((512 - 64) * 4 / 3)  # merges are tasks, too


def sending(client: Any, workers: list[str]) -> float:
    """Bytes a second from one worker of Dask to another."""
    seconds = []
    for n in (1, 2**23):
        there = client.submit(np.ones, n, workers=workers[:1], pure=False)
        client.submit(len, there, workers=workers[:1], pure=False).result()  # it is there
        begun = time.perf_counter()
        client.submit(len, there, workers=workers[1:2], pure=False).result()
        seconds.append(time.perf_counter() - begun)
    return 8.0 * 2**23 / max(1e-9, seconds[1] - seconds[0])
