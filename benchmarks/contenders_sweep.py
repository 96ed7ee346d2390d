"""Logistic regression over sizes and strengths: lazypipe, and what people would use instead."""

import inspect
import time
import warnings
from typing import Any

import numpy as np
from contenders import what_failed
from grids import Fit, Job, Ready, contender, pairs_of
from threadpoolctl import threadpool_limits

MOST_ITERATIONS = 10_000  # beyond what any cell takes: all end by tolerance


@contender("lazypipe", "small", "whole", "single", ours=True)
def lazypipe(job: Job) -> Ready:
    """From the file to the table: reading, fits, training and validation accuracies."""
    import lazypipe as lp

    engine = job.stack.enter_context(
        lp.open_engine("serial", memory=job.memory)
        if job.threads == 1
        else lp.open_engine("dask", memory=job.memory, workers=job.threads)
    )
    planned: list[int] = []

    def run(sizes: tuple[int, ...]) -> list[Fit]:
        sweep = lp.regularization_sweep(
            *pairs_of(job), sizes=sizes, strengths=job.strengths, divide_by=255, model="logistic", engine=engine
        )
        planned[:] = [sweep.plan_.peak_nbytes]
        return [
            Fit(
                row["size"], row["C"], row["seconds"], row["passes"], row["converged"], row["objective"],
                row["validation_accuracy"],
            )
            for row in sweep.table.to_pylist()
        ]  # fmt: skip

    def refit(sizes: tuple[int, ...]) -> list[Fit]:
        return _lazypipe_planes(job, sizes, engine.host)

    run((50, 4_000) if len(job.labels) >= 4_000 else (50,))  # compiled loops, pools
    setting = f"tol {_tolerance():g}, budget {job.memory}"
    return Ready(run, setting, lambda: planned[0], refit if job.threads == 1 else None)


def _tolerance() -> float:
    """The default, which a user gets."""
    import lazypipe as lp

    return inspect.signature(lp.regularization_sweep).parameters["tol"].default


def _lazypipe_planes(job: Job, sizes: tuple[int, ...], host: Any) -> list[Fit]:
    """The planes of all cells, of which a sweep gives those of the best: the tasks' own fits, once more."""
    from lazypipe.io.examples import problem_of
    from lazypipe.models.sweep.fitted import Options
    from lazypipe.models.sweep.logistic import fit
    from lazypipe.models.sweep.planning import held_nbytes
    from lazypipe.models.sweep.rows import shift_of
    from lazypipe.models.sweep.task import FitPrefix, Task

    problem, options = problem_of(*pairs_of(job), 255, False), Options(tol=_tolerance())
    shift = shift_of(problem.train)
    work = FitPrefix(problem, shift, options, held_nbytes(host), None)
    strengths = tuple(sorted(job.strengths, reverse=True))
    fits = []
    for size in sizes:
        prefix = work.prefix(Task("logistic", None, size, strengths))
        present, targets = np.unique(prefix.targets, return_inverse=True)
        found = fit(prefix, targets, len(present), strengths, options, 0)
        assert found.planes is not None
        for i, outcome in enumerate(found.outcomes):
            coef, intercept = found.planes(i)
            one = Fit(
                size, outcome.strength, objective=outcome.objective, coef=coef, intercept=intercept - coef @ shift
            )
            fits.append(one)
    return fits


@contender("scikit-learn LogisticRegression, a loop over the grid", "small", "whole", tree=True)
def scikit(job: Job) -> Ready:
    """From rows / 255 in float32, in memory, to fits, training and validation accuracies."""
    from joblib import Parallel, delayed

    warnings.simplefilter("ignore")
    x, mapped = job.scaled(), job.scaled(mapped=True)

    def loop(sizes: tuple[int, ...]) -> list[Fit]:
        with threadpool_limits(job.threads):
            return [_scikit_cell(x[:n], job.labels[:n], *job.validation, C) for n in sizes for C in job.strengths]

    def parallel(sizes: tuple[int, ...], rows: np.ndarray, backend: str) -> list[Fit]:
        cells = [(n, C) for n in sorted(sizes, reverse=True) for C in sorted(job.strengths, reverse=True)]
        work = Parallel(job.threads, backend=backend)
        one = delayed(_on_one_thread)
        return work(one(rows[:n], job.labels[:n], *job.validation, C) for n, C in cells)

    tried = {
        f"BLAS on {job.threads} threads": loop,
        f"joblib, {job.threads} processes": lambda sizes: parallel(sizes, mapped, "loky"),
        f"joblib, {job.threads} threads": lambda sizes: parallel(sizes, x, "threading"),
    }
    setting = "one thread"
    run = loop
    if job.threads > 1:
        setting = min(tried, key=lambda name: _seconds(tried[name], job.trial))
        run = tried[setting]
    else:
        run(job.trial[:1])  # imports
    return Ready(run, f"lbfgs, float32, tol 1e-4, {setting}")


def _scikit_cell(x: np.ndarray, y: np.ndarray, x_valid: np.ndarray, y_valid: np.ndarray, C: float) -> Fit:
    from sklearn.linear_model import LogisticRegression

    begun = time.perf_counter()
    model = LogisticRegression(C=C, max_iter=MOST_ITERATIONS).fit(x, y)
    seconds = time.perf_counter() - begun
    model.score(x, y)
    score, iterations = model.score(x_valid, y_valid), int(model.n_iter_[0])
    coef, intercept = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    ended = iterations < MOST_ITERATIONS
    return Fit(len(x), C, seconds, iterations, ended, None, float(score), coef, intercept)


def _on_one_thread(*arguments: Any) -> Fit:
    with threadpool_limits(1):
        return _scikit_cell(*arguments)


def _seconds(run: Any, sizes: tuple[int, ...]) -> float:
    """The shorter of two runs: the first may start processes."""
    took = []
    for _ in range(2):
        begun = time.perf_counter()
        run(sizes)
        took.append(time.perf_counter() - begun)
    return min(took)


@contender("scikit-learn GridSearchCV over C", "single", tree=True)
def search(job: Job) -> Ready:
    """The validation rows are the one fold of a PredefinedSplit; no refit, training scores too."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    warnings.simplefilter("ignore")
    rows, (x_valid, y_valid) = job.scaled(), job.validation

    def run(sizes: tuple[int, ...]) -> list[Fit]:
        fits = []
        for n in sizes:
            x, y = np.concatenate([rows[:n], x_valid]), np.concatenate([job.labels[:n], y_valid])
            folds = PredefinedSplit(np.repeat([-1, 0], [n, len(x_valid)]))
            grid = GridSearchCV(
                LogisticRegression(max_iter=MOST_ITERATIONS), {"C": job.strengths}, cv=folds, refit=False,
                n_jobs=job.threads, return_train_score=True,
            )  # fmt: skip
            with threadpool_limits(1):
                found = grid.fit(x, y).cv_results_
            for C, seconds, score in zip(
                found["param_C"], found["mean_fit_time"], found["mean_test_score"], strict=True
            ):
                fits.append(Fit(n, float(C), float(seconds), validation_accuracy=float(score)))
        return fits

    run((200,))  # processes
    return Ready(run, f"lbfgs, float32, tol 1e-4, n_jobs {job.threads}")


@contender("Spark ML LogisticRegression", "single", tree=True)
def spark(job: Job) -> Ready:
    """From rows / 255 cached in the JVM to fits, without accuracies."""
    from pyspark.ml.classification import LogisticRegression

    session, said = _session(job)
    frames = {n: _frame(session, job, n) for part, (n, *_) in job.parts.items() if part not in ("small", "whole")}

    def run(sizes: tuple[int, ...]) -> list[Fit]:
        fits = []
        for n in sizes:
            for C in job.strengths:
                begun = time.perf_counter()
                model = LogisticRegression(
                    family="multinomial", elasticNetParam=0.0, regParam=1 / (C * n), standardization=False,
                    fitIntercept=True, maxIter=MOST_ITERATIONS,
                ).fit(frames[n])  # fmt: skip
                seconds = time.perf_counter() - begun
                iterations = model.summary.totalIterations
                coef, intercept = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
                ended = iterations < MOST_ITERATIONS
                fits.append(Fit(n, C, seconds, iterations, ended, None, None, coef, intercept))
        return fits

    smallest = min(frames)
    LogisticRegression(family="multinomial", regParam=1.0, maxIter=5).fit(frames[smallest])  # the JVM compiles
    return Ready(run, f"float64, tol 1e-6, {said}")


def _session(job: Job) -> tuple[Any, str]:
    import psutil
    from pyspark.sql import SparkSession

    heap = psutil.virtual_memory().available // 2**20 // 2
    session = (
        SparkSession.builder.master(f"local[{job.threads}]")
        .config("spark.driver.memory", f"{heap}m")
        .config("spark.driver.maxResultSize", "0")
        .config("spark.local.dir", str(job.scratch))
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    job.stack.callback(session.stop)
    blas = session._jvm.dev.ludovic.netlib.blas
    try:
        name = blas.NativeBLAS.getInstance().getClass().getSimpleName()
    except Exception as error:  # no libblas on this machine
        assert "Py4J" in what_failed(error)
        name = blas.JavaBLAS.getInstance().getClass().getSimpleName()
    return session, f"{name}, local[{job.threads}]"


def _frame(session: Any, job: Job, n: int) -> Any:
    """Rows and labels cached in the JVM, through Parquet: no row passes through Python."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.functions import array_to_vector

    place = job.scratch / f"rows-{n}"
    place.mkdir(parents=True, exist_ok=True)
    for part in range(job.threads):
        of = slice(part * n // job.threads, (part + 1) * n // job.threads)
        block = job.scaled(mapped=True)[of].astype(np.float64)
        rows = pa.FixedSizeListArray.from_arrays(block.ravel(), block.shape[1]).cast(pa.list_(pa.float64()))
        table = pa.table({"row": rows, "label": job.labels[of].astype(np.float64)})
        pq.write_table(table, place / f"{part}.parquet", use_dictionary=False, compression="none")
    frame = session.read.parquet(str(place)).select(array_to_vector("row").alias("features"), "label")
    frame = frame.coalesce(job.threads).cache()
    assert frame.count() == n
    return frame
