"""What the sweep's arithmetic reaches: skinny products, samples a second of sgd and mlp; and the learning curves.

Tasks run as the in-process engine runs them: each on a thread of its own, with one BLAS thread.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import watched_memory
from contenders import tell, what_failed
from grids import Job, pairs_of
from threadpoolctl import threadpool_limits

REPEATS = 3
CLASSES = 10


def at_once(works: Sequence[Callable[[], Any]]) -> tuple[float, list[Any]]:
    """Seconds until the last of several calls, a thread for each, has ended; and what they gave."""
    begin = threading.Barrier(len(works) + 1)

    def one(work: Callable[[], Any]) -> Any:
        begin.wait()
        return work()

    with threadpool_limits(1), ThreadPoolExecutor(len(works)) as pool:
        calls = [pool.submit(one, work) for work in works]
        begin.wait()
        begun = time.perf_counter()
        found = [call.result() for call in calls]
        return time.perf_counter() - begun, found


def gemm(threads: int, n: int) -> float:
    """GFLOP/s of square float32 products, one on each thread."""
    factor = np.ones((n, n), np.float32)
    out = [np.empty((n, n), np.float32) for _ in range(threads)]
    works = [partial(np.matmul, factor, factor, out=product) for product in out]
    took = [at_once(works)[0] for _ in range(REPEATS + 1)]
    return threads * 2 * n**3 / statistics.median(took[1:]) / 1e9


def products(job: Job, n: int) -> None:
    """A pass over rows x 784 at 4, 2 and 1 strengths of ten classes: both products, and all of it."""
    from lazypipe.models.sweep.rows import block_rows

    rows, targets = job.scaled(), job.labels.astype(np.int32)
    width, step = rows.shape[1], block_rows(rows.shape[1])
    for threads in sorted({1, job.threads}):
        size = len(rows) // threads
        parts = [slice(i * size, (i + 1) * size) for i in range(threads)]
        rates, told = [gemm(threads, n)], []
        for columns in (4 * CLASSES, 2 * CLASSES, CLASSES):
            weights = np.random.default_rng(0).normal(0, 0.01, (width, columns)).astype(np.float32)
            works = [partial(time_pass, rows[of], targets[of], weights, step) for of in parts]
            took = [np.mean(at_once(works)[1], axis=0) for _ in range(REPEATS + 1)]
            there, back, whole = np.median(took[1:], axis=0)
            gflops = threads * 2 * size * width * columns / 1e9  # of one product
            told.append(
                {
                    "columns": columns, "forward": gflops / there, "transposed": gflops / back,
                    "both": 2 * gflops / (there + back), "pass": 2 * gflops / whole,
                }
            )  # fmt: skip
        rates.append(gemm(threads, n))
        tell(threads=threads, gemm=max(rates), rows=threads * size, products=told)


def time_pass(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, step: int) -> tuple[float, float, float]:
    """Seconds of rows @ weights, of residualsᵀ @ rows, and of all of a pass for gradients, as the fit makes it."""
    from lazypipe.stats.softmax_kernel import residuals
    from lazypipe.stats.thin import Thin

    columns = weights.shape[1]
    bias, losses, sums = np.zeros(columns, np.float32), np.zeros(columns // CLASSES), np.zeros(columns)
    total, there, back, thin = np.zeros(weights.shape[::-1]), 0.0, 0.0, Thin(weights)
    started = time.perf_counter()
    for start in range(0, len(rows), step):
        values = rows[start : start + step]
        begun = time.perf_counter()
        logits = thin.times(values)
        there += time.perf_counter() - begun
        residuals(logits, bias, targets[start : start + step], CLASSES, losses, sums)
        begun = time.perf_counter()
        total += thin.back(logits, values)
        back += time.perf_counter() - begun
    return there, back, time.perf_counter() - started


def samples(job: Job, n: int, shapes: dict[str, tuple[int, int, int]]) -> None:
    """Samples a second of each model: ``shapes`` gives the rows and epochs of a task, and the hidden units.

    A task is a whole fit at one strength, and at all of them: every epoch's order and steps, and the pass that takes
    the objective at the end. The rows are in memory.
    """
    from lazypipe.io.examples import problem_of
    from lazypipe.models.sweep.fitted import Options
    from lazypipe.models.sweep.grid import model_of
    from lazypipe.models.sweep.rows import shift_of

    problem = problem_of(*pairs_of(job), 255, False)
    shift = shift_of(problem.train)
    for name, (size, epochs, hidden) in shapes.items():
        options = Options(epochs=epochs, hidden=(hidden,), least_steps=1)
        size = min(size, problem.train.n_rows)
        try:
            fit = model_of(name).fit
            fit(*_held(problem, 200, shift), job.strengths, options, 0)  # compiled loops
            held = [_held(problem, size, shift) for _ in range(job.threads)]
            for threads in sorted({1, job.threads}):
                rates = [gemm(threads, n)]
                for strengths in (job.strengths[:1], job.strengths):
                    works = [partial(fit, *held[i], strengths, options, i) for i in range(threads)]
                    took, failed = [], ""
                    for _ in range(job.repeats or REPEATS):
                        seconds, found = at_once(works)
                        took.append(seconds)
                        outcomes = [one for fitted in found for one in fitted.outcomes]
                        failed = failed or "; ".join(one.failed for one in outcomes if one.failed)
                    rates.append(gemm(threads, n))
                    tell(
                        model=name, threads=threads, strengths=len(strengths), rows=size, epochs=epochs, hidden=hidden,
                        batch=options.batch_size, rate=threads * size * epochs / statistics.median(took),
                        seconds=took, gemm=max(rates), failed=failed,
                    )  # fmt: skip
        except Exception as error:
            tell(model=name, failure=what_failed(error))


def _held(problem: Any, size: int, shift: np.ndarray) -> tuple[Any, np.ndarray, int]:
    """The rows of a prefix in memory, their targets, and how many classes there are."""
    from lazypipe.models.sweep.rows import Prefix

    prefix = Prefix(problem.train, size, None, shift, hold=True)
    prefix.all()
    present, targets = np.unique(prefix.targets, return_inverse=True)
    return prefix, targets, len(present)


def curves(job: Job, picture: Path, models: list[str], epochs: int, hidden: int) -> None:
    """A sweep of several models at once; its table, its memory, and the picture of its learning curves."""
    import lazypipe as lp
    from lazypipe.figures.sweep import learning_curves

    engine = lp.open_engine("dask", memory=job.memory, workers=job.threads)
    with engine, watched_memory() as peak:
        begun = time.perf_counter()
        sweep = lp.regularization_sweep(
            *pairs_of(job), sizes=job.curves, strengths=job.strengths, divide_by=255, model=models, epochs=epochs,
            hidden=hidden, engine=engine,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
    learning_curves(sweep).savefig(picture)
    tell(
        seconds=seconds, models=models, epochs=epochs, hidden=hidden, picture=picture.name, resident=peak.resident,
        anonymous=peak.anonymous, planned=sweep.plan_.peak_nbytes, best=sweep.best and sweep.best.cell,
        cells=sweep.table.to_pylist(),
    )  # fmt: skip
