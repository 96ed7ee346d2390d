"""The rates of this machine that a prediction takes (lazypipe.scaling.Machine), each by a loop of its own.

None of them runs a job: what they are compared with is another measurement.
"""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

import lazypipe as lp
from lazypipe.blocks import Block, Run, Span
from lazypipe.engines import Engine
from lazypipe.models.pca.direct import leading_pairs
from lazypipe.plan import FAN_IN, plan_fold
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


class Timed(NamedTuple):
    """What a run took."""

    seconds: float  # on the clock; on a processor, a worker, where others were busy
    others: float  # cores that other processes took meanwhile
    on_clock: bool


QUIET = 0.25  # of a core


def undisturbed(run: Callable[[], object], workers: int, repeats: int, patience: float) -> Timed:
    """The median of ``repeats`` runs while others took less than a quarter of a core, waited for so many seconds.

    Where there were not so many, the least disturbed ones, and in place of the seconds on the clock those that all
    threads were on a processor, shared among the workers: in the page cache nothing is waited for.
    """
    found: list[tuple[float, float, float]] = []
    deadline = time.monotonic() + patience
    while True:
        while time.monotonic() < deadline:
            others = Others()
            time.sleep(1)
            if others.cores() < QUIET:
                break
        others, own, begun = Others(), _own(), time.perf_counter()
        run()
        seconds = time.perf_counter() - begun
        found.append((others.cores(), seconds, (_own() - own) / workers))
        good = [one for one in found if one[0] < QUIET]
        if len(good) >= repeats or (time.monotonic() >= deadline and len(found) >= repeats):
            break
    on_clock = len(good) >= repeats
    least = sorted(good if on_clock else found)[:repeats]
    seconds = statistics.median(one[1] if on_clock else one[2] for one in least)
    return Timed(seconds, max(one[0] for one in least), on_clock)


def on_cores(n: int, loop: Callable[[int], object]) -> None:
    """``loop`` on ``n`` threads at once."""
    with threadpool_limits(1), ThreadPoolExecutor(n) as pool:
        list(pool.map(loop, range(n)))


class Loop(NamedTuple):
    """Something to do, and how much of it each worker does."""

    run: Callable[[], object]
    amount: float


def reading(path: Path, n: int) -> Loop:
    """Bytes in blocks of 8 MiB, of a file that the page cache holds."""
    blocks = [np.zeros(BLOCK, np.uint8) for _ in range(n)]
    size = path.stat().st_size // BLOCK

    def loop(i: int) -> None:
        with open(path, "rb", buffering=0) as file:
            for j in range(64):
                os.preadv(file.fileno(), [blocks[i]], (i * size // n + j) % size * BLOCK)

    return Loop(lambda: on_cores(n, loop), 64.0 * BLOCK)


def pieces(path: Path, n: int, row_nbytes: int) -> Loop:
    """Pieces of 32 KiB, a row of the file apart, one after another in 64 MiB of memory, as stripes are read."""
    n_rows = path.stat().st_size // row_nbytes - 1
    buffers = [np.zeros((n_rows, PIECE), np.uint8) for _ in range(n)]

    def loop(i: int) -> None:
        with open(path, "rb", buffering=0) as file:
            for column in range(6):
                for row in range(n_rows):
                    os.preadv(file.fileno(), [buffers[i][row]], row * row_nbytes + (6 * i + column) * PIECE)

    return Loop(lambda: on_cores(n, loop), 6.0 * n_rows)


def adding(n: int) -> Loop:
    """Bytes of float64 that are added to others."""
    arrays = [(np.ones(2**21), np.ones(2**21)) for _ in range(n)]

    def loop(i: int) -> None:
        left, right = arrays[i]
        for _ in range(16):
            left += right

    return Loop(lambda: on_cores(n, loop), 16.0 * 8 * 2**21)


def symmetric(dtype: str, n: int) -> Loop:
    """Operations of a block of rows times itself, of which half are made."""
    blocks = [np.random.default_rng(i).random((2048, 1024)).astype(dtype) for i in range(n)]

    def loop(i: int) -> None:
        for _ in range(8):
            product_with_itself(blocks[i])

    return Loop(lambda: on_cores(n, loop), 8.0 * 2048 * 1024**2)


def thin(n: int) -> Loop:
    """Operations of a stripe of float32 with 16 vectors, there and back."""
    stripes = [np.random.default_rng(i).random((2000, 1040), np.float32) for i in range(n)]
    basis = np.random.default_rng(9).random((2000, 16), np.float32)

    def loop(i: int) -> None:
        for _ in range(40):
            gram_product(stripes[i], basis)

    return Loop(lambda: on_cores(n, loop), 40.0 * 4 * 2000 * 1040 * 16)


def decomposing() -> Loop:
    """4 n³ for the leading eigenpairs of a symmetric matrix, on one core."""
    square = np.random.default_rng(0).random((1500, 1500))
    square = square + square.T
    return Loop(lambda: on_cores(1, lambda _: leading_pairs(square, 10)), 4.0 * 1500**3)


def adding_windows(n: int) -> Loop:
    """Additions of windows of int16 and of their squares: 60 lags x 384 channels, 20 units."""
    values = np.random.default_rng(0).integers(-300, 300, (8192, 384)).astype(np.int16)
    span = Span(0, len(values))
    times = np.sort(np.random.default_rng(1).integers(100, 8000, (20, 40)), axis=1)
    windows, _ = find_windows(times.ravel(), np.arange(21) * 40, (-30, 30), [span])
    statistic = SpikeTriggered(windows, Span(0, 384), "int16")
    totals = [statistic.empty() for _ in range(n)]
    statistic.add(totals[0], Block(values, span, Span(0, 384), ""))  # compiled

    def loop(i: int) -> None:
        for _ in range(12):
            totals[i] = statistic.add(totals[i], Block(values, span, Span(0, 384), ""))

    return Loop(lambda: on_cores(n, loop), 12.0 * 2 * len(windows.first) * 60 * 384)


def handing_out(engine: Engine, path: Path) -> Loop:
    """Tasks that do next to nothing, in a fold of many; ``path`` holds a small matrix."""
    matrix = lp.open_matrix(path)
    plan = plan_fold("nothing", Moments(), matrix, engine.host)
    n_runs = 768
    runs = tuple(Run(i, i, i + 1, 1) for i in range(n_runs))
    merges = (n_runs - 1) // (FAN_IN - 1)  # are tasks, too
    return Loop(lambda: engine.fold(Moments(), matrix, replace(plan, runs=runs)), n_runs + merges)


def sending(client: Any, workers: list[str]) -> Loop:
    """Bytes from one worker of Dask to another."""

    def run() -> None:
        arrays = client.map(np.ones, [2**22] * 8, workers=workers[:1], pure=False)
        client.gather(client.map(len, arrays, workers=workers[1:2], pure=False))

    return Loop(run, 8.0 * 8 * 2**22)
